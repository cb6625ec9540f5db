"""A camera behind an HTTP address: a stream of JPEGs, a single picture that is asked for again and again, or a video.

What comes decides, not what is announced. Of a stream only the newest picture is decoded, so that a slow board never
falls behind a fast camera; it is known when a picture's last byte came; closing breaks a blocked read at once.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Optional

import numpy as np

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera import content
from edge_mnv2.camera.frame import Granted
from edge_mnv2.camera.http_client import Answer, HttpClient
from edge_mnv2.camera.jpeg import JpegDecoder, JpegFinder
from edge_mnv2.camera.live import Captured, Reader, ThreadedSource
from edge_mnv2.camera.settings import CameraSettings, Spec
from edge_mnv2.camera.stream import BACKOFF, FIRST_S, OPEN_S, STALL_S, open_capture
from edge_mnv2.errors import SourceError, SourceLost

log = logging.getLogger(__name__)

POLL_FPS = 1.0
_MAX_DAMAGED = 100
_MAX_REFUSED = 3
_MAX_PICTURE = 64 << 20
_HEAD = 64 << 10
_ANOTHER_S = 1.0
"""How long a second picture is waited for where an answer does not say how long it is."""
_FRESH_SCALE = 12.0


class HttpCamera(ThreadedSource):
    """Pictures from `url`. A single picture is polled at `settings.fps`, once a second where that is not set."""

    backoff = BACKOFF

    def __init__(self, url: StreamUrl, settings: CameraSettings) -> None:
        super().__init__(url.shown, settings.geometry(), settings.stall_s or STALL_S, learns=settings.stall_s is None)
        self._url = url
        self._settings = settings

    def open(self) -> None:
        self.close()
        self._decode = JpegDecoder(self._settings.least_side)
        self.granted = Granted(format="MJPG", backend="mjpeg")
        self._start(self.description, self._connect, 2 * OPEN_S, FIRST_S)

    def decoded(self, picture: bytes) -> Optional[np.ndarray]:
        """BGR pixels of a picture's file, None (and counted) where it is damaged."""
        pixels = self._decode(picture)
        if pixels is None:
            self.count_damage()
        elif (
            self._decode.full_size is not None
            and self.granted is not None
            and ((self.granted.width, self.granted.height) != self._decode.full_size)
        ):
            self.granted = Granted(*self._decode.full_size, self.granted.fps, "MJPG", self.granted.backend)
        return pixels

    def count_damage(self) -> None:
        self._count_damage()

    def skip(self, count: int) -> None:
        """So many whole pictures came before the one that is decoded."""
        if self._thread is not None:
            self._thread.skip(count)

    def _connect(self) -> Reader[Captured]:
        client = HttpClient(self._url, self.description, self._settings.ca)
        answer = client.get(OPEN_S, max(OPEN_S, self.stall_s))
        try:
            return self._reader(client, answer)
        except BaseException as error:
            answer.close()
            client.close()
            if isinstance(error, (OSError, ValueError)) and not isinstance(error, SourceError):
                raise SourceError(f"{self.description} broke off: {redact(str(error))}") from None
            raise

    def _reader(self, client: HttpClient, answer: Answer) -> Reader[Captured]:
        name = self.description
        if answer.type.startswith("multipart/"):
            return _Stream(self, client, answer)
        polled = answer.type.startswith("image/")
        if polled and answer.length is not None:
            return self._polled(client, answer.whole(_MAX_PICTURE))
        head = answer.read(_HEAD)
        what = content.kind(head[: content.HEAD_BYTES])
        if b"\xff\xd8\xff" in head[:4096] or polled or what == "picture":
            if answer.length is not None and answer.length <= _MAX_PICTURE:
                return self._polled(client, head + answer.whole(_MAX_PICTURE, len(head)))
            return self._stream_or_picture(client, answer, head)
        if what == "html" or (answer.type == "text/html" and what == "text" and not head.startswith(b"#EXTM3U")):
            raise SourceError(f"{name} answers with a web page", hint="look for the stream's own address")
        if head.startswith(b"--"):
            return _Stream(self, client, answer, head)
        answer.close()
        client.close()
        log.info("%s answers with %s: trying opencv instead of mjpeg", name, answer.type or "no content type")
        self.granted = Granted(backend="ffmpeg")
        reader, self.granted = open_capture(self._url, name, self._settings, self.stall_s, self._count_damage)
        return reader

    def _stream_or_picture(self, client: HttpClient, answer: Answer, head: bytes) -> Reader[Captured]:
        """A stream where a second picture follows the first, else a picture to be polled."""
        finder, received = JpegFinder(), head
        count = len(finder.feed(head))
        while count < 2 and len(received) < _MAX_PICTURE:
            if count and not answer.more_within(_ANOTHER_S):
                if not answer.type.startswith("image/"):
                    break
                answer.close()
                return self._polled(client, received)
            data = answer.read()
            if not data:
                return self._polled(client, received)
            received += data
            count += len(finder.feed(data))
        return _Stream(self, client, answer, received)

    def _polled(self, client: HttpClient, picture: bytes) -> Reader[Captured]:
        fps = self._settings.fps or POLL_FPS
        # A camera may give the same picture for a while, and take its time for each.
        self.frozen_scale = _FRESH_SCALE
        self.stall_s = max(self.stall_s, 3 / fps)
        self.granted = Granted(fps=fps, format="MJPG", backend="snapshot")
        log.info("%s answers with a single picture: asking %g times a second (--fps)", self.description, fps)
        return _Snapshots(self, client, picture, 1 / fps)


def make(spec: Spec, settings: CameraSettings) -> HttpCamera:
    """The camera of the table's rows."""
    assert spec.url is not None
    return HttpCamera(spec.url, settings)


class _Stream:
    """Reads pictures that come by themselves. `received`: what was read of the answer already."""

    def __init__(self, camera: HttpCamera, client: HttpClient, answer: Answer, received: bytes = b"") -> None:
        self._camera = camera
        self._client = client
        self._answer = answer
        self._received = received
        self._finder = JpegFinder()
        self._in_a_row = 0

    def read(self) -> Optional[Captured]:
        name = self._camera.description
        try:
            data, self._received = self._received or self._answer.read(), b""
            now = time.monotonic_ns()
            pictures = self._finder.feed(data) if data else self._finder.finish()
            if not data and not pictures:
                raise SourceLost(f"{name} has ended the stream")
        except TimeoutError:
            raise SourceLost(f"{name} has gone silent") from None
        except (OSError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceLost(f"{name} broke off: {redact(str(error))}") from error
        for _ in range(self._finder.damaged):
            self._camera.count_damage()
        self._in_a_row = 0 if pictures else self._in_a_row + self._finder.damaged
        self._finder.damaged = 0
        if self._in_a_row > _MAX_DAMAGED:
            raise SourceLost(f"{name} gives only damaged pictures")
        if not pictures:
            return None
        self._camera.skip(len(pictures) - 1)
        pixels = self._camera.decoded(pictures[-1])
        return None if pixels is None else (pixels, now)

    def release(self) -> None:
        self._answer.close()
        self._client.close()

    def interrupt(self) -> None:
        self._answer.interrupt()


class _Snapshots:
    """Asks for a picture every `interval_s` seconds; `picture` is the first."""

    def __init__(self, camera: HttpCamera, client: HttpClient, picture: bytes, interval_s: float) -> None:
        self._camera = camera
        self._client = client
        self._picture = picture
        self._interval_s = interval_s
        self._due = time.monotonic()
        self._failures = 0
        self._stop = threading.Event()
        self._answer: Optional[Answer] = None

    def read(self) -> Optional[Captured]:
        now = time.monotonic_ns()
        picture, self._picture = self._picture, b""
        if not picture:
            if self._stop.wait(max(0.0, self._due - time.monotonic())):
                return None
            try:
                self._answer = self._client.get(OPEN_S, max(OPEN_S, self._interval_s))
                picture = self._answer.whole(_MAX_PICTURE)
            except (OSError, ValueError) as error:
                # Small cameras are busy now and then.
                self._failures += 1
                self._due = time.monotonic() + self._interval_s
                if self._failures >= _MAX_REFUSED:
                    lost = error.message if isinstance(error, SourceError) else f"{self._camera.description}: {error}"
                    raise SourceLost(redact(lost)) from None
                return None
            now = time.monotonic_ns()
        self._failures = 0
        self._due = max(self._due + self._interval_s, time.monotonic())
        if picture.startswith(b"\xff\xd8") and not JpegFinder().feed(picture):
            self._camera.count_damage()
            return None
        pixels = self._camera.decoded(picture)
        return None if pixels is None else (pixels, now)

    def release(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._client.close()

    def interrupt(self) -> None:
        self._stop.set()
        if self._answer is not None:
            self._answer.interrupt()
