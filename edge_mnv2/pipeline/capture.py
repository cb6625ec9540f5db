"""The thread that reads the source."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Optional

from edge_mnv2.camera.frame import Frame, FrameSource
from edge_mnv2.errors import SourceError
from edge_mnv2.pipeline.handoff import Handoff


class Capture(threading.Thread):
    """Reads `source` (already open) into `handoff` until its end, an error or `stop`.

    With `paced`, a frame that knows its place in a clip (`position_ns`) waits for its time, and is captured then. With
    `repeat`, a source at its end is opened again. `on_read` gets the nanoseconds spent in each read.
    """

    def __init__(
        self,
        source: FrameSource,
        handoff: Handoff,
        *,
        paced: bool = True,
        repeat: bool = False,
        on_read: Callable[[int], None] = lambda nanoseconds: None,
    ) -> None:
        super().__init__(name="capture", daemon=True)
        self._source = source
        self._handoff = handoff
        self._paced = paced
        self._repeat = repeat
        self._on_read = on_read
        self._halt = threading.Event()
        self._began: Optional[int] = None
        self._count = 0
        self.first_captured_at: Optional[int] = None

    def run(self) -> None:
        error: Optional[BaseException] = None
        try:
            self._read_all()
        except Exception as caught:
            # Reading from a source that was closed to stop us fails in many ways; none of them matters then.
            if not self._halt.is_set():
                error = caught
        self._handoff.finish(error)

    def stop(self) -> None:
        """Ask the thread to end; closing the source makes a blocked read return."""
        self._halt.set()
        self._handoff.discard()

    def _read_all(self) -> None:
        for frame in self.frames():
            if not self._handoff.put(frame):
                return

    def frames(self) -> Iterator[Frame]:
        """The frames in order, read as they are asked for; `run` does that in a thread of its own.

        Raises what the source raises.
        """
        read_any = False
        last: Optional[int] = None
        while not self._halt.is_set():
            before = time.monotonic_ns()
            frame = self._source.read()
            self._on_read(time.monotonic_ns() - before)
            if frame is None:
                if not self._repeat:
                    return
                if not read_any:
                    raise SourceError(f"{self._source.description} has no frames to repeat")
                self._source.close()
                if self._halt.is_set():
                    return
                self._source.open()
                self._began, read_any = None, False
                continue
            read_any = True
            if self._paced and frame.position_ns is not None:
                frame = self._wait_for_its_time(frame)
            if self._source.live and last is not None and frame.index > last + 1:
                # The source itself replaced frames that nobody had fetched yet.
                self._handoff.dropped += frame.index - last - 1
            last = frame.index
            # A source that was opened again counts from 0 again; the run does not.
            if frame.index != self._count:
                frame = replace(frame, index=self._count)
            self._count += 1
            if self.first_captured_at is None:
                self.first_captured_at = frame.captured_at
            yield frame

    def _wait_for_its_time(self, frame: Frame) -> Frame:
        position = frame.position_ns or 0
        now = time.monotonic_ns()
        if self._began is None:
            self._began = now - position
        remaining = self._began + position - now
        if remaining > 0:
            self._halt.wait(remaining / 1e9)
        return replace(frame, captured_at=time.monotonic_ns())
