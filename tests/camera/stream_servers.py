"""Cameras on the network, for tests: real servers on loopback, with the faults that real ones have."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Optional

import cv2
import numpy as np


def jpeg(number: int = 0, colour: tuple[int, int, int] = (0, 0, 0), size: tuple[int, int] = (320, 240)) -> bytes:
    """A JPEG that carries `number` as 16 black or white squares, over the RGB `colour`."""
    width, height = size
    picture = np.full((height, width, 3), colour[::-1], np.uint8)
    for bit in range(16):
        left = bit * width // 16
        picture[: height // 4, left : left + width // 16] = 255 if number >> bit & 1 else 0
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def number_in(pixels: np.ndarray) -> int:
    """The number that `jpeg` has painted."""
    height, width = pixels.shape[:2]
    row = pixels[height // 8]
    return sum(1 << bit for bit in range(16) if row[bit * width // 16 + width // 32].mean() > 128)


class Server:
    """Listens on loopback and serves each connection in a thread of its own; `close` ends all."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.closed = threading.Event()
        self.connections = 0
        self.requests: list[str] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._guarded, args=(connection,), daemon=True).start()

    def _guarded(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self.serve(connection)

    def serve(self, connection: socket.socket) -> None:
        """Silence, unless a subclass says something."""
        self.closed.wait()

    def request(self, connection: socket.socket) -> str:
        """The next request's head, empty at the end of the connection."""
        text = b""
        while b"\r\n\r\n" not in text:
            data = connection.recv(4096)
            if not data:
                return ""
            text += data
        self.requests.append(text.decode("latin-1"))
        return self.requests[-1]

    def close(self) -> None:
        self.closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class MjpegServer(Server):
    """An MJPEG camera: `frames` gives the JPEGs of a connection, by its number from 1; then `after` happens.

    `after`: "silence" (the connection stays) or "end". `boundary` is what the header says, `delimiter` what the body
    has; `length`: parts say how long they are. `credentials` "user:password" are demanded as `auth` says.
    """

    def __init__(
        self,
        frames: Optional[Callable[[int], Iterator[bytes]]] = None,
        *,
        fps: float = 60,
        after: str = "silence",
        boundary: str = "frame",
        delimiter: str = "--frame",
        length: bool = True,
        credentials: Optional[str] = None,
        auth: str = "Basic",
        status: str = "200 OK",
        content_type: Optional[str] = None,
        page: Optional[bytes] = None,
    ) -> None:
        self.frames = frames or (lambda connection: (jpeg(number) for number in range(1 << 16)))
        self.fps, self.after, self.delimiter, self.length = fps, after, delimiter, length
        self.credentials, self.auth, self.status = credentials, auth, status
        self.content_type = content_type or f"multipart/x-mixed-replace; boundary={boundary}"
        self.page = page
        self.sent: dict[int, int] = {}
        super().__init__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def serve(self, connection: socket.socket) -> None:
        number = self.connections
        while True:
            head = self.request(connection)
            if not head:
                return
            if self.credentials is None or self._admitted(head):
                break
            challenge = 'Digest realm="cam", nonce="abc", qop="auth"' if self.auth == "Digest" else 'Basic realm="cam"'
            connection.sendall(
                f"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n".encode()
            )
        connection.sendall(f"HTTP/1.0 {self.status}\r\nContent-Type: {self.content_type}\r\n\r\n".encode())
        if self.page is not None:
            connection.sendall(self.page)
            return
        due = time.monotonic()
        for index, picture in enumerate(self.frames(number)):
            length = f"Content-Length: {len(picture)}\r\n" if self.length else ""
            head_of_part = f"{self.delimiter}\r\nContent-Type: image/jpeg\r\n{length}\r\n"
            self.sent[index] = time.monotonic_ns()
            connection.sendall(head_of_part.encode() + picture + b"\r\n")
            due = max(due + 1 / self.fps, time.monotonic() - 1)
            if self.closed.wait(max(0.0, due - time.monotonic())):
                return
        if self.after == "silence":
            self.closed.wait()

    def _admitted(self, head: str) -> bool:
        match = re.search(r"(?im)^authorization: (\w+) (.*?)\r?$", head)
        if not match or match[1] != self.auth:
            return False
        user, _, password = str(self.credentials).partition(":")
        if self.auth == "Basic":
            return base64.b64decode(match[2]).decode() == f"{user}:{password}"
        from hashlib import md5

        field = dict(re.findall(r'(\w+)="?([^",]+)"?', match[2]))
        secret = md5(f"{user}:cam:{password}".encode()).hexdigest()
        action = md5(f"GET:{field['uri']}".encode()).hexdigest()
        wanted = ":".join((secret, field["nonce"], field["nc"], field["cnonce"], field["qop"], action))
        return field["response"] == md5(wanted.encode()).hexdigest()


class RtspServer(Server):
    """An RTSP camera that sends JPEG over RTP (RFC 2435), interleaved in the TCP connection (RFC 2326, 10.12).

    After `frames` pictures of a connection it goes silent. Another transport than TCP is refused (461).
    """

    def __init__(self, frames: int = 1 << 16, *, fps: float = 30, credentials: Optional[str] = None) -> None:
        self.frames, self.fps, self.credentials = frames, fps, credentials
        super().__init__()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def serve(self, connection: socket.socket) -> None:
        while head := self.request(connection):
            method = head.split(" ", 1)[0]
            number = re.search(r"(?im)^cseq: *(\d+)", head)
            extra, body, status = "", "", "200 OK"
            if self.credentials and method != "OPTIONS" and not self._admitted(head):
                status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"\r\n'
            elif method == "OPTIONS":
                extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
                )
                extra = f"Content-Type: application/sdp\r\nContent-Base: {self.url}/\r\n"
            elif method == "SETUP":
                if "RTP/AVP/TCP" in head:
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                else:
                    status = "461 Unsupported Transport"
            else:
                extra = "Session: 1\r\n"
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            answer = f"RTSP/1.0 {status}\r\nCSeq: {number[1] if number else 0}\r\n{extra}{length}\r\n{body}"
            connection.sendall(answer.encode())
            if method == "PLAY" and status == "200 OK":
                self._play(connection)
                return

    def _admitted(self, head: str) -> bool:
        wanted = base64.b64encode(str(self.credentials).encode()).decode()
        return re.search(rf"(?im)^authorization: basic {re.escape(wanted)}\r?$", head) is not None

    def _play(self, connection: socket.socket) -> None:
        sequence = 0
        for index in range(self.frames):
            picture = jpeg(index)
            size, tables, scan = _taken_apart(picture)
            offset = 0
            while offset < len(scan):
                payload = struct.pack(">BBHBBBB", 0, offset >> 16, offset & 0xFFFF, 1, 255, size[0] // 8, size[1] // 8)
                if offset == 0:
                    payload += struct.pack(">BBH", 0, 0, len(tables)) + tables
                chunk = scan[offset : offset + 1200]
                offset += len(chunk)
                marker = 0x80 if offset == len(scan) else 0
                stamp = int(index * 90000 / self.fps) & 0xFFFFFFFF
                packet = struct.pack(">BBHII", 0x80, 26 | marker, sequence & 0xFFFF, stamp, 7) + payload + chunk
                sequence += 1
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            if self.closed.wait(1 / self.fps):
                return
        self.closed.wait()


def _taken_apart(picture: bytes) -> tuple[tuple[int, int], bytes, bytes]:
    """((width, height), quantization tables, scan) of a baseline 4:2:0 JPEG with the standard Huffman tables."""
    tables, size, offset = b"", (0, 0), 2
    while True:
        marker, length = picture[offset + 1], int.from_bytes(picture[offset + 2 : offset + 4], "big")
        body = picture[offset + 4 : offset + 2 + length]
        offset += 2 + length
        if marker == 0xDB:
            for start in range(0, len(body), 65):
                tables += body[start + 1 : start + 65]
        elif marker == 0xC0:
            size = (int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big"))
        elif marker == 0xDA:
            return size, tables, picture[offset:-2]
