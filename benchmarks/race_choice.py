"""Does the race between runtimes pick the fastest one, in how long, and how often?

    python benchmarks/race_choice.py [--model NAME|PATH] [--threads 1] [--races 10] [--truth 600]
                                     [--load idle|busy|both]

The truth is measured apart from the race: every runtime with equal answers runs the model once a round, in turns, half
of the rounds before the races and half after them; a runtime's cost is the median of its times over the round's least.
A race is right where what it picks costs at most 3 % more than the cheapest. "busy": another process keeps one core
busy meanwhile. "seconds" is the whole race of every rival, processes that open both runtimes included, and
"cpu_seconds" what they compute. What comes before the first one (the twin is made, its answers are compared) and a
second contest, which finds the result remembered, stand beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edge_mnv2.board.cpus import processor
from edge_mnv2.runtime import contest, table
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import resolve

WITHIN = 1.03


@contextlib.contextmanager
def a_busy_core() -> Iterator[None]:
    """One core is kept busy, any of them: the scheduler moves what runs there."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def costs(opened: dict[str, Classifier], rounds: int) -> list[dict[str, float]]:
    """One inference of each a round, in another order each time: seconds by runtime."""
    names, found = list(opened), []
    for number in range(rounds):
        turn = number % len(names)
        times = {}
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            opened[name].interpreter.invoke()
            times[name] = time.perf_counter() - began
        found.append(times)
    return found


def spent_by_children() -> float:
    """CPU seconds of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def forget(cache: Path) -> None:
    """Forget how fast the runtimes were, and keep that their answers are equal."""
    for file in (cache / "runtimes").glob("*.json"):
        memory = json.loads(file.read_text())
        file.write_text(json.dumps({key: {**one, "ratios": {}} for key, one in memory.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--races", type=int, default=10)
    parser.add_argument("--truth", type=int, default=600)
    parser.add_argument("--load", choices=("idle", "busy", "both"), default="both")
    options = parser.parse_args()
    model, reference = resolve(options.model), table.reference().name
    rivals = contest.rivals(model.path)
    if not rivals:
        sys.exit("no other runtime is installed that could run this model: pip install edge-mnv2[onnx,openvino]")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        os.environ["EDGE_MNV2_CACHE_DIR"] = folder
        began = time.perf_counter()
        refused = {row.name: contest.Contest(model.path).equal(row) for row in rivals}
        first_s = time.perf_counter() - began
        equal = [reference, *(name for name, why in refused.items() if not why)]
        opened = {
            name: stack.enter_context(
                Classifier.open(model.path, spec=model_spec(model), runtime=name, threads=options.threads)
            )
            for name in equal
        }
        for one in opened.values():
            one.warm_up(5)
        truth = costs(opened, options.truth // 2)
        picked: dict[str, list[str]] = {}
        seconds: dict[str, list[float]] = {}
        computed: dict[str, list[float]] = {}
        for load in ("idle", "busy") if options.load == "both" else (options.load,):
            with a_busy_core() if load == "busy" else contextlib.nullcontext():
                for _ in range(options.races):
                    forget(Path(folder))
                    began, before = time.perf_counter(), spent_by_children()
                    result = contest.Contest(model.path).run(options.threads)
                    seconds.setdefault(load, []).append(time.perf_counter() - began)
                    computed.setdefault(load, []).append(spent_by_children() - before)
                    picked.setdefault(load, []).append(result.winner or reference if result else reference)
                    print(f"{load}: {picked[load][-1]} in {seconds[load][-1]:.2f} s", file=sys.stderr)
        began = time.perf_counter()
        contest.Contest(model.path).run(options.threads)
        again_s = time.perf_counter() - began
        truth += costs(opened, options.truth - options.truth // 2)
    cost = {name: statistics.median(one[name] / min(one.values()) for one in truth) for name in equal}
    least = min(cost.values())
    over = {name: round(value / least, 3) for name, value in cost.items()}
    report = {
        "processor": str(processor()),
        "model": model.name,
        "threads": options.threads,
        "median_ms": {name: round(1e3 * statistics.median(one[name] for one in truth), 3) for name in equal},
        "over_the_fastest": over,
        "refused": {name: why for name, why in refused.items() if why},
        "answers_compared_s": round(first_s, 2),
        "second_contest_s": round(again_s, 4),
    }
    for load, names in picked.items():
        report[load] = {
            "right": f"{sum(over[name] <= WITHIN for name in names)} of {len(names)}",
            "picked": {name: names.count(name) for name in dict.fromkeys(names)},
            "seconds": round(statistics.median(seconds[load]), 2),
            "seconds_at_most": round(max(seconds[load]), 2),
            "cpu_seconds": round(statistics.median(computed[load]), 2),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
