"""A real HTTP server on this machine that can be made to go wrong in every way that servers and networks do."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, Optional

LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Hotel WLAN &ndash; Sign in</title></head><body>Room?</body></html>"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3610798\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with `server.answer(self)`, which a test sets; `whole` is the well-behaved one."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers)))
            turn = len(self.server.requests)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.server.answer(self, turn)

    def log_message(self, *_: object) -> None:
        pass

    @property
    def offset(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match.group(1)) if match else 0

    def begin(self, status: int, length: Optional[int], **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.begin(status, len(body), **headers)
        self.wfile.write(body)

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class FaultyServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict]] = []
        self.answer: Callable[[Handler, int], None] = lambda handler, turn: handler.reply(b"", 404)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(tls: Optional[ssl.SSLContext] = None) -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def whole(body: bytes) -> Callable[[Handler, int], None]:
    """A good server: ranges, strong ETags, If-Range."""

    def answer(handler: Handler, turn: int) -> None:
        start = handler.offset
        same = handler.headers.get("If-Range", etag(body)) == etag(body)
        if start >= len(body):
            handler.reply(b"", 416, Content_Range=f"bytes */{len(body)}")
        elif start and same:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.reply(body[start:], 206, Content_Range=span, ETag=etag(body))
        else:
            handler.reply(body, ETag=etag(body))

    return answer


def slow(body: bytes, seconds: float, pieces: int = 20) -> Callable[[Handler, int], None]:
    """A good server that takes its time."""

    def answer(handler: Handler, turn: int) -> None:
        start = handler.offset
        rest = body[start:]
        if start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.begin(206, len(rest), Content_Range=span, ETag=etag(body))
        else:
            handler.begin(200, len(rest), ETag=etag(body))
        step = max(1, -(-len(rest) // pieces))
        for at in range(0, len(rest), step):
            handler.wfile.write(rest[at : at + step])
            handler.wfile.flush()
            time.sleep(seconds / pieces)

    return answer


def breaking(body: bytes, after: int, then: Callable[[Handler, int], None]) -> Callable[[Handler, int], None]:
    """Hangs up after `after` bytes of the first answer; later ones are `then`'s."""

    def answer(handler: Handler, turn: int) -> None:
        if turn > 1:
            return then(handler, turn)
        handler.begin(200, len(body), ETag=etag(body))
        handler.wfile.write(body[:after])
        handler.hang_up()
        return None

    return answer


def in_turn(*answers: Callable[[Handler, int], None]) -> Callable[[Handler, int], None]:
    """The first answer to the first request, and so on; the last one serves for all that follow."""
    return lambda handler, turn: answers[min(turn, len(answers)) - 1](handler, turn)


def dripping(body: bytes, seconds: float) -> Callable[[Handler, int], None]:
    """One byte every `seconds` seconds."""

    def answer(handler: Handler, turn: int) -> None:
        handler.begin(200, len(body))
        for byte in body:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(seconds)

    return answer


def team_registry(folder: Path, body: bytes, url: str, name: str = "parts", **more: str) -> Path:
    """A team's registry in `folder` with one model of `body` at `url`."""
    lines = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": str(len(body)), "labels": "[bolt, nut]", **more}
    text = "".join(f"    {key}: {value}\n" for key, value in lines.items())
    path = folder / "registry.yaml"
    path.write_text(f"models:\n  {name}:\n{text}    sources:\n      - https: {url}\n", encoding="utf-8")
    return path
