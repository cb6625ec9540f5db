"""A sink, and what keeps a slow or broken one away from the loop."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional, Protocol

log = logging.getLogger(__name__)

_QUEUE = 4096
_DRAIN_S = 2.0
_RETRY_S = 1.0
_END: Any = object()


class Sink(Protocol):
    """Somewhere that results go. `write` may block and may raise OSError; `Isolated` deals with both.

    Nothing is buffered across `write` calls: what was written is there if the power goes.
    """

    name: str

    def write(self, result: Any) -> None: ...

    def close(self) -> None: ...


class EventSink(Sink, Protocol):
    """A sink that is also told what is gone when results stop coming (`loop.decision.Event`)."""

    def announce(self, events: Sequence[Any]) -> None: ...


class _Announcement(tuple[Any, ...]):
    """Events on their way through the queue."""


class Isolated:
    """Runs `sink` in a thread of its own behind a bounded queue, so that `write` returns at once and never raises.

    A failure is said once, counted in `errors` together with every result that could not be kept, and tried again
    after a second; when writing works again, that is said too.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUE)
        self.errors = 0
        self._on_reader_gone: Callable[[], None] = lambda: None
        self._failing_since: Optional[float] = None
        self._thread = threading.Thread(target=self._work, name=f"sink-{sink.name}", daemon=True)
        self._thread.start()

    def closed_by_reader_calls(self, action: Callable[[], None]) -> None:
        """Call `action` once when the reader of a pipe goes away: nobody is left to write for."""
        self._on_reader_gone = action

    def write(self, result: Any) -> None:
        try:
            self._queue.put_nowait(result)
        except queue.Full:
            self._failed("it is too slow")

    def announce(self, events: Sequence[Any]) -> None:
        if hasattr(self._sink, "announce"):
            self.write(_Announcement(events))

    def close(self) -> None:
        """Write what is queued, for two seconds at most, and close the sink."""
        deadline = time.monotonic() + _DRAIN_S
        try:
            self._queue.put(_END, timeout=_DRAIN_S)
        except queue.Full:
            self.errors += self._queue.qsize()
            return
        self._thread.join(max(0.1, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.errors += self._queue.qsize()

    def _work(self) -> None:
        while True:
            result = self._queue.get()
            if result is _END:
                break
            if self._failing_since is not None and time.monotonic() - self._failing_since < _RETRY_S:
                self.errors += 1
                continue
            try:
                if isinstance(result, _Announcement):
                    self._sink.announce(result)  # type: ignore[attr-defined]
                else:
                    self._sink.write(result)
            except BrokenPipeError:
                self._on_reader_gone()
                break
            except OSError as error:
                self._failed(error.strerror or str(error))
                self._failing_since = time.monotonic()
            else:
                if self._failing_since is not None:
                    log.warning("%s: writing works again; %d results were lost so far", self._sink.name, self.errors)
                    self._failing_since = None
        try:
            self._sink.close()
        except OSError as error:
            self._failed(error.strerror or str(error))

    def _failed(self, reason: str) -> None:
        self.errors += 1
        if self._failing_since is None:
            log.warning("%s cannot be written (%s): going on without it", self._sink.name, reason)
            self._failing_since = time.monotonic()
