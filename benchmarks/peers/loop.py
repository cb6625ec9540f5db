"""One peer over one clip, in the peer's own environment. Prints one JSON document.

    python loop.py PEER MODEL CLIP THREADS FRAMES
    python loop.py PEER MODEL --once IMAGE
    python loop.py PEER MODEL --photos DIR

The loop is the one that the peers' public examples show: OpenCV decodes, the peer classifies each frame. A peer is a
module of this folder with `open_peer(model, threads)`, which returns a function from a BGR picture (HxWx3 uint8) to the
row of the best class; what it needs for preprocessing is part of it.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Classify = Callable[[Any], int]

CROP = 224 / 256


def centre(frame: Any) -> Any:
    """The centre square of 224/256 of the short side, as torchvision's evaluation transform takes it."""
    rows, columns = frame.shape[:2]
    side = round(min(rows, columns) * CROP)
    top, left = (rows - side) // 2, (columns - side) // 2
    return frame[top : top + side, left : left + side]


def frames_of(clip: str, count: int) -> Iterator[Any]:
    import cv2

    # At its end the clip is wound back, as `--loop` does: cheaper than to open it again.
    capture = cv2.VideoCapture(clip)
    for _ in range(count):
        ok, frame = capture.read()
        if not ok:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            ok, frame = capture.read()
        if not ok:
            raise SystemExit(f"{clip} cannot be read")
        yield frame
    capture.release()


def percentile(values: list[float], fraction: float) -> float:
    return sorted(values)[min(len(values) - 1, int(fraction * len(values)))]


def main() -> None:
    name, model, *rest = sys.argv[1:]
    peer = importlib.import_module(name)
    if rest[0] == "--once":
        import cv2

        print(json.dumps({"row": peer.open_peer(model, 1)(cv2.imread(rest[1]))}))
        return
    if rest[0] == "--photos":
        import cv2

        classify = peer.open_peer(model, 1)
        photos = sorted(Path(rest[1]).glob("*.jpg"))
        print(json.dumps({"rows": {photo.name: classify(cv2.imread(str(photo))) for photo in photos}}))
        return
    clip, threads, count = rest[0], int(rest[1]), int(rest[2])
    classify = peer.open_peer(model, threads)
    for frame in frames_of(clip, 5):
        classify(frame)
    latency, rows = [], []
    cpu, began = time.process_time(), time.perf_counter()
    for frame in frames_of(clip, count):
        before = time.perf_counter()
        rows.append(classify(frame))
        latency.append(time.perf_counter() - before)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        json.dumps(
            {
                "frames": count,
                "fps": count / wall,
                "classify_ms": {"p50": 1e3 * percentile(latency, 0.5), "p95": 1e3 * percentile(latency, 0.95)},
                "cpu_ms_per_frame": 1e3 * cpu / count,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
                "rows": rows[:50],
            }
        )
    )


if __name__ == "__main__":
    main()
