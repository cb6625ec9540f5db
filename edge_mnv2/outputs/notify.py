"""What a service manager is told (the protocol of sd_notify): ready, alive, how it goes, stopping.

Protocol: sd_notify(3) and sd_watchdog_enabled(3) of systemd. Every message is one datagram of lines `NAME=VALUE`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Optional

from edge_mnv2.outputs.status import Describe
from edge_mnv2.pipeline.result import Result

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
