"""`profile`'s model-only time beside a bare loop over the interpreter, in one process, in turns.

    python benchmarks/model_only.py [--model NAME|PATH] [--rounds 40] [--threads 1]

Both have an interpreter of their own with the same threads. A round is a measurement of `profile` (warm-up, the model
alone and the whole loop in turns) and a bare burst, in alternating order, so that a drift of the machine hits both
alike. The figures are the p50 over all rounds, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

from edge_mnv2.profiler.burst import choose_feed, percentiles
from edge_mnv2.profiler.measurement import measure
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.runtime.interpreter import import_runtime
from edge_mnv2.runtime.opening import open_classifier
from edge_mnv2.settings.schema import Camera


def bare_burst(interpreter: object, seconds: float) -> list[int]:
    """What a hand-made script does: nothing but `invoke` and a clock."""
    times = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while time.perf_counter_ns() < end:
        began = time.perf_counter_ns()
        interpreter.invoke()
        times.append(time.perf_counter_ns() - began)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.8, help="of one measurement of profile")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    classifier, found, _ = open_classifier(options.model, threads=options.threads)
    classifier.warm_up()
    module, _ = import_runtime()
    bare = module.Interpreter(model_path=str(found.path), num_threads=options.threads)
    bare.allocate_tensors()
    frames = choose_feed(None, Camera())
    with Watch() as watch:

        def profiled() -> list[int]:
            return measure([classifier], frames, watch, seconds=options.seconds, load_ms=0.0).model

        # Of a measurement, 40 % are the model alone.
        bursts = {"bare": lambda: bare_burst(bare, 0.4 * options.seconds), "profile": profiled}
        for burst in bursts.values():
            burst()
        times: dict[str, list[int]] = {"bare": [], "profile": []}
        ratios = []
        for number in range(options.rounds):
            this = {name: bursts[name]() for name in sorted(bursts, reverse=bool(number % 2))}
            for name, measured in this.items():
                times[name] += measured
            ratios.append(statistics.median(this["profile"]) / statistics.median(this["bare"]))
    p50 = {name: percentiles(values)["p50"] for name, values in times.items()}
    print(
        json.dumps(
            {
                "model": found.name,
                "runtime": classifier.interpreter.runtime,
                "threads": options.threads,
                "inferences": {name: len(values) for name, values in times.items()},
                "p50_ms": p50,
                "p50_ratio": round(p50["profile"] / p50["bare"], 4),
                "median_ratio": round(statistics.median(ratios), 4),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
