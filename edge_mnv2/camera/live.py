"""Sources that go on by themselves and keep their newest frame, and the threads that read them.

A library's read can block for ten seconds on a frozen device, its open for thirty on a silent server, and releasing a
capture while another thread reads from it crashes. So one thread opens, reads and releases; the others wait for it with
a time limit of their own, and leave it behind where it is stuck: it releases the device as soon as the call returns.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Optional, Protocol, TypeVar

import numpy as np

from edge_mnv2.addresses import redact
from edge_mnv2.camera.frame import Frame, Source
from edge_mnv2.camera.handover import NewestItem, Silence
from edge_mnv2.camera.settings import Geometry
from edge_mnv2.errors import EdgeMnv2Error, SourceError, SourceLost, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CLOSE_S = 3.0
"""How long a close waits for the thread before it leaves it behind."""

OPENING_CLOSE_S = 0.5
_LONGEST_PAUSE_S = 120.0


class NoFrames(SourceLost):
    """The device could be opened and gives nothing."""


class PasswordRefused(SourceError):
    """A wrong user name or password: cameras lock whoever tries it often."""


class SourceEnded(SourceError):
    """The end of a clip that was played from an address."""


class Reader(Protocol[T_co]):
    """An open device, used by its own thread alone; `interrupt` alone comes from another."""

    def read(self) -> Optional[T_co]:
        """The next item, None where this one was unusable. Raises SourceError where there will be no more."""

    def release(self) -> None: ...

    def interrupt(self) -> None:
        """Make a blocked `read` return soon, where the library can do that."""


class ReaderThread(Generic[T]):
    """Runs `connect`, then the reader's `read` for ever, in a thread of its own that hands over the newest item."""

    def __init__(self, name: str, connect: Callable[[], Reader[T]]) -> None:
        self._name = name
        self._connect = connect
        self._newest: NewestItem[T] = NewestItem(name)
        self._reader: Optional[Reader[T]] = None
        self._thread: Optional[threading.Thread] = None

    def start(self, limit_s: float, first_s: float = 0) -> None:
        """Open the device and wait for its first item, at most `limit_s` seconds. Raises SourceError.

        `first_s`: more time for the first item of what could be opened within the limit.
        """
        self._thread = threading.Thread(target=self._run, name=f"capture {self._name}", daemon=True)
        self._thread.start()
        try:
            if self._newest.ready(limit_s) or (self._reader is not None and self._newest.ready(first_s)):
                return
        except EdgeMnv2Error:
            self.stop()
            raise
        closed = self._newest.closed
        connected = self._reader is not None
        self.stop()
        if closed:
            raise SourceError(f"{self._name} was closed while it was being opened")
        if connected:
            raise NoFrames(f"{self._name} opens but gives no frames ({limit_s + first_s:.1f} s)")
        raise SourceError(f"{self._name} does not answer ({limit_s:.1f} s)")

    def take(self, stall_s: float, limit_s: Optional[float] = None) -> Optional[tuple[T, int]]:
        """As `NewestItem.take_within`."""
        return self._newest.take_within(stall_s, limit_s)

    def skip(self, count: int) -> None:
        """As `NewestItem.skip`; called by the reader."""
        self._newest.skip(count)

    def stop(self, limit_s: float = CLOSE_S) -> bool:
        """End the thread; False where it is stuck in a call and was left behind."""
        self._newest.close()
        reader, thread = self._reader, self._thread
        if reader is not None:
            reader.interrupt()
        if thread is None or thread is threading.current_thread():
            return True
        # What has not been opened yet holds nothing that somebody could be waiting for.
        thread.join(limit_s if reader is not None else min(limit_s, OPENING_CLOSE_S))
        if thread.is_alive():
            log.debug("%s: left a thread behind that is stuck in a call", self._name)
            return False
        return True

    def _run(self) -> None:
        reader: Optional[Reader[T]] = None
        try:
            reader = self._reader = self._connect()
            while not self._newest.closed:
                item = reader.read()
                if item is not None and not self._newest.add(item):
                    break
        except EdgeMnv2Error as error:
            self._newest.finish(error)
        except Exception as error:
            log.debug("%s", self._name, exc_info=True)
            self._newest.finish(SourceLost(f"{self._name} failed: {type(error).__name__}: {redact(str(error))}"))
        finally:
            if reader is not None:
                with contextlib.suppress(Exception):
                    reader.release()


def in_thread(name: str, function: Callable[[], T]) -> Future[T]:
    """`function()` in a daemon thread of its own."""
    from concurrent.futures import Future

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def done_within(future: Future[T], limit_s: Optional[float]) -> bool:
    """Wait for `future` at most `limit_s` seconds."""
    from concurrent.futures import wait

    return bool(wait([future], limit_s).done)


def call_within(limit_s: float, what: str, function: Callable[[], T], late: Callable[[T], object]) -> T:
    """`function()` in a thread of its own, with its result or exception.

    Raises SourceError that says `what` where it takes more than `limit_s` seconds; the result, should there be
    one after all, then goes to `late`, which releases it.
    """
    future = in_thread(what, function)
    if not done_within(future, limit_s):
        # An exception that comes too late interests nobody.
        future.add_done_callback(lambda done: None if done.exception() else late(done.result()))
        raise SourceError(f"{what} takes more than {limit_s:.1f} s")
    return future.result()


Captured = tuple[np.ndarray, int]
"""Pixels HxWx3 uint8 and their capture time in monotonic nanoseconds."""


class LiveSource(Source):
    """A source that goes on whether its frames are taken or not, and itself keeps the newest one."""

    live = True
    keeps_newest: bool = True
    _fitted = False
    """The region of interest was inside a picture once."""

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
        try:
            frame = self._frame(pixels, order, captured_at, index)
        except UsageError as error:
            if not self._fitted:
                raise
            # A camera that was set to another size meanwhile, and may be set back.
            raise SourceLost(f"{self.description}: {error.message}") from None
        self._fitted = True
        return frame


class ThreadedSource(LiveSource):
    """A live source whose library blocks, read by a thread of its own. `stall_s` seconds without a frame are a loss.

    With `learns`, the source's own rhythm decides: it is lost after three times its longest recent pause, and one that
    falls silent before it has shown a rhythm is waited for longer the next time.
    """

    order = "bgr"

    def __init__(self, description: str, geometry: Geometry, stall_s: float, learns: bool = False) -> None:
        super().__init__(description, geometry)
        self.stall_s = stall_s
        self._learns = learns
        self._pauses: deque[float] = deque(maxlen=8)
        self._last: Optional[tuple[int, int]] = None
        self._thread: Optional[ReaderThread[Captured]] = None

    @property
    def closed(self) -> bool:
        return self._thread is None

    def _start(self, name: str, connect: Callable[[], Reader[Captured]], limit_s: float, first_s: float = 0) -> None:
        """Open the device in the thread and wait for its first frame. Raises SourceError."""
        self.finished = False
        self._pauses.clear()
        self._last = None
        thread = self._thread = ReaderThread(name, connect)
        thread.start(limit_s, max(first_s, self.stall_s) if first_s else 0)

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        thread = self._thread
        if thread is None:
            return None
        patience = max([self.stall_s, *(3 * pause for pause in self._pauses)])
        try:
            taken = thread.take(min(patience, max(_LONGEST_PAUSE_S, self.stall_s)), limit_s)
        except SourceEnded:
            self.finished = True
            return None
        except SourceLost as error:
            raise self._silent(error) from None
        if taken is not None and self._learns:
            (_, captured_at), number = taken
            if self._last is not None and number > self._last[1]:
                self._pauses.append((captured_at - self._last[0]) / 1e9 / (number - self._last[1]))
            self._last = captured_at, number
        return self._numbered(taken, self.order)

    def _silent(self, error: SourceLost) -> SourceLost:
        """`error`, and more patience where the source has shown no rhythm yet: it may give a picture every minute."""
        if not self._learns or len(self._pauses) >= 2 or not isinstance(error, Silence):
            return error
        self.stall_s = min(3 * self.stall_s, _LONGEST_PAUSE_S)
        return Silence(f"{error.message}: waiting up to {self.stall_s:g} s from now on (setting camera.stall_s)")

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def _count_damage(self) -> None:
        self.decode_errors += 1
