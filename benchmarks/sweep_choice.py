"""Is the setting that `profile --sweep` chooses the best one? It against every setting, measured exhaustively.

    python benchmarks/sweep_choice.py [--goal latency|throughput|power] [--seconds 50] [--rounds 40]

Every setting once a round, none left out, half of the rounds before the sweep and half after it: a machine that other
programs use changes in between. The figures are what the chosen setting costs over each other one, the median of the
rounds' ratios, and the standard error of that median; the largest is what the choice costs over the best.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics

from edge_mnv2.board.cpus import usable_cpus
from edge_mnv2.profiler.burst import choose_feed, loop_burst
from edge_mnv2.profiler.measurement import Goal, OpenClassifiers
from edge_mnv2.profiler.sweep import BURST_S, candidates, sweep
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.settings.profile import resolve


def standard_error(values: list[float]) -> float:
    """Of the median, with a spread that outliers do not move (as in the race)."""
    median = statistics.median(values)
    deviation = statistics.median(abs(value - median) for value in values)
    return 1.2533 * 1.4826 * deviation / len(values) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goal", default="latency")
    parser.add_argument("--model", default=None)
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()

    settings, goal, notes = resolve("generic"), Goal(options.goal), []
    settings_to_try = candidates(settings, [options.model], usable_cpus(), notes)
    with Watch() as watch, OpenClassifiers(settings) as engines:
        frames = choose_feed(None, settings.camera)
        costs: dict[str, list[float]] = {setting.words: [] for setting in settings_to_try}
        order = random.Random(1)

        def measure_all(rounds: int) -> None:
            for _ in range(rounds):
                for setting in order.sample(settings_to_try, len(settings_to_try)):
                    burst = loop_burst(engines.get(setting), frames, BURST_S)
                    costs[setting.words].append(goal.cost(burst, None))

        measure_all(options.rounds // 2)
        found = sweep(settings, settings_to_try, goal, frames, engines, watch, seconds=options.seconds, notes=notes)
        measure_all(options.rounds - options.rounds // 2)
    chosen = found.winner.setting.words
    ratios = {words: [mine / other for mine, other in zip(costs[chosen], values)] for words, values in costs.items()}
    over = {words: round(statistics.median(values), 4) for words, values in ratios.items()}
    print(
        json.dumps(
            {
                "goal": options.goal,
                "chosen": chosen,
                "sweep_rounds": found.rounds,
                "exhaustive_rounds": options.rounds,
                "chosen_over": over,
                "standard_error": {words: round(standard_error(values), 4) for words, values in ratios.items()},
                "chosen_over_best": max(over.values()),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
