"""Resident memory of a long `run`: flat, or not?

    python benchmarks/memory.py [--frames 1000000] [--model NAME|PATH] [--source test:640x480@30] [--chart FILE.svg]

A million frames of the test pattern are 24 hours of a camera at 12 frames a second. The pattern is taken as fast as the
loop can; results are logged to a file that rotates and the web server is up when its packages are there, so that what
runs in the field runs here. Memory is sampled once a second from `/proc`, and compared between the second tenth and the
last tenth of the run: growth in MB, and in bytes a frame.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    parser.add_argument("--source", default="test:640x480@30")
    parser.add_argument("--chart", type=Path)
    options = parser.parse_args()
    samples: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "edge_mnv2",
            "-q",
            "run",
            "--source",
            options.source,
            "--every-frame",
            "--json",
        ]
        command += ["--model", options.model, "--max-frames", str(options.frames), "--delegate", "none"]
        command += ["--log", f"{folder}/results.jsonl", "--log-rotate", "20MB", "--log-keep", "1", "--smooth", "0.5"]
        if importlib.util.find_spec("aiohttp"):
            command += ["--web", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        began = time.monotonic()
        while process.poll() is None:
            try:
                samples.append((time.monotonic() - began, resident_mb(process.pid)))
            except (OSError, ValueError, IndexError):
                break
            time.sleep(1)
        out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"run ended with {process.returncode}")
    summary = json.loads(out)
    tenth = max(1, len(samples) // 10)
    early = statistics.median(memory for _, memory in samples[tenth : 2 * tenth])
    late = statistics.median(memory for _, memory in samples[-tenth:])
    if options.chart:
        import pygal

        drawn = pygal.XY(title="Resident memory of run, MB", stroke=True, show_dots=False, js=(), range=(0, 160))
        drawn.add("MB", [(seconds / 60, memory) for seconds, memory in samples])
        drawn.x_title = "minutes"
        drawn.render_to_file(str(options.chart))
    print(
        json.dumps(
            {
                "model": summary["model"],
                "frames": summary["frames"],
                "minutes": round(summary["duration_s"] / 60, 1),
                "mb_at_one_to_two_tenths": round(early, 1),
                "mb_in_the_last_tenth": round(late, 1),
                "mb_most": round(max(memory for _, memory in samples), 1),
                "growth_mb": round(late - early, 2),
                "growth_bytes_a_frame": round((late - early) * 1e6 / summary["frames"], 3),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
