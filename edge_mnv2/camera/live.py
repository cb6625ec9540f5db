"""Sources that go on by themselves and keep their newest frame: what cameras and streams have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import numpy as np

from edge_mnv2.camera.frame import Frame, Source
from edge_mnv2.camera.reader_thread import Reader, ReaderThread
from edge_mnv2.camera.settings import Geometry

Captured = tuple[np.ndarray, int]
"""Pixels HxWx3 uint8 and their capture time in monotonic nanoseconds."""


class LiveSource(Source):
    """A source that goes on whether its frames are taken or not, and itself keeps the newest one."""

    live = True
    keeps_newest: bool = True

    @property
    def closed(self) -> bool:
        """No frame will come any more."""
        raise NotImplementedError

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        """The newest frame that was not taken yet; None after `limit_s` seconds, or once closed.

        Raises SourceLost where the source has stopped.
        """
        raise NotImplementedError

    def read(self) -> Optional[Frame]:
        return self.take()

    def _numbered(self, taken: Optional[tuple[Captured, int]], order: str) -> Optional[Frame]:
        if taken is None:
            return None
        (pixels, captured_at), index = taken
        return self._frame(pixels, order, captured_at, index)


class ThreadedSource(LiveSource):
    """A live source whose library blocks, read by a thread of its own. `stall_s` seconds without a frame are a loss."""

    order = "bgr"

    def __init__(self, description: str, geometry: Geometry, stall_s: float) -> None:
        super().__init__(description, geometry)
        self.stall_s = stall_s
        self._thread: Optional[ReaderThread[Captured]] = None

    @property
    def closed(self) -> bool:
        return self._thread is None

    def _start(self, name: str, connect: Callable[[], Reader[Captured]], limit_s: float, first_s: float = 0) -> None:
        """Open the device in the thread and wait for its first frame. Raises SourceError."""
        thread = self._thread = ReaderThread(name, connect)
        thread.start(limit_s, first_s)

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        thread = self._thread
        return None if thread is None else self._numbered(thread.take(self.stall_s, limit_s), self.order)

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def _count_damage(self) -> None:
        self.decode_errors += 1
