"""The newest picture or state for any number of followers in one event loop, made only while somebody follows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from aiohttp import web

from edge_mnv2.outputs.live import Live
from edge_mnv2.outputs.picture import bgr, jpeg
from edge_mnv2.outputs.web.guard import Guard
from edge_mnv2.pipeline.result import Result

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


BOUNDARY = "edge-mnv2-frame"
SEPARATOR = f"--{BOUNDARY}\r\n".encode()
MOST_FPS = 15.0
MOST_PIXELS = 960
"""Longer side of the live picture."""
_QUALITY = 72
_LEAST_REST = 3.0
"""The encoder rests at least so many times as long as it works: it never takes more than a quarter of a core."""
_REPEAT_S = 5.0
_NICE = 10


class Video:
    """Encodes the newest result, in a thread that gives way to inference."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="web-jpeg", initializer=_give_way)
        self.encoded = 0

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
        """The newest frame in full size as JPEG, None before there is one."""
        result = self._live.latest
        return None if result is None else await self._encode(result, 0, 90)

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _encode(self, result: Result, most: int, quality: int) -> bytes:
        self.encoded += 1
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: jpeg(bgr(result.frame, most), quality)
        )


def _give_way() -> None:
    """Let inference go before encoding where they want the same core."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
