"""What `edge-mnv2 teach` costs: time and memory of a lesson on one core, and frames a second of the taught model.

    python benchmarks/teach.py PICTURES [--classes 10] [--shots 20]

PICTURES is a folder with at least classes x shots photographs; they are sorted into classes by their order, because
only the work counts here. The frame rates come from one run in which both models take turns, some frames each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import resolve

ROUNDS, FRAMES = 60, 10


def lesson(folder: Path, out: Path) -> dict:
    """Teach in a process of its own that may use one core."""
    core = min(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_mnv2", "teach", str(folder), "--out", str(out), "--json"]
    began = time.monotonic()
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    known = json.loads(done.stdout)
    return {
        "pictures": known["pictures"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024, 1),
    }


def frame_rates(taught: Path, pictures: list[Path]) -> dict:
    """Median seconds a frame of both models, in turns; the ratio of the rates is what a run loses."""
    found = resolve(DEFAULT_MODEL)
    frames = [read_still(path) for path in pictures[:FRAMES]]
    with Classifier.open(found.path, found.labels) as before, Classifier.open(taught) as after:
        before.warm_up(5)
        after.warm_up(5)
        rates = []
        for turn in range(ROUNDS):
            seconds = {}
            for classifier in (before, after) if turn % 2 else (after, before):
                began = time.perf_counter()
                for frame in frames:
                    classifier.top(classifier.classify(frame).scores)
                seconds[classifier] = (time.perf_counter() - began) / len(frames)
            rates.append((1 / seconds[before], 1 / seconds[after]))
    ratios = [after / before for before, after in rates]
    return {
        "original_fps": round(statistics.median(before for before, _ in rates), 1),
        "taught_fps": round(statistics.median(after for _, after in rates), 1),
        "ratio": round(statistics.median(ratios), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shots", type=int, default=20)
    arguments = parser.parse_args()
    pictures = list_stills(arguments.pictures)[: arguments.classes * arguments.shots]
    with tempfile.TemporaryDirectory() as work:
        folder, out = Path(work) / "pictures", Path(work) / "taught.tflite"
        for number, path in enumerate(pictures):
            place = folder / f"class_{number // arguments.shots:02}"
            place.mkdir(parents=True, exist_ok=True)
            (place / path.name).symlink_to(path.resolve())
        print(json.dumps({"lesson": lesson(folder, out), "run": frame_rates(out, pictures)}, indent=2))


if __name__ == "__main__":
    main()
