"""Stages between the classifier and the result: the scene gate before it, the smoothing of scores after it.

While nothing moves, a frame gets the scores of the last inference instead of one of its own (the scene gate).

The change measure compares the mean brightness of the cells of a small grid with those of the last picture that was
classified, so that a slow change adds up until it counts. Each cell averages 8x8 samples (each of them up to two by two
pixels, by LINEAR interpolation): sensor noise of 4 levels (of 255) moves no cell of a VGA picture by 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import numpy as np

from edge_mnv2.camera.frame import Frame
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.schema import Output

_CELLS = (16, 12)
_SAMPLES = (128, 96)


class SceneGate:
    """Says for each frame, in the order of capture, whether it shows what the last classified one showed.

    `change`: levels of 0..255 by which a cell differs where something moves; the default is above the noise of a camera
    in daylight. Scores are used again for `refresh_s` seconds at most, counted in a clip's own time where the frame is
    part of one.
    `seen` gives the part of a picture (HxWx3 uint8) that the model looks at: what moves beside it does not matter.
    One thread at a time.
    """

    def __init__(
        self,
        change: float = Output.gate_change,
        refresh_s: float = Output.gate_refresh_s,
        seen: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
    ) -> None:
        import cv2

        self._cv2 = cv2
        self._change = change
        self._refresh_ns = int(refresh_s * 1e9)
        self._seen = seen
        self._samples = np.empty((*_SAMPLES[::-1], 3), np.uint8)
        self._cells = np.empty((*_CELLS[::-1], 3), np.uint8)
        self._reference: Optional[np.ndarray] = None
        self._taken_at = 0

    def still(self, frame: Frame) -> bool:
        """True where `frame` needs no inference.

        False makes its picture the one that later pictures are compared with: it must be classified then.
        """
        cv2 = self._cv2
        now = frame.captured_at if frame.position_ns is None else frame.position_ns
        samples = cv2.resize(self._seen(frame.region), _SAMPLES, dst=self._samples, interpolation=cv2.INTER_LINEAR)
        cells = cv2.resize(samples, _CELLS, dst=self._cells, interpolation=cv2.INTER_AREA)
        reference = self._reference
        if reference is not None and 0 <= now - self._taken_at < self._refresh_ns:
            if int(cv2.absdiff(cells, reference).max()) < self._change:
                return True
        self._reference = cells.copy()
        self._taken_at = now
        return False


class Smoother:
    """`s = past * s + (1 - past) * scores`; `past` from 0 (off) to just under 1. The first scores are taken whole."""

    def __init__(self, past: float = 0.0) -> None:
        self._state: Optional[np.ndarray] = None
        self.past = past

    @property
    def past(self) -> float:
        """The weight of the past; it may be changed between two calls."""
        return self._past

    @past.setter
    def past(self, past: float) -> None:
        if not 0.0 <= past < 1.0:
            raise UsageError(f"smoothing of {past}", hint="a number from 0 (off) up to, not including, 1")
        self._past = past
        if not past:
            self.reset()

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Smoothed scores, float32, same shape. The result is valid until the next call."""
        if not self._past:
            return scores
        if self._state is None:
            self._state = scores.astype(np.float32)
        else:
            self._state *= np.float32(self._past)
            self._state += np.float32(1 - self._past) * scores
        return self._state

    def reset(self) -> None:
        """Forget the past, as after a camera was lost."""
        self._state = None
