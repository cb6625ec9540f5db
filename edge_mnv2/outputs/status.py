"""The status on stderr, from its own thread: one line a second, or a few lines that stay in place on a terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Optional, Protocol, TextIO

from edge_mnv2.messages import in_place, unfiltered, visible
from edge_mnv2.outputs.records import UNRECOGNIZED
from edge_mnv2.pipeline.result import Result
from edge_mnv2.pipeline.statistics import Statistics

if TYPE_CHECKING:
    from rich.table import Table


def status_text(
    statistics: Statistics,
    latest: Optional[Result],
    *,
    dropped: int,
    state: Optional[str] = None,
    note: str = "",
    classes: bool = True,
) -> str:
    """One line: FPS, inference milliseconds (median, 95th percentile), drops, heat where known, the top label.

    Without `classes`, nothing about what was recognized.
    """
    if state and state != "ok":
        return f"source {state}: no results"
    if latest is None:
        return "waiting for the first frame"
    median, p95 = statistics.recent_inference_ms()
    parts = [f"{statistics.recent_fps():5.1f} FPS"]
    if median is not None and p95 is not None:
        parts.append(f"inference {median:.1f} ms (p95 {p95:.1f})")
    parts.append(f"dropped {dropped}")
    if gated := statistics.recently_gated():
        parts.append(f"gated {gated:.0%}")
    if latest.temp_c is not None:
        parts.append(f"{latest.temp_c:.0f} °C")
    if latest.throttled:
        parts.append("throttled: " + ", ".join(latest.throttled))
    if latest.engine != "cpu":
        parts.append(latest.engine)
    if note:
        parts.append(note)
    if not classes:
        return " | ".join(parts)
    if latest.unsure:
        parts.append(UNRECOGNIZED)
    else:
        best = latest.shown[0]
        parts.append(f"{best.figure:>4} {best.label}")
    if latest.present:
        parts.append("present: " + ", ".join(label.split(",")[0] for label in latest.present))
    return " | ".join(parts)


class Describe(Protocol):
    """What the status says now; without `classes`, nothing about what was recognized."""

    def __call__(self, latest: Optional[Result], classes: bool = True) -> str: ...


class NewestShown:
    """A sink that remembers only the newest result: `_work` shows it on `stream`, in a thread of its own."""

    name = "status"
    wants_pixels = False

    def __init__(self, describe: Describe, stream: TextIO) -> None:
        self._describe = describe
        self._stream = stream
        self._latest: Optional[Result] = None
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._work, name="status", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        self._latest = result

    def close(self) -> None:
        self._halt.set()
        self._thread.join(0.5)

    def _work(self) -> None:
        raise NotImplementedError


class StatusLine(NewestShown):
    """Writes `describe(latest)` to `stream` every `interval_s`."""

    name = "status line"

    def __init__(self, describe: Describe, stream: Optional[TextIO] = None, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        super().__init__(describe, stream or sys.stderr)

    def _work(self) -> None:
        while not self._halt.wait(self._interval_s):
            try:
                self._stream.write(self._describe(self._latest) + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return


_PER_S = 4
_BAR, _FIGURE = 24, 4
_CLASSES = 5


def status_for(describe: Describe, stream: Optional[TextIO] = None) -> NewestShown:
    """What fits `stream` (stderr): the live status on a terminal that can move its cursor, else one line a second."""
    stream = stream or sys.stderr
    if stream.isatty():
        from rich.console import Console

        if not Console(file=unfiltered(stream)).is_dumb_terminal:
            return LiveStatus(describe, stream)
    return StatusLine(describe, stream)


class LiveStatus(NewestShown):
    """Redraws `describe` and the best classes four times a second; `close` leaves nothing behind on the screen."""

    name = "live status"

    def _work(self) -> None:
        from rich.console import Console
        from rich.live import Live

        try:
            console = Console(file=unfiltered(self._stream), highlight=False)
            live = Live(self._picture(), console=console, auto_refresh=False, transient=True, redirect_stdout=False)
            with in_place(live):
                while not self._halt.wait(1 / _PER_S):
                    live.update(self._picture(), refresh=True)
        except (OSError, ValueError):
            return

    def _picture(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        latest = self._latest
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(Text(visible(self._describe(latest, classes=False)), style="bold"))
        classes = Table.grid(padding=(0, 1))
        classes.add_column(width=_BAR, no_wrap=True)
        classes.add_column(min_width=_FIGURE, no_wrap=True)
        # The one that gives way: rich shrinks what may wrap first.
        classes.add_column()
        for one in latest.shown[:_CLASSES] if latest is not None else ():
            present = latest is not None and one.label in latest.present
            bar = ProgressBar(total=1.0, completed=max(0.0, min(1.0, one.score)), width=_BAR, complete_style="cyan")
            style = "bold green" if present else ""
            name = Text(visible(one.label), style=style, no_wrap=True, overflow="ellipsis")
            classes.add_row(bar, Text(f"{one.figure:>{_FIGURE}}"), name)
        if latest is not None and latest.unsure:
            classes.add_row("", "", Text(UNRECOGNIZED, style="dim"))
        grid.add_row(classes)
        return grid


log = logging.getLogger(__name__)

_STATUS_S = 5.0
_BEATS = 4
"""How often the watchdog is fed in the time that it waits: one that is late must not end a good run."""


class ServiceNotice:
    """A sink: the first result is READY=1, every inference feeds the watchdog. Nothing else does, except that a
    visitor who has paused the run (`paused`) does not have it ended. STATUS= follows every five seconds.

    `watchdog_s` is the time after which the manager gives up on us, None where it does not watch.
    """

    name = "service manager"
    wants_pixels = False

    def __init__(self, address: str, watchdog_s: Optional[float] = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # The manager's queue may be full while it is busy: a beat is then left out, and the loop does not wait.
        self._socket.setblocking(False)
        self.watchdog_s = watchdog_s
        self._beat_s = watchdog_s / _BEATS if watchdog_s else None
        self._beat_due = 0.0
        self._ready = False
        self._latest: Optional[Result] = None
        self._describe: Optional[Describe] = None
        self._paused: Callable[[], bool] = lambda: False
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._work, name="notify", daemon=True)

    @classmethod
    def from_environment(cls, environment: Optional[MutableMapping[str, str]] = None) -> Optional[ServiceNotice]:
        """One for the manager that started this process, None without one; children do not inherit it."""
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", "")
        usec, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return None
        watched = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1e6 if watched else None)

    def begin(self, describe: Describe, paused: Callable[[], bool]) -> None:
        """From now on say `describe(latest)`, and stay alive while `paused()`."""
        self._describe, self._paused = describe, paused
        self._thread.start()

    def write(self, result: Result) -> None:
        self._latest = result
        if not self._ready:
            self._ready = True
            self._tell("READY=1", f"STATUS={self._status()}")
        if not result.gated:
            self._beat()

    def close(self) -> None:
        if self._halt.is_set():
            return
        self._halt.set()
        self._tell("STOPPING=1", "STATUS=stopping")
        if self._thread.is_alive():
            self._thread.join(0.5)
        self._socket.close()

    def _beat(self) -> None:
        if self._beat_s is not None and time.monotonic() >= self._beat_due:
            self._beat_due = time.monotonic() + self._beat_s
            self._tell("WATCHDOG=1")

    def _work(self) -> None:
        interval = min(_STATUS_S, self._beat_s or _STATUS_S)
        said = time.monotonic()
        while not self._halt.wait(interval):
            if self._ready and self._paused():
                self._beat()
            if time.monotonic() - said >= _STATUS_S:
                said = time.monotonic()
                self._tell(f"STATUS={self._status()}")

    def _status(self) -> str:
        if self._describe is None:
            return ""
        paused = "paused | " if self._paused() else ""
        return paused + " ".join(self._describe(self._latest).split())

    def _tell(self, *lines: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), self._address)
