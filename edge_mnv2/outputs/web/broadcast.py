"""The newest picture or state for any number of followers in one event loop, made only while somebody follows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from aiohttp import web

from edge_mnv2.outputs.live import Live
from edge_mnv2.outputs.picture import bgr, jpeg
from edge_mnv2.outputs.sink import give_way
from edge_mnv2.outputs.web.guard import Guard
from edge_mnv2.pipeline.result import Result

log = logging.getLogger(__name__)

MOST_FOLLOWERS = 64
_STUCK_S = 1.0
"""A follower that takes nothing for so long makes room for the next."""


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
        self._guards: set[Guard] = set()
        self._ended = False
        self._alone = asyncio.Event()

    @property
    def followers(self) -> int:
        return len(self._guards)

    def has_room(self) -> bool:
        """Whether one more may follow; where all places are taken, who has been stuck longest loses its own."""
        if len(self._guards) < MOST_FOLLOWERS:
            return True
        stuck = max(self._guards, key=lambda guard: guard.stuck_s)
        if stuck.stuck_s < _STUCK_S:
            return False
        self._guards.discard(stuck)
        stuck.abort()
        return True

    def publish(self, message: bytes) -> None:
        self.newest = message
        fresh, self._fresh = self._fresh, asyncio.Event()
        fresh.set()

    async def send_to(self, response: web.StreamResponse, guard: Guard) -> None:
        """Send the head and then the newest message, again and again, until the connection or the broadcast ends."""
        with self._following(guard):
            await response.write(self._head)
            while True:
                fresh = self._fresh
                if self.newest:
                    await response.write(self.newest)
                    guard.is_active()
                if self._ended:
                    return
                await fresh.wait()

    async def end(self, message: bytes, patience_s: float) -> None:
        """Publish the last message, and wait so long for the followers to take it and be done."""
        self._ended = True
        self.publish(message)
        if self._guards:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._alone.wait(), patience_s)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.cancel()
            self._producer = None

    @contextlib.contextmanager
    def _following(self, guard: Guard) -> Iterator[None]:
        self._guards.add(guard)
        self._alone.clear()
        if self._producer is None:
            self.newest = b""
            self._producer = asyncio.get_running_loop().create_task(self._keep_producing())
        try:
            yield
        finally:
            self._guards.discard(guard)
            if not self._guards:
                self._alone.set()
                self.close()

    async def _keep_producing(self) -> None:
        while True:
            try:
                await self._produce()
            except Exception as error:
                log.debug("web: %s: %s", type(error).__name__, error)
                await asyncio.sleep(1)


BOUNDARY = "edge-mnv2-frame"
SEPARATOR = f"--{BOUNDARY}\r\n".encode()
MOST_FPS = 15.0
MOST_PIXELS = 960
"""Longer side of the live picture."""
_QUALITY = 72
_LEAST_REST = 3.0
"""The encoder rests at least so many times as long as it works: it never takes more than a quarter of a core."""
_REPEAT_S = 5.0


class Video:
    """Encodes the newest result, in a thread that gives way to inference."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="web-jpeg", initializer=give_way)
        self._still, self._still_until = b"", 0.0

    async def produce(self, publish: Callable[[bytes], None]) -> None:
        """Publish each new picture as a part of a multipart body; the newest again every five seconds without news."""
        part, shown, published = b"", None, 0.0
        while True:
            began = time.monotonic()
            result = self._live.latest
            if result is not None and result is not shown:
                shown = result
                data = await self._encode(result, MOST_PIXELS, _QUALITY)
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                # The boundary follows at once: browsers show a picture only when they have seen it.
                part = b"".join((head.encode(), data, b"\r\n", SEPARATOR))
                published = 0.0
            if part and began - published > _REPEAT_S:
                publish(part)
                published = began
            spent = time.monotonic() - began
            await asyncio.sleep(max(1 / MOST_FPS - spent, _LEAST_REST * spent))

    async def still(self) -> Optional[bytes]:
        """The newest frame in full size as JPEG, None before there is one; the last one again while that is fresh."""
        result = self._live.latest
        if result is None:
            return None
        began = time.monotonic()
        if began >= self._still_until:
            # Those who ask meanwhile get the one before.
            self._still_until = began + _REPEAT_S if self._still else began
            self._still = await self._encode(result, 0, 90)
            self._still_until = began + (1 + _LEAST_REST) * (time.monotonic() - began)
        return self._still

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _encode(self, result: Result, most: int, quality: int) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: jpeg(bgr(result.frame, most, result.seen), quality)
        )
