"""One interpreter with two threads, or two with one each: throughput of `run --every-frame`, side by side.

    python benchmarks/workers.py CLIP [--rounds 7] [--frames 600]

Threads x workers 1x1, 2x1 and 1x2 run as fresh processes in turn, in another order each round, on the clip (where the
decoder needs a core of its own) and on the test pattern (where nothing but the model works). Ratios are to 2x1,
round by round; the figure is their median. `auto` takes 1x2 with `--every-frame`, where there is memory for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from process import answer

SETTINGS = ((1, 1), (2, 1), (1, 2))


def one(source: str, threads: int, workers: int, frames: int, model: str) -> dict:
    command = [sys.executable, "-m", "edge_mnv2", "-q", "run", "--source", source, "--every-frame", "--loop", "--json"]
    command += ["--threads", str(threads), "--workers", str(workers), "--max-frames", str(frames)]
    command += ["--delegate", "none", "--model", model]
    return answer(command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    options = parser.parse_args()
    report = {}
    for title, source in (("clip", options.clip), ("pattern", "test:1280x720@30")):
        rounds = []
        for number in range(options.rounds):
            turn = number % len(SETTINGS)
            got = {
                f"{threads}x{workers}": one(source, threads, workers, options.frames, options.model)
                for threads, workers in SETTINGS[turn:] + SETTINGS[:turn]
            }
            rounds.append({name: summary["fps"] for name, summary in got.items()})
            print(title, rounds[-1], file=sys.stderr)
        report[title] = {
            "source": Path(source).name,
            "fps": {name: round(statistics.median(one[name] for one in rounds), 1) for name in rounds[0]},
            "to_2x1": {
                name: round(statistics.median(one[name] / one["2x1"] for one in rounds), 3) for name in rounds[0]
            },
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
