"""An attack on a page: many connections that are silent, slow, greedy or deaf, opened again whenever they are dropped.

`python -m tests.outputs.web.attack PORT --addresses 300 --connections 300 --seconds 60`
"""

from __future__ import annotations

import argparse
import contextlib
import selectors
import socket
import time

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
BEGINNINGS = (
    b"",  # says nothing
    b"GET /" + HEAD + b"X-Slow: ",  # never ends its request
    b"GET /stream.mjpg" + HEAD + b"\r\n",  # never reads the picture
    b"GET /api/stream" + HEAD + b"\r\n",  # never reads the state
    (b"GET /snapshot.jpg" + HEAD + b"\r\n") * 20,  # asks for much and reads nothing
    (b"GET /" + HEAD + b"\r\n") * 20,
    b"POST /login"
    + HEAD
    + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 12\r\n\r\ntoken=wrong+1",
    b"\x16\x03\x01\x00\xff" + b"\x00" * 200,  # TLS
)
AGAIN = (b"", b"a", b"", b"", b"GET /snapshot.jpg" + HEAD + b"\r\n", b"GET /" + HEAD + b"\r\n", b"", b"")


class Hostile:
    """One connection that comes back when it is dropped."""

    def __init__(self, number: int, addresses: int, port: int) -> None:
        self.kind = number % len(BEGINNINGS)
        place = number % addresses
        self._from = f"127.{1 + place // 250}.{1 + place % 250}.1" if addresses > 1 else "127.0.0.1"
        self._port = port
        self.dropped = 0
        self.connection = self._connect()

    def _connect(self) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.bind((self._from, 0))
        connection.settimeout(2)
        with contextlib.suppress(OSError):
            connection.connect(("127.0.0.1", self._port))
            connection.sendall(BEGINNINGS[self.kind])
        connection.setblocking(False)
        return connection

    def go_on(self) -> None:
        """Drip, ask again; come back where the server has had enough."""
        gone = False
        try:
            if AGAIN[self.kind]:
                self.connection.send(AGAIN[self.kind])
            # Looking at what came does not take it.
            gone = self.connection.recv(1, socket.MSG_PEEK) == b"" if self.kind in (0, 1, 6, 7) else False
        except BlockingIOError:
            pass
        except OSError:
            gone = True
        if not gone:
            with selectors.DefaultSelector() as selector:
                selector.register(self.connection, selectors.EVENT_WRITE)
                gone = not selector.select(0) and self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        if gone:
            self.dropped += 1
            self.connection.close()
            self.connection = self._connect()


def attack(port: int, connections: int, addresses: int, seconds: float) -> int:
    """How often connections were dropped and came back."""
    hostile = [Hostile(number, addresses, port) for number in range(connections)]
    print(f"{len(hostile)} connections", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        for one in hostile:
            one.go_on()
        time.sleep(max(0.0, 0.5 - (time.monotonic() - began)))
    return sum(one.dropped for one in hostile)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--addresses", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    print(attack(options.port, options.connections, options.addresses, options.seconds))
