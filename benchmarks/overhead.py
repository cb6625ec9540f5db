"""What a frame costs beside decode, resize and invoke: CPU time of the loop, its decisions and its statistics.

    python benchmarks/overhead.py CLIP [--frames 2000] [--model NAME|PATH]

The clip's frames are decoded before, so that the loop hands over pictures that are there. The whole process is held to
one core and measured by CPU time, which other programs do not change: what resize and invoke take in their thread is
subtracted from what the process takes, thread switches and hand-over included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any, Optional

import cv2

from edge_mnv2.camera.frame import Frame
from edge_mnv2.outputs.status import StatusLine, status_text
from edge_mnv2.pipeline.decision import Decider
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.runtime.opening import open_classifiers
from edge_mnv2.settings.profile import resolve


class Decoded:
    """Frames that are in memory, as a clip without pace."""

    live, paced, description, granted = False, False, "decoded", None
    state, reconnects, errors = "ok", 0, ()

    def __init__(self, clip: str, count: int) -> None:
        capture = cv2.VideoCapture(clip)
        self._pictures = []
        while len(self._pictures) < 60 and (answer := capture.read())[0]:
            self._pictures.append(answer[1])
        self._count, self._next = count, 0

    def open(self) -> None: ...

    def read(self) -> Optional[Frame]:
        if self._next == self._count:
            return None
        index, self._next = self._next, self._next + 1
        return Frame(self._pictures[index % len(self._pictures)], "bgr", time.monotonic_ns(), index)

    def close(self) -> None: ...


def timed(function: Any, kept: list[int]) -> Any:
    def call(*arguments: Any) -> Any:
        began = time.thread_time_ns()
        try:
            return function(*arguments)
        finally:
            kept.append(time.thread_time_ns() - began)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    overrides = {"runtime.model": (options.model, "benchmark"), "runtime.threads": ("1", "benchmark")}
    settings = resolve(None, {**overrides, "runtime.delegate": ("none", "benchmark")})
    resize: list[int] = []
    invoke: list[int] = []
    with open_classifiers(settings, workers=1) as opened, open(os.devnull, "w") as nowhere:
        classifier = opened.classifiers[0]
        classifier._fit.to_rgb = timed(classifier._fit.to_rgb, resize)  # type: ignore[method-assign]
        classifier.interpreter.invoke = timed(classifier.interpreter.invoke, invoke)  # type: ignore[method-assign]
        loop = FrameLoop(
            Decoded(options.clip, options.frames),
            opened.classifiers,
            every_frame=True,
            decider=Decider(classifier.labels),
        )
        status = StatusLine(lambda latest, classes=True: status_text(loop.statistics, latest, dropped=0), nowhere)
        loop.add_sink(status)
        before = time.process_time_ns()
        loop.run()
        spent = time.process_time_ns() - before
        status.close()
    # The two clock calls of each of the two timers count as overhead: taken off as measured here.
    clock: list[int] = []
    empty = timed(lambda: None, clock)
    began = time.process_time_ns()
    for _ in range(options.frames):
        empty()
    timer = (time.process_time_ns() - began) / options.frames
    overhead = (spent - sum(resize) - sum(invoke)) / options.frames - 2 * timer
    per_invoke = statistics.median(invoke)
    print(
        json.dumps(
            {
                "model": opened.model,
                "invoke_ms": round(per_invoke / 1e6, 3),
                "resize_ms": round(statistics.median(resize) / 1e6, 3),
                "overhead_ms": round(overhead / 1e6, 4),
                "overhead_of_invoke": round(overhead / per_invoke, 4),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
