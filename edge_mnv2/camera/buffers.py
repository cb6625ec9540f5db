"""Picture buffers that are used again: a new one for each frame would cost its page faults, 700 for 720p.

A buffer is free when nobody but the pool refers to it; a view of it (a region, a flipped picture that shares its
memory) keeps it alive as the picture itself does, so whoever still looks at a frame never sees another one in it.
"""

from __future__ import annotations

import sys
from typing import Optional

import numpy as np

_ENOUGH = 8
"""More frames than this are not kept at once by a loop, its workers and its outputs; others get memory of their own."""


class FrameBuffers:
    """Hands out uint8 arrays of one shape. One thread at a time."""

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._shape: Optional[tuple[int, ...]] = None
        # What `sys.getrefcount` says about an array that only a list refers to, here and in this interpreter.
        self._alone = self._references([np.empty(0)], 0)

    def take(self) -> Optional[np.ndarray]:
        """A free buffer of the newest picture's shape, None before the first picture."""
        if self._shape is None:
            return None
        for position in range(len(self._buffers)):
            if self._references(self._buffers, position) == self._alone:
                return self._buffers[position]
        buffer = np.empty(self._shape, np.uint8)
        if len(self._buffers) < _ENOUGH:
            self._buffers.append(buffer)
        return buffer

    def learn(self, pixels: np.ndarray) -> None:
        """Tell the shape of a picture that was read; another shape than before begins anew."""
        if pixels.shape != self._shape:
            self._shape = pixels.shape if pixels.dtype == np.uint8 else None
            self._buffers = []

    @staticmethod
    def _references(buffers: list[np.ndarray], position: int) -> int:
        return sys.getrefcount(buffers[position])
