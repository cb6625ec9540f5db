"""The live picture: encoded once for all viewers, and only while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

from edge_mnv2.outputs.live import Live
from edge_mnv2.outputs.picture import bgr, jpeg
from edge_mnv2.pipeline.result import Result

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
