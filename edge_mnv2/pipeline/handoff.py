"""How frames go from the capture thread to those who classify them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Optional

from edge_mnv2.camera.frame import Frame


class Handoff:
    """The newest frame (`lossless=False`: an unread frame is replaced and counted as dropped), or a short queue whose
    writer waits (`lossless=True`) until half of it is free: waking it for each frame would cost a thread switch each
    time. One writer, any number of readers. While `paused()`, nothing is handed over.
    """

    def __init__(self, *, lossless: bool, depth: int = 4, paused: Callable[[], bool] = lambda: False) -> None:
        self._lossless = lossless
        self._paused = paused
        self._depth = depth if lossless else 1
        self._frames: deque[Frame] = deque()
        lock = threading.Lock()
        self._filled, self._room = threading.Condition(lock), threading.Condition(lock)
        self._ended = False
        self._error: Optional[BaseException] = None
        self.dropped = 0

    def put(self, frame: Frame) -> bool:
        """Hand `frame` over. False where nobody reads any more."""
        with self._filled:
            if self._lossless:
                while len(self._frames) >= self._depth and not self._ended:
                    self._room.wait()
            if self._ended:
                self.dropped += 1
                return False
            if len(self._frames) >= self._depth:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append(frame)
            self._filled.notify()
            return True

    def finish(self, error: Optional[BaseException] = None) -> None:
        """The writer has no more frames; `error` is raised to the readers after the last one is taken."""
        with self._filled:
            self._error = self._error or error
            self._ended = True
            self._filled.notify_all()

    def discard(self) -> None:
        """The readers are done: what is left counts as dropped, a waiting writer is let go."""
        with self._filled:
            self._ended = True
            self.dropped += len(self._frames)
            self._frames.clear()
            self._filled.notify_all()
            self._room.notify_all()

    def take(self, timeout: float) -> Optional[Frame]:
        """The next frame, or None after `timeout` seconds or at the end (see `ended`). Raises the writer's error."""
        with self._filled:
            if self._paused() or not (self._frames or self._ended):
                self._filled.wait(timeout)
            if self._frames and self._paused():
                return None
            if self._frames:
                frame = self._frames.popleft()
                if self._lossless and len(self._frames) <= self._depth // 2:
                    self._room.notify()
                return frame
            if self._error is not None:
                raise self._error
            return None

    @property
    def ended(self) -> bool:
        """No frame is left and none will come."""
        return self._ended and not self._frames
