"""A moving test pattern, for trying everything without a camera.

It behaves like a camera: it delivers at its rate in real time, and a frame that nobody fetched is gone. Drawing costs
nothing: the picture is painted once, larger than a frame, and each frame is a window that moves over it.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Optional

import numpy as np

from edge_mnv2.camera.frame import Frame, Granted, Source
from edge_mnv2.camera.settings import CameraSettings, Geometry, Spec
from edge_mnv2.errors import SourceLost, UsageError

SIZE = (640, 480)
FPS = 30.0
LOSS = "EDGE_MNV2_SIMULATE_LOSS_EVERY"
_PERIOD = 240
"""The window is back where it began after so many frames (pixels, at one pixel a frame)."""


class TestPattern(Source):
    """`width` x `height` at `fps`; with `loss_every` it is lost after so many frames, until it is opened again.

    With `hurry` it does not wait for the time of a frame: it gives each at once, for soaks and throughput.
    """

    __test__ = False
    live = True

    def __init__(
        self,
        width: int = SIZE[0],
        height: int = SIZE[1],
        fps: float = FPS,
        geometry: Optional[Geometry] = None,
        loss_every: int = 0,
        hurry: bool = False,
    ) -> None:
        super().__init__(f"test pattern {width}x{height} at {fps:g} fps", geometry)
        self.width, self.height, self.fps = width, height, fps
        self._loss_every = loss_every
        self._hurry = hurry
        self._canvas: Optional[np.ndarray] = None
        self._closed = threading.Event()
        self._closed.set()

    def open(self) -> None:
        if self._canvas is None:
            self._canvas = paint(self.width + _PERIOD, self.height)
        self._closed.clear()
        self._count = 0
        self._due = 0
        self._started = time.monotonic_ns()
        self.granted = Granted(self.width, self.height, self.fps, "RGB", "test")

    def read(self) -> Optional[Frame]:
        if self._closed.is_set():
            return None
        if self._loss_every and self._count >= self._loss_every:
            raise SourceLost(f"{self.description} was lost on purpose after {self._loss_every} frames")
        if self._hurry:
            self._started = time.monotonic_ns() - int(self._due * 1e9 / self.fps)
        behind = int((time.monotonic_ns() - self._started) * 1e-9 * self.fps)
        number = max(self._due, behind)
        at = self._started + int(number * 1e9 / self.fps)
        wait_s = (at - time.monotonic_ns()) * 1e-9
        if wait_s > 0 and self._closed.wait(wait_s):
            return None
        assert self._canvas is not None
        left = number % _PERIOD
        self._due = number + 1
        self._count += 1
        window = self._canvas[:, left : left + self.width]
        return self._frame(window, "rgb", at, self._count - 1)

    def close(self) -> None:
        self._closed.set()


def make(spec: Spec, settings: CameraSettings) -> TestPattern:
    """The pattern in the size and rate of `spec`, else of `settings`. Raises UsageError for a wrong variable."""
    width, height = spec.size or settings.size or SIZE
    fps = spec.fps or settings.fps or FPS
    return TestPattern(width, height, fps, settings.geometry(), loss_every(), settings.hurry)


def loss_every() -> int:
    """After how many frames the pattern is lost on purpose (`EDGE_MNV2_SIMULATE_LOSS_EVERY`); 0 for never."""
    text = os.environ.get(LOSS, "").strip()
    if not text:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise UsageError(f"{LOSS}={text}", hint="a whole number of frames")
    return int(text)


def paint(width: int, height: int) -> np.ndarray:
    """RGB uint8, read-only, `height` x `width`: colour bars, a brightness ramp and discs, with a period in x."""
    across = np.arange(width) % _PERIOD
    down = np.arange(height)
    bars = np.array(
        [
            (200, 200, 200),
            (200, 200, 0),
            (0, 200, 200),
            (0, 200, 0),
            (200, 0, 200),
            (200, 0, 0),
            (0, 0, 200),
            (20, 20, 20),
        ],
        np.uint8,
    )
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = bars[across * len(bars) // _PERIOD]
    third = height // 3
    ramp = (across * 255 // (_PERIOD - 1)).astype(np.uint8)
    canvas[third : 2 * third] = ramp[np.newaxis, :, np.newaxis]
    y = down[2 * third :, np.newaxis] - (2 * third + (height - 2 * third) // 2)
    disc = (across - _PERIOD // 2) ** 2 + y**2 < (max(2, (height - 2 * third) // 2 - 4)) ** 2
    canvas[2 * third :] = np.where(disc[..., np.newaxis], (240, 120, 20), (30, 60, 90)).astype(np.uint8)
    canvas.setflags(write=False)
    return canvas
