"""Is the setting that `profile --sweep` chooses the best one? It against every setting, measured exhaustively.

    python benchmarks/sweep_choice.py [--goal latency|throughput|power] [--seconds 50] [--rounds 40]

First the sweep, as `profile` runs it; then every setting once a round, for as many rounds, none left out. The figure is
what the chosen setting costs over the best one: the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics

from edge_mnv2.device.cpus import usable_cpus
from edge_mnv2.device.profile import resolve
from edge_mnv2.profiler import feed
from edge_mnv2.profiler.burst import loop_burst
from edge_mnv2.profiler.goal import Goal
from edge_mnv2.profiler.open_engines import OpenEngines
from edge_mnv2.profiler.sweep import BURST_S, candidates, sweep
from edge_mnv2.profiler.watch import Watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goal", default="latency")
    parser.add_argument("--model", default=None)
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()

    settings, goal, notes = resolve("generic"), Goal(options.goal), []
    settings_to_try = candidates(settings, [options.model], usable_cpus(), notes)
    with Watch() as watch, OpenEngines(settings) as engines:
        frames = feed.choose(None, settings.camera)
        found = sweep(settings, settings_to_try, goal, frames, engines, watch, seconds=options.seconds, notes=notes)
        costs: dict[str, list[float]] = {setting.words: [] for setting in settings_to_try}
        order = random.Random(1)
        for _ in range(options.rounds):
            for setting in order.sample(settings_to_try, len(settings_to_try)):
                burst = loop_burst(engines.get(setting), frames, BURST_S)
                costs[setting.words].append(goal.cost(burst, None))
    chosen = found.winner.setting.words
    over = {
        words: round(statistics.median(mine / other for mine, other in zip(costs[chosen], values)), 4)
        for words, values in costs.items()
    }
    print(
        json.dumps(
            {
                "goal": options.goal,
                "chosen": chosen,
                "sweep_rounds": found.rounds,
                "exhaustive_rounds": options.rounds,
                "chosen_over": over,
                "chosen_over_best": max(over.values()),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
