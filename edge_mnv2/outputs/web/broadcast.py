"""The newest of something for any number of followers in one event loop, made only while somebody follows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Optional

from aiohttp import web

from edge_mnv2.outputs.web.guard import Guard

log = logging.getLogger(__name__)

STUCK_S = 15.0
"""A follower that takes nothing for so long is dropped."""


class Broadcast:
    """Runs `produce` while it has followers; `produce` calls `publish`.

    A follower that is slow to take one message gets the newest next, not those between.
    """

    def __init__(self, produce: Callable[[], Awaitable[None]], head: bytes = b"") -> None:
        self._produce = produce
        self._head = head
        self._producer: Optional[asyncio.Task[None]] = None
        self._fresh = asyncio.Event()
        self.newest = b""
        self._sending: dict[Guard, float] = {}
        self._ended = False
        self._alone = asyncio.Event()
        self.followers = 0

    def publish(self, message: bytes) -> None:
        self.newest = message
        fresh, self._fresh = self._fresh, asyncio.Event()
        fresh.set()

    async def send_to(self, response: web.StreamResponse, guard: Guard) -> None:
        """Send the head and then the newest message, again and again, until the connection or the broadcast ends."""
        with self._following():
            await response.write(self._head)
            while True:
                fresh = self._fresh
                if self.newest:
                    self._sending[guard] = time.monotonic()
                    try:
                        await response.write(self.newest)
                    finally:
                        del self._sending[guard]
                if self._ended:
                    return
                await fresh.wait()

    async def end(self, message: bytes, patience_s: float) -> None:
        """Publish the last message, and wait so long for the followers to take it and be done."""
        self._ended = True
        self.publish(message)
        if self.followers:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._alone.wait(), patience_s)

    def drop_stuck(self) -> None:
        """End followers that have not taken their message for `STUCK_S`."""
        now = time.monotonic()
        for guard, since in list(self._sending.items()):
            if now - since > STUCK_S:
                guard.abort()

    def close(self) -> None:
        if self._producer is not None:
            self._producer.cancel()

    @contextlib.contextmanager
    def _following(self) -> Iterator[None]:
        self.followers += 1
        self._alone.clear()
        if self._producer is None:
            self.newest = b""
            self._producer = asyncio.get_running_loop().create_task(self._keep_producing())
        try:
            yield
        finally:
            self.followers -= 1
            if not self.followers:
                self._alone.set()
            if not self.followers and self._producer is not None:
                self._producer.cancel()
                self._producer = None

    async def _keep_producing(self) -> None:
        while True:
            try:
                await self._produce()
            except Exception as error:
                log.debug("web: %s: %s", type(error).__name__, error)
                await asyncio.sleep(1)
