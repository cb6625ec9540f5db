"""A sink, and what keeps a slow or broken one away from the loop."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional, Protocol, Union, cast

from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.installed import load, offered
from edge_mnv2.outputs.table import OutputValues

log = logging.getLogger(__name__)

_QUEUE = 4096
_PICTURES = 4
DRAIN_S = 2.0
_RETRY_S = 1.0
STEADY_S = 60.0
_WAIT_S = 10.0
_NICE = 10
_END: Any = object()


class Sink:
    """Somewhere that results go. `write` may block and may raise OSError; `Isolated` deals with both. Nothing is
    buffered across `write` calls: what was written is there if the power goes.

    What a sink does not need it leaves as it is here. One that uses pixels says `wants_pictures = True`, or "events"
    where it uses those of results with events alone; without, results come without pixels, so that many can wait in
    little memory.
    """

    name = ""
    wants_pictures: Union[bool, str] = False
    patience_s = 0.0
    """Seconds that the end of a run waits for it longer than for others, unless it is a signal that ends it."""

    @property
    def lost(self) -> int:
        """Results and events that the sink has lost by itself."""
        return 0

    @property
    def counts(self) -> Mapping[str, Any]:
        """What it has for the run's summary."""
        return {}

    def check(self, labels: Sequence[str]) -> None:
        """Raises UsageError where it names a class that is none of `labels`: asked before a model takes over."""

    def begin(self, facts: Any, labels: Sequence[str]) -> None:
        """What is about to run (`live.Facts`)."""

    def wants(self, _result: Any) -> bool:
        """Whether to write that result; asked in the loop's thread."""
        return True

    def write(self, result: Any) -> None:
        """Write a result."""
        raise NotImplementedError

    def announce(self, events: Sequence[Any]) -> None:
        """What is gone when results stop coming (`pipeline.decision.Event`)."""

    def close(self) -> None:
        """Nothing comes any more."""


def give_way() -> None:
    """From now on inference goes before this thread where they want the same core."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class _PlugIn:
    """Another package's sink, with what it leaves out as in `Sink`."""

    def __init__(self, sink: Any) -> None:
        self._sink, self._rest = sink, Sink()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sink if hasattr(self._sink, name) else self._rest, name)


class LoopOutput(Protocol):
    """An output that the loop calls in its own thread; it returns at once. `attach` comes before the first result."""

    name: str

    def attach(self, loop: Any) -> None: ...

    def write(self, result: Any) -> None: ...

    def close(self) -> None: ...


class _Announcement(tuple[Any, ...]):
    """Events on their way through the queue."""


class _Changed:
    """What is to be called between two results."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call


class Isolated:
    """Runs `sink` in a thread of its own behind a bounded queue, so that `write` returns at once and never raises.

    A failure is said once, counted in `errors` together with every result that could not be kept, and tried again
    after a second; when writing works again, that is said too. Pictures that a sink has no time for are counted in
    `skipped` and are no failure; with `lossless`, `write` waits for it instead.
    """

    def __init__(self, sink: Any, *, lossless: bool = False) -> None:
        self._sink: Sink = sink if isinstance(sink, Sink) else cast(Sink, _PlugIn(sink))
        self.wants_pictures = self._sink.wants_pictures is True
        self._event_pictures = self._sink.wants_pictures == "events"
        self._lossless = lossless
        self._queue: queue.Queue[Any] = queue.Queue(_PICTURES if self.wants_pictures else _QUEUE)
        self._lost = 0
        self.skipped = 0
        self._ended = threading.Event()
        self._on_reader_gone: Optional[Callable[[], None]] = None
        self._failing_since: Optional[float] = None
        self._outage = _Outage(self._sink.name)
        self._thread = threading.Thread(target=self._work, name=f"sink-{self._sink.name}", daemon=True)
        self._thread.start()

    def closed_by_reader_calls(self, action: Callable[[], None]) -> None:
        """Call `action` once when the reader of a pipe goes away: nobody is left to write for."""
        self._on_reader_gone = action

    @property
    def wants_pixels(self) -> bool:
        """Whether the sink looks at pictures, be it those of some results only."""
        return self.wants_pictures or self._event_pictures

    @property
    def errors(self) -> int:
        """Results and events that were lost, here or (its `lost`) in the sink."""
        return self._lost + self._sink.lost

    @property
    def counts(self) -> dict[str, Any]:
        """What the sink has for the summary."""
        return dict(self._sink.counts)

    def write(self, result: Any) -> None:
        try:
            if not self._sink.wants(result):
                return
        except (Exception, SystemExit, GeneratorExit) as error:
            self._failed(_reason(error))
            return
        if not self.wants_pictures and not (self._event_pictures and result.events) and result.frame.pixels.size:
            result = replace(result, frame=result.frame.without_pixels())
        self._put(result)

    def announce(self, events: Sequence[Any]) -> None:
        # What a sink would not write cannot be lost either.
        if getattr(self._sink.announce, "__func__", None) is not Sink.announce:
            self._put(_Announcement(events))

    def _put(self, item: Any) -> None:
        try:
            if self._lossless and self._failing_since is None:
                self._queue.put(item, timeout=_WAIT_S)
            else:
                self._queue.put_nowait(item)
        except queue.Full:
            if self.wants_pictures and not self._lossless:
                self.skipped += 1
            else:
                self._failed("it is too slow")

    def check(self, labels: Sequence[str]) -> None:
        """Raises UsageError where the sink needs a class that is none of `labels`."""
        self._sink.check(labels)

    def changed(self, facts: Any, labels: Sequence[str]) -> None:
        """Another model has taken over: tell the sink between two results, in its own thread."""

        def begin() -> None:
            try:
                self.begin(facts, labels)
            except EdgeMnv2Error as error:
                # Whoever took the model was told, and wanted it all the same.
                log.warning("%s", error.message)

        # It must arrive, however much waits.
        with self._queue.mutex:
            self._queue.queue.append(_Changed(begin))
            self._queue.not_empty.notify()

    def begin(self, facts: Any, labels: Sequence[str]) -> None:
        """Tell a sink that wants to know what is about to run."""
        try:
            self._sink.begin(facts, labels)
        except (EdgeMnv2Error, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._failed(_reason(error))

    def end(self) -> None:
        """Let the sink write what is queued and close; `close` waits for that."""
        self._ended.set()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(_END)

    def close(self, deadline: Optional[float] = None, *, hurry: bool = False) -> None:
        """`end`, and wait for it until `deadline` (`time.monotonic`), two seconds where none is given; with `hurry` no
        longer for any, and what one has no time for then is `skipped`."""
        if deadline is None:
            self.end()
            deadline = time.monotonic() + DRAIN_S
        patience = self._sink.patience_s
        self._thread.join(max(0.1, deadline + (0.0 if hurry else patience) - time.monotonic()))
        if self._thread.is_alive():
            # With what waits, what it is at: nobody knows whether that comes to an end.
            left = self._queue.qsize() + 1
            if hurry and patience:
                self.skipped += left
            else:
                self._lost += left

    def _work(self) -> None:
        while True:
            try:
                result = self._queue.get(timeout=None if not self._ended.is_set() else 0)
            except queue.Empty:
                break
            if result is _END:
                break
            if isinstance(result, _Changed):
                result.call()
                continue
            if self._failing_since is not None and time.monotonic() - self._failing_since < _RETRY_S:
                self._lost += 1
                continue
            try:
                if isinstance(result, _Announcement):
                    self._sink.announce(result)
                else:
                    self._sink.write(result)
            except BaseException as error:
                # A plug-in may raise anything, and leave by sys.exit too.
                if isinstance(error, BrokenPipeError) and self._on_reader_gone is not None:
                    self._on_reader_gone()
                    break
                self._failed(_reason(error))
            else:
                self._failing_since = None
                self._outage.works(self.errors)
        try:
            self._sink.close()
        except BaseException as error:
            self._failed(_reason(error))

    def _failed(self, reason: str) -> None:
        self._lost += 1
        self._failing_since = time.monotonic()
        self._outage.fails(reason)


class _Outage:
    """Says once that something cannot be written, and once that it can again.

    What comes back only to fail again for the same reason within `STEADY_S` is still the same outage: outputs on a full
    disk may take the last room from each other in turns.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._broken = self._doubted = False
        self._back_at = -math.inf
        self._reason = ""

    def fails(self, reason: str) -> None:
        if self._broken:
            return
        self._broken = True
        self._doubted = reason == self._reason and time.monotonic() - self._back_at < STEADY_S
        self._reason = reason
        if not self._doubted:
            log.warning("%s cannot be written (%s): going on without it", self._name, _one_line(reason))

    def works(self, lost: int) -> None:
        """Something was written; `lost` results were not, so far."""
        now = time.monotonic()
        if self._broken:
            self._broken, self._back_at = False, now
            if self._doubted:
                return
        elif not self._doubted or now - self._back_at < STEADY_S:
            return
        self._doubted = False
        log.warning("%s: writing works again; %d results were lost so far", self._name, lost)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _reason(error: BaseException) -> str:
    """In words; a plug-in may raise anything."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}" if not isinstance(error, EdgeMnv2Error) else str(error)


GROUP = "edge_mnv2.sinks"
"""`--sink NAME=ARGUMENT`: an entry point names a callable that takes one text (what follows `NAME=`, None without) and
returns a `Sink`. An output of another package with options of its own is a row of `table`."""


def open_output(values: OutputValues, _live: Any) -> list[Sink]:
    return [open_sink(text) for text in values["sink"]]


def open_sink(text: str) -> Sink:
    """The sink for `NAME` or `NAME=ARGUMENT`. Raises UsageError where it is not there or cannot be made."""
    name, equals, argument = text.partition("=")
    known = offered(GROUP)
    if name not in known:
        names = ", ".join(sorted(known)) or "none is installed"
        raise UsageError(f"--sink {name}: no package offers it ({names})", hint=f"see the entry point group {GROUP}")
    try:
        sink: Sink = load(known[name])(argument if equals else None)
    except EdgeMnv2Error:
        raise
    except Exception as error:
        raise UsageError(f"--sink {name}: {type(error).__name__}: {error}") from error
    for method in ("write", "close"):
        if not callable(getattr(sink, method, None)):
            raise UsageError(f"--sink {name}: what it makes has no method {method}")
    if not getattr(sink, "name", None):
        sink.name = name
    return sink
