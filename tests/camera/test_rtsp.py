"""RTSP: GStreamer's own server with passwords and transports, and a small one for what goes wrong."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.errors import SourceError, UsageError
from tests.camera.stream_servers import RtspServer, Server
from tests.stubs import free_port

PYTHON = "/usr/bin/python3"
USER, PASSWORD = "admin", "s3cret%20word"


@contextmanager
def gstreamer_server(*arguments: str) -> Iterator[str]:
    """host:port of a running server; skips where GStreamer's is not installed."""
    script = Path(__file__).with_name("gst_rtsp_server.py")
    try:
        with subprocess.Popen(
            [PYTHON, str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as server:
            assert server.stdout is not None and server.stdin is not None
            line = server.stdout.readline().decode().strip()
            if not line.isdecimal():
                pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0)")
            try:
                yield f"127.0.0.1:{line}"
            finally:
                server.stdin.close()
                server.kill()
    except FileNotFoundError:
        pytest.skip(f"no {PYTHON}")


@pytest.mark.slow
def test_a_real_server() -> None:
    with gstreamer_server() as place, open_source(f"rtsp://{place}/stream") as source:
        frames = [source.read() for _ in range(10)]
        assert all(frames) and frames[-1].pixels.shape == (240, 320, 3)


@pytest.mark.slow
@pytest.mark.parametrize("auth", ["--digest", "--basic"])
def test_passwords_of_a_real_server(auth: str) -> None:
    with gstreamer_server(auth) as place:
        with open_source(f"rtsp://{USER}:{PASSWORD}@{place}/stream") as source:
            assert source.read() is not None
        with pytest.raises(SourceError, match="refuses the user name or password") as caught:
            open_source(f"rtsp://{USER}:wrong-one@{place}/stream").open()
        assert "wrong-one" not in str(caught.value)
        with pytest.raises(SourceError, match=r"asks for a user name and password \(401\).*USER:PASSWORD"):
            open_source(f"rtsp://{place}/stream").open()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offered", "asked", "works"),
    [
        ("both", "auto", True),
        ("both", "tcp", True),
        ("both", "udp", True),
        ("udp", "auto", True),
        ("udp", "udp", True),
        ("udp", "tcp", False),
        ("tcp", "auto", True),
        ("tcp", "udp", False),
    ],
)
def test_transports_of_a_real_server(offered: str, asked: str, works: bool) -> None:
    settings = CameraSettings(rtsp_transport=asked)
    with gstreamer_server("--protocols", offered) as place:
        if works:
            with open_source(f"rtsp://{place}/stream", settings) as source:
                for _ in range(5):
                    assert source.read() is not None
        else:
            other = "udp" if asked == "tcp" else "tcp"
            # Once a transport was refused, this server answers nothing but 503 for a while.
            says = rf"refuses {asked.upper()} \(461\).*--rtsp-transport {other}|answers 503"
            with pytest.raises(SourceError, match=says):
                open_source(f"rtsp://{place}/stream", settings).open()


@pytest.mark.slow
def test_what_a_real_server_does_not_have() -> None:
    with gstreamer_server("--stream", "audio") as place:
        with pytest.raises(SourceError, match="has no video track, only: audio"):
            open_source(f"rtsp://{place}/stream").open()
        with pytest.raises(SourceError, match=r"no such path \(404\)"):
            open_source(f"rtsp://{place}/elsewhere").open()


@pytest.mark.slow
def test_a_real_server_that_comes_back() -> None:
    port = str(free_port())
    with gstreamer_server("--port", port) as place:
        source = open_source(f"rtsp://{place}/stream", CameraSettings(stall_s=1))
        source.open()
        assert source.read() is not None
    deaths = []
    try:
        for _ in range(2):
            with gstreamer_server("--port", port):
                answers = time.monotonic()
                while source.take(0.1) is None or source.state != "ok":
                    assert time.monotonic() - answers < 20
                deaths.append(time.monotonic() - answers)
                until = time.monotonic() + 0.5
                while time.monotonic() < until:
                    source.take(0.1)
    finally:
        source.close()
    assert max(deaths) < 6 and source.reconnects >= 1


# What goes wrong


class Refusing(Server):
    """Answers the requests named in `status` so, and everything else with 200."""

    def __init__(self, status: dict[str, str], sdp: str = "") -> None:
        self.status, self.sdp = status, sdp
        super().__init__()

    def serve(self, connection: socket.socket) -> None:
        while head := self.request(connection):
            method = head.split(" ", 1)[0]
            number = re.search(r"(?im)^cseq: *(\d+)", head)
            content = self.sdp if method == "DESCRIBE" else ""
            text = f"RTSP/1.0 {self.status.get(method, '200 OK')}\r\nCSeq: {number[1] if number else 0}\r\n"
            text += f"Content-Length: {len(content)}\r\nSession: 1\r\n\r\n{content}"
            connection.sendall(text.encode())


SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H266/90000\r\n"


@pytest.mark.parametrize(
    ("status", "sdp", "says"),
    [
        ({"DESCRIBE": "404 Not Found"}, "", r"no such path \(404\)"),
        ({"DESCRIBE": "403 Forbidden"}, "", "asks for a user name and password"),
        ({"DESCRIBE": "503 Service Unavailable"}, "", "answers 503 Service Unavailable"),
        (
            {},
            "v=0\r\nm=audio 0 RTP/AVP 0\r\nm=application 0 RTP/AVP 107\r\n",
            "no video track, only: audio, application",
        ),
        ({}, "v=0\r\n", "no video track, only: nothing"),
        ({"SETUP": "461 Unsupported Transport"}, SDP, "offers H266|refuses"),
        ({"PLAY": "454 Session Not Found"}, SDP, "offers H266"),
    ],
)
def test_the_reason_in_one_sentence(status: dict, sdp: str, says: str) -> None:
    with Refusing(status, sdp) as server:
        with pytest.raises(SourceError, match=says) as caught:
            open_source(f"rtsp://127.0.0.1:{server.port}/stream").open()
        assert "\n" not in str(caught.value) and caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("rtsp://no-such-host.invalid/x", "no computer is called no-such-host.invalid"),
        ("rtsp://127.0.0.1:1/x", "refuses connections to port 1"),
    ],
)
def test_why_a_camera_is_not_reached(address: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_source(address).open()


def test_another_protocol_on_the_port() -> None:
    class Web(Server):
        def serve(self, connection: socket.socket) -> None:
            self.request(connection)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Web() as server, pytest.raises(SourceError, match="does not speak RTSP"):
        open_source(f"rtsp://127.0.0.1:{server.port}/x").open()


def test_an_unknown_transport() -> None:
    with pytest.raises(UsageError, match="carrier-pigeon"):
        CameraSettings(rtsp_transport="carrier-pigeon")


def test_a_users_own_options_for_ffmpeg_win(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    with RtspServer() as server, pytest.raises(SourceError):
        open_source(server.url).open()
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"


def test_the_refused_transport_is_said() -> None:
    with RtspServer() as server, pytest.raises(SourceError, match=r"refuses UDP \(461\): --rtsp-transport tcp"):
        open_source(server.url, CameraSettings(rtsp_transport="udp")).open()
