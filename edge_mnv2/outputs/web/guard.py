"""Connections: how many, from how many by one peer, and how long one may take to ask and to read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from edge_mnv2.outputs.web.address import group

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 256
REQUEST_S = 10.0
"""A request has to be complete so many seconds after its connection, or its first byte, came."""
WRITE_S = 10.0
"""What was written has to be taken within so many seconds."""
_SEND_BUFFER = 64 * 1024
"""Bytes the kernel may hold for one viewer: enough for a smooth picture, too little for one that lags by seconds."""
_RESERVED_FILES = 32
"""File descriptors that the rest of the run may still need when the page begins."""


def affordable_connections() -> int:
    """How many connections the limit on open files leaves room for, at most `MOST_CONNECTIONS`."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    free = limit - sum(1 for _ in Path("/proc/self/fd").iterdir()) - _RESERVED_FILES
    most = max(4, min(MOST_CONNECTIONS, free))
    if most < MOST_CONNECTIONS:
        log.warning(
            "web page: %d connections at most, because this process may open only %d files (ulimit -n)", most, limit
        )
    return most


class Connections:
    """The open connections of a server: at most `most`, at most half of them by one peer.

    One more than that, and the idlest goes: strangers before whoever has shown the token. `is_proxy` tells addresses
    that speak for many.
    """

    def __init__(self, most: int, is_proxy: Callable[[str], bool]) -> None:
        self._most = most
        self._is_proxy = is_proxy
        self._open: set[Guard] = set()

    def admit(self, guard: Guard) -> None:
        self._open.add(guard)
        same = [one for one in self._open if one.peer == guard.peer]
        if len(same) > max(4, self._most // 2) and not self._is_proxy(guard.address):
            self._drop_idlest(same, guard)
        elif len(self._open) > self._most:
            self._drop_idlest(list(self._open), guard)

    def leave(self, guard: Guard) -> None:
        self._open.discard(guard)

    def abort_all(self) -> None:
        for guard in list(self._open):
            guard.abort()

    def _drop_idlest(self, guards: list[Guard], newest: Guard) -> None:
        idlest = min((one for one in guards if one is not newest), key=lambda one: (one.trusted, one.active_at))
        self._open.discard(idlest)
        idlest.abort()


class Guard(asyncio.Protocol):
    """Stands before the HTTP protocol of one connection and ends it where its client is too slow to ask or to read.

    `trusted`: it has shown the token. `active_at`: when it last asked for something or took what was written.
    """

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: Optional[asyncio.Transport] = None
        self._asking: Optional[asyncio.TimerHandle] = None
        self._reading: Optional[asyncio.TimerHandle] = None
        self._busy = False
        self._stuck_at: Optional[float] = None
        self._flushed = asyncio.Event()
        self._flushed.set()
        self.address = self.peer = ""
        self.trusted = False
        self.active_at = time.monotonic()

    @property
    def stuck_s(self) -> float:
        """For how long the client has not taken what was written."""
        return 0.0 if self._stuck_at is None else time.monotonic() - self._stuck_at

    def abort(self) -> None:
        """Drop the connection with everything that waits in it, here and in the kernel."""
        if self._transport is not None:
            plain = self._transport.get_extra_info("socket")
            if plain is not None:
                with contextlib.suppress(OSError):
                    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def is_active(self) -> None:
        self.active_at = time.monotonic()

    async def flushed(self) -> None:
        """Wait until the client, or the kernel for it, has taken what was written."""
        await self._flushed.wait()

    async def request_began(self) -> None:
        """A request is whole. It waits for the answer before it to be taken: many in a row must not pile up here."""
        self._busy = True
        self.is_active()
        _cancel(self._asking)
        self._asking = None
        await self.flushed()

    def request_ended(self) -> None:
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Every byte that the kernel does not take counts as not read yet, and none piles up here.
        transport.set_write_buffer_limits(high=0)
        plain = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        self.peer = group(self.address)
        self._inner.connection_made(transport)
        self._asking = self._abort_after(REQUEST_S)
        self._connections.admit(self)

    def data_received(self, data: bytes) -> None:
        if not self._busy and self._asking is None:
            self._asking = self._abort_after(REQUEST_S)
        self._inner.data_received(data)

    def eof_received(self) -> Optional[bool]:
        return self._inner.eof_received()

    def connection_lost(self, error: Optional[Exception]) -> None:
        _cancel(self._asking, self._reading)
        self._connections.leave(self)
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._stuck_at = time.monotonic()
        self._flushed.clear()
        self._reading = self._abort_after(WRITE_S)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._stuck_at = None
        self._flushed.set()
        _cancel(self._reading)
        self.is_active()
        self._inner.resume_writing()

    def _abort_after(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self.abort)


def _cancel(*timers: Optional[asyncio.TimerHandle]) -> None:
    for timer in timers:
        if timer is not None:
            timer.cancel()
