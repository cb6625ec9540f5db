"""Latency of a live source beside the work that a frame needs: the test pattern at 30 frames a second.

    python benchmarks/live_latency.py [--source test:1280x720@30] [--seconds 10] [--rounds 3] [--threads 1]

`latency_ms` runs from the capture of a frame to its result; resize and invoke are that run's own `stages_ms`. What is
left is hand-over, thread switches, decisions and statistics: it is given as a ratio and in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

from process import answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="test:1280x720@30")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="1")
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        command = [sys.executable, "-m", "edge_mnv2", "-q", "run", "--source", options.source, "--json"]
        command += ["--duration", str(options.seconds), "--threads", options.threads, "--delegate", "none"]
        summary = answer(command)
        stages = summary["stages_ms"]
        work = stages["preprocess"]["p50"] + stages["inference"]["p50"]
        latency = summary["latency_ms"]["p50"]
        rounds.append(
            {
                "latency_p50_ms": latency,
                "resize_and_invoke_p50_ms": round(work, 3),
                "ratio": round(latency / work, 3),
                "more_ms": round(latency - work, 3),
                "dropped": summary["dropped"],
            }
        )
    ratio = statistics.median(one["ratio"] for one in rounds)
    print(json.dumps({"source": options.source, "rounds": rounds, "median_ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
