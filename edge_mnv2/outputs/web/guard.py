"""Connections: how many, and how long one may take to say what it wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Optional

MOST_CONNECTIONS = 256
REQUEST_S = 10.0
"""A request has to be complete so many seconds after its connection, or its first byte, came."""
_SEND_BUFFER = 64 * 1024
"""Bytes the kernel may hold for one viewer: enough for a smooth picture, too little for one that lags by seconds."""


class Guard(asyncio.Protocol):
    """Stands before the HTTP protocol of one connection and ends it where its client is too slow with a request."""

    def __init__(self, inner: asyncio.Protocol, everyone: set[Guard]) -> None:
        self._inner = inner
        self._everyone = everyone
        self._transport: Optional[asyncio.Transport] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self._busy = False

    @staticmethod
    def factory(server: Callable[[], asyncio.Protocol], everyone: set[Guard]) -> Callable[[], Guard]:
        return lambda: Guard(server(), everyone)

    def abort(self) -> None:
        """Drop the connection with everything that waits in it."""
        if self._transport is not None:
            self._transport.abort()

    def request_began(self) -> None:
        self._busy = True
        self._disarm()

    def request_ended(self) -> None:
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        plain = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._everyone.add(self)
        self._inner.connection_made(transport)
        if len(self._everyone) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._arm()

    def data_received(self, data: bytes) -> None:
        if not self._busy and self._timer is None:
            self._arm()
        self._inner.data_received(data)

    def eof_received(self) -> Optional[bool]:
        return self._inner.eof_received()

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._disarm()
        self._everyone.discard(self)
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(REQUEST_S, self.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
