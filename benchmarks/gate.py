"""What the scene gate saves and what it misses: `run --gate` beside `run`, on a still scene and on a busy clip.

    python benchmarks/gate.py PICTURE BUSY_CLIP [--seconds 20] [--rounds 3]

The still scene is made of PICTURE: 30 frames a second with new sensor noise in each; a third through, the scene is
mirrored for a while, as if somebody had turned the camera, and turned back. Both clips are played at their own rate,
as a camera would deliver them, gated and ungated in turn. Reported: CPU seconds of the whole process (decoding
included) from `getrusage`, the share of results without inference, and the events ("appeared", "gone") that only one
of the two runs had.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np


def still_clip(picture: str, path: Path, seconds: float) -> None:
    """Write the still scene of `picture` to `path` (MJPEG, 640x480, 30 fps)."""
    base = cv2.resize(cv2.imread(picture), (640, 480), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (640, 480))
    count = int(seconds * 30)
    for index in range(count):
        shown = base[:, ::-1] if count // 3 <= index < count // 3 + 45 else base
        writer.write(np.clip(shown + noise.normal(0, 3, shown.shape), 0, 255).astype(np.uint8))
    writer.release()


def events_of(log: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(event["event"], event["label"]) for line in lines for event in line.get("events", ())]


def one_run(clip: str, gate: bool, folder: Path) -> dict:
    log = folder / f"{gate}.jsonl"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "edge_mnv2", "run", "--source", clip, "--json", "--log", str(log)]
    command += ["--delegate", "none", "--appear", "0.4", *(["--gate"] if gate else [])]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
        out.seek(0)
        summary = json.loads(out.read())
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "frames": summary["frames"],
        "gated": summary["gated"],
        "events": events_of(log),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("clip")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        still_clip(options.picture, folder / "still.avi", options.seconds)
        for title, clip in (("still", str(folder / "still.avi")), ("busy", options.clip)):
            rounds = [(one_run(clip, False, folder), one_run(clip, True, folder)) for _ in range(options.rounds)]
            plain, gated = rounds[-1]
            missed = [event for event in plain["events"] if event not in gated["events"]]
            report[title] = {
                "clip": Path(clip).name,
                "cpu_s_ungated": round(statistics.median(each["cpu_s"] for each, _ in rounds), 2),
                "cpu_s_gated": round(statistics.median(each["cpu_s"] for _, each in rounds), 2),
                "cpu_ratio": round(statistics.median(b["cpu_s"] / a["cpu_s"] for a, b in rounds), 3),
                "without_inference": round(gated["gated"] / gated["frames"], 3),
                "events": len(plain["events"]),
                "events_missed": len(missed),
            }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
