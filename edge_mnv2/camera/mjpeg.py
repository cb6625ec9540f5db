"""A camera's MJPEG stream over HTTP, read without FFmpeg.

A client of our own throws stale pictures away before they are decoded, so that a slow board never falls behind a fast
camera; it knows when a picture's last byte came; and closing it breaks a blocked read at once. Cameras are reached
directly, never through a proxy.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Optional

import numpy as np

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera.frame import Granted
from edge_mnv2.camera.jpeg import JpegDecoder
from edge_mnv2.camera.live import Captured, ThreadedSource
from edge_mnv2.camera.multipart import Multipart
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.camera.spec import Spec
from edge_mnv2.camera.stream import FIRST_S, OPEN_S, STALL_S
from edge_mnv2.errors import SourceError, SourceLost

_CHUNK = 1 << 18
_MAX_DAMAGED = 100


class NotMjpeg(SourceError):
    """The address answers with something else that FFmpeg may be able to read."""


class MjpegStream(ThreadedSource):
    """`multipart/x-mixed-replace` of JPEG pictures from `url`."""

    backoff = (0.5, 15.0)

    def __init__(self, url: StreamUrl, settings: CameraSettings) -> None:
        super().__init__(url.shown, settings.geometry(), settings.stall_s or STALL_S)
        self._url = url
        self._least_side = settings.least_side

    def open(self) -> None:
        self.close()
        self._decode = JpegDecoder(self._least_side)
        self.granted = Granted(format="MJPG", backend="mjpeg")
        self._start(self.description, self._connect, OPEN_S + 1, FIRST_S)

    def _decoded(self, jpeg: bytes) -> Optional[np.ndarray]:
        pixels = self._decode(jpeg)
        if self._decode.full_size is not None and self.granted is not None and self.granted.width is None:
            self.granted = Granted(*self._decode.full_size, None, "MJPG", "mjpeg")
        return pixels

    def _connect(self) -> _Reader:
        answer = _request(self._url, self.stall_s, self.description)
        kind = answer.headers.get("Content-Type", "")
        name = kind.split(";")[0].strip().lower()
        if name.startswith("multipart/"):
            return _Reader(answer, kind, self.description, self._decoded, self._count_damage)
        with contextlib.suppress(OSError):
            answer.close()
        if name.startswith("text/html"):
            raise SourceError(f"{self.description} answers with a web page", hint="look for the stream's own address")
        if name.startswith("image/"):
            raise SourceError(
                f"{self.description} answers with a single picture ({name})", hint="look for the stream's own address"
            )
        raise NotMjpeg(f"{self.description} answers with {name or 'no content type'}, not MJPEG")


def make(spec: Spec, settings: CameraSettings) -> MjpegStream:
    """The stream of the table's rows."""
    assert spec.url is not None
    return MjpegStream(spec.url, settings)


class _Reader:
    def __init__(
        self,
        answer: Any,
        content_type: str,
        name: str,
        decode: Callable[[bytes], Optional[np.ndarray]],
        damaged: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._decode = decode
        self._damaged = damaged
        self._in_a_row = 0
        self._name = name
        self._parts = Multipart(content_type)
        # A second descriptor of the same connection: shutting it down ends a read in another thread.
        self._socket = socket.socket(fileno=os.dup(answer.fileno()))

    def read(self) -> Optional[Captured]:
        try:
            data = self._answer.read1(_CHUNK)
            now = time.monotonic_ns()
            if not data:
                raise SourceLost(f"{self._name} has ended the stream")
            parts = self._parts.feed(data)
        except socket.timeout:
            raise SourceLost(f"{self._name} has gone silent") from None
        except (OSError, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceLost(f"{self._name} broke off: {redact(str(error))}") from error
        newest = None
        for part in parts:
            if _is_whole(part):
                newest, self._in_a_row = part, 0
                continue
            self._damaged()
            self._in_a_row += 1
            if self._in_a_row > _MAX_DAMAGED:
                raise SourceLost(f"{self._name} gives only damaged pictures")
        pixels = None if newest is None else self._decode(newest)
        if newest is not None and pixels is None:
            self._damaged()
        return None if pixels is None else (pixels, now)

    def release(self) -> None:
        self._answer.close()
        self._socket.close()

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _is_whole(jpeg: bytes) -> bool:
    """Whether `jpeg` has both ends: OpenCV decodes one that was cut short as well, and fills the rest with grey."""
    return jpeg.startswith(b"\xff\xd8") and jpeg.rfind(b"\xff\xd9", -1024) >= 0


def _request(url: StreamUrl, timeout_s: float, name: str) -> Any:
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if url.user is not None:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, url.bare, url.user, url.password or "")
        handlers += [
            urllib.request.HTTPDigestAuthHandler(passwords),
            urllib.request.HTTPBasicAuthHandler(passwords),
        ]
    request = urllib.request.Request(url.bare, headers={"User-Agent": "edge-mnv2", "Accept": "*/*"})
    try:
        return urllib.request.build_opener(*handlers).open(request, timeout=max(OPEN_S, timeout_s))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            hint = "put them into the address: http://USER:PASSWORD@HOST/..." if url.user is None else None
            raise SourceError(f"{name} refuses the user name or password ({error.code})", hint=hint) from None
        raise SourceError(f"{name} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        text = "no answer in time" if isinstance(reason, socket.timeout) else redact(str(reason))
        raise SourceError(
            f"{name} cannot be reached: {text}", hint="check the address and that the camera is on"
        ) from None
    except Exception as error:  # http.client raises its own kind for answers that are no HTTP
        raise SourceError(f"{name} does not speak HTTP: {redact(str(error))}") from None
