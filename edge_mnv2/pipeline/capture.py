"""The newest frame of a source, or every frame of it, for those who classify: the one hand-over of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Optional

from edge_mnv2.camera.frame import Frame, FrameSource, Source
from edge_mnv2.camera.handover import Handover
from edge_mnv2.camera.live import LiveSource
from edge_mnv2.errors import SourceError

_QUEUE = 4
_STOP_S = 2.0
_USUAL_STEP_NS = 40_000_000
"""From one frame to the next, in a clip of one."""


class Capture:
    """Frames of `source` (already open), one `take` each.

    A live source keeps its newest frame itself, and `take` gets it there. Everything else is read by a thread, which
    hands over the newest frame, or with `lossless` each one; with `inline` (and `lossless`) `take` itself reads it.
    With `paced`, a frame that knows its place in a clip (`position_ns`) waits for its time, and is captured then. With
    `repeat`, a source at its end is opened again. `on_read` gets the nanoseconds spent waiting for each frame.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        lossless: bool,
        paced: bool = True,
        repeat: bool = False,
        inline: bool = False,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._lossless = lossless
        self._paced = paced
        self._repeat = repeat
        self._on_read = on_read
        self._halt = threading.Event()
        self._began: Optional[int] = None
        self._position_ns, self._step_ns = 0, _USUAL_STEP_NS
        self._waited_ns = 0
        self._next_index = 0
        self._missed = 0
        self._ended = False
        self._live = source if isinstance(source, LiveSource) and source.keeps_newest else None
        self._read_here: Optional[Iterator[Frame]] = None
        self._handover: Handover[Frame] = Handover(_QUEUE if lossless else 0)
        self._thread: Optional[threading.Thread] = None
        if self._live is None:
            if inline and lossless and not source.live:
                self._read_here = self._frames()
            else:
                self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self.first_captured_at: Optional[int] = None

    def start(self) -> None:
        """Begin to read, where that takes a thread."""
        if self._thread is not None:
            self._thread.start()

    def take(self, limit_s: float, paused: bool = False) -> Optional[Frame]:
        """The next frame; None after `limit_s` seconds and at the end (see `ended`).

        While `paused` there is none: what a live source gives meanwhile counts as dropped. Raises SourceError.
        """
        if paused and self._lossless:
            self._halt.wait(limit_s)
            return None
        if self._live is not None:
            frame = self._take_live(self._live, limit_s)
        elif self._read_here is not None:
            frame = next(self._read_here, None)
            self._ended = frame is None
        else:
            frame = self._handover.take(limit_s)
            self._ended = frame is None and self._handover.ended
        if frame is not None and paused:
            self._missed += 1
            return None
        return frame

    @property
    def ended(self) -> bool:
        """Every frame is taken and none will come."""
        return self._ended

    @property
    def dropped(self) -> int:
        """Frames that were captured and never classified."""
        return self._missed + self._handover.dropped

    def give_back(self, count: int) -> None:
        """So many frames were taken and never classified."""
        self._missed += count

    def stop(self) -> None:
        """Close the source, which makes a blocked read return, and end the thread. Nothing can be taken any more."""
        self._halt.set()
        self._handover.close()
        self._source.close()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    def _take_live(self, source: LiveSource, limit_s: float) -> Optional[Frame]:
        before = time.monotonic_ns()
        frame = source.take(limit_s)
        self._waited_ns += time.monotonic_ns() - before
        if frame is None:
            self._ended = source.closed
            return None
        self._on_read(self._waited_ns)
        self._waited_ns = 0
        self._missed += frame.index - self._next_index
        self._next_index = frame.index + 1
        self.first_captured_at = self.first_captured_at or frame.captured_at
        return frame

    def _run(self) -> None:
        error: Optional[BaseException] = None
        try:
            for frame in self._frames():
                if not self._handover.put(frame):
                    return
        except Exception as caught:
            # Reading from a source that was closed to stop us fails in many ways; none of them matters then.
            if not self._halt.is_set():
                error = caught
        self._handover.finish(error)

    def _frames(self) -> Iterator[Frame]:
        """The frames in order, read as they are asked for. Raises what the source raises."""
        base = count = 0
        while not self._halt.is_set():
            before = time.monotonic_ns()
            frame = self._source.read()
            self._on_read(time.monotonic_ns() - before)
            if frame is None:
                if not self._repeat:
                    return
                if count == base:
                    raise SourceError(f"{self._source.description} has no frames to repeat")
                if not (isinstance(self._source, Source) and self._source.rewind()):
                    self._source.close()
                    if self._halt.is_set():
                        return
                    self._source.open()
                if self._began is not None:
                    # The last frame of a clip is to be seen as long as the others.
                    self._wait_until(self._began + self._position_ns + self._step_ns)
                # The source counts from 0 again; the run does not.
                self._began, base = None, count
                continue
            if self._paced and frame.position_ns is not None:
                frame = self._at_its_time(frame)
            frame = frame.at(frame.captured_at, base + frame.index) if base else frame
            count = frame.index + 1
            self.first_captured_at = self.first_captured_at or frame.captured_at
            yield frame
            # Its buffer may be free by now, and is used again while the caches have it.
            del frame

    def _at_its_time(self, frame: Frame) -> Frame:
        position = frame.position_ns or 0
        if self._began is None:
            self._began = time.monotonic_ns() - position
        elif position > self._position_ns:
            self._step_ns = position - self._position_ns
        self._position_ns = position
        self._wait_until(self._began + position)
        return frame.at(time.monotonic_ns(), frame.index)

    def _wait_until(self, due: int) -> None:
        remaining = due - time.monotonic_ns()
        if remaining > 0:
            self._halt.wait(remaining / 1e9)
