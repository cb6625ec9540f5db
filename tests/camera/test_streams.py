from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera import http_camera, stream
from edge_mnv2.camera.http_camera import HttpCamera
from edge_mnv2.camera.jpeg import JpegFinder
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.errors import SourceError, SourceLost, UsageError
from tests.camera.stream_servers import MjpegServer, RtspServer, Server, jpeg, number_in
from tests.processes import until

SECRET = "p@ss/w:rd?#1"


# Addresses and what must never be shown


@pytest.mark.parametrize(
    ("text", "user", "password", "bare"),
    [
        ("rtsp://cam/stream", None, None, "rtsp://cam/stream"),
        ("rtsp://u:p@cam:554/stream", "u", "p", "rtsp://cam:554/stream"),
        ("rtsp://u:p@cam/stream@1", "u", "p", "rtsp://cam/stream@1"),
        ("rtsp://u:p%40%2F@cam/x", "u", "p@/", "rtsp://cam/x"),
        ("rtsp://u:p@ss@cam.local/x", "u", "p@ss", "rtsp://cam.local/x"),
        (f"http://admin:{SECRET}@192.168.1.9:80/video", "admin", SECRET, "http://192.168.1.9:80/video"),
        ("rtsp://u@[fe80::1]:554/x", "u", None, "rtsp://[fe80::1]:554/x"),
        ("http://cam.local/x?user=a&pwd=b@c.de", None, None, "http://cam.local/x?user=a&pwd=b@c.de"),
        ("rtsp://u:100%@cam/x", "u", "100%", "rtsp://cam/x"),
    ],
)
def test_addresses_are_taken_apart(text: str, user: str, password: str, bare: str) -> None:
    url = StreamUrl.parse(text)
    assert (url.user, url.password, url.bare) == (user, password, bare)
    again = StreamUrl.parse(url.full)
    assert (again.user, again.password, again.bare) == (user, password, bare)
    for secret in (password, "pwd=b"):
        assert secret is None or len(secret) < 2 or secret not in url.shown


@pytest.mark.parametrize("text", ["rtsp:///x", "rtsp://:554/x", "rtsp://u:secret@/x", "http://", "rtsp://u:secret@"])
def test_addresses_without_a_host(text: str) -> None:
    with pytest.raises(UsageError, match="no host") as caught:
        StreamUrl.parse(text)
    assert "secret" not in str(caught.value)


def test_redact_takes_credentials_out_of_any_text() -> None:
    for text in (
        "cannot open rtsp://admin:hunter2@cam/x now",
        "rtspsrc location=rtsp://a:hunter2@cam/x user-id=a user-pw=hunter2 ! appsink",
        "http://cam/x?user=a&password=hunter2&x=1",
        'foo password = "hunter2" bar',
    ):
        assert "hunter2" not in redact(text), redact(text)
    assert redact("videotestsrc pattern=red ! appsink") == "videotestsrc pattern=red ! appsink"


@pytest.mark.parametrize("kind", ["http", "rtsp"])
def test_credentials_appear_nowhere(kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server: Server = MjpegServer(credentials="admin:other") if kind == "http" else RtspServer(credentials="admin:other")
    with server:
        for port in (server.port, 1):
            source = open_source(f"{kind}://admin:{SECRET}@127.0.0.1:{port}/x?token=abcdef")
            with pytest.raises(SourceError) as caught:
                source.open()
            text = " ".join((str(caught.value), caplog.text, *capfd.readouterr(), source.description))
            for secret in (SECRET, "p%40ss", "w:rd", "abcdef", "admin:"):
                assert secret not in text


# HTTP


def numbers(source: object, count: int) -> list[int]:
    return [number_in(source.read().pixels) for _ in range(count)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"length": False},
        {"boundary": "--frame"},
        {"boundary": '"frame"', "length": False},
        {"boundary": "frame", "delimiter": "frame"},
        {"content_type": "multipart/x-mixed-replace"},
        {"content_type": "multipart/x-mixed-replace", "length": False},
    ],
)
def test_every_dialect_of_mjpeg(shape: dict) -> None:
    with MjpegServer(fps=100, **shape) as server, open_source(server.url) as source:
        seen = numbers(source, 12)
        assert seen == sorted(set(seen)) and source.decode_errors == 0
        assert source.granted.width == 320 and source.granted.format == "MJPG"


@pytest.mark.parametrize("auth", ["Basic", "Digest"])
def test_user_and_password_are_sent(auth: str) -> None:
    with MjpegServer(credentials=f"us er:{SECRET}", auth=auth) as server:
        address = server.url.replace("http://", f"http://us er:{SECRET}@")
        with open_source(address) as source:
            assert source.read() is not None
        with pytest.raises(SourceError, match="user name or password"):
            open_source(server.url.replace("http://", "http://a:b@")).open()


def test_red_is_red() -> None:
    with MjpegServer(lambda connection: itertools.repeat(jpeg(0, (255, 0, 0)))) as server, open_source(server.url) as s:
        frame = s.read()
    assert frame is not None
    assert np.abs(frame.image[200, 160].astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"content_type": "text/html", "page": b"<!DOCTYPE html><html>Log in</html>"}, "web page"),
        ({"content_type": "text/html", "page": b"Please log in"}, "web page"),
        ({"content_type": "text/plain", "page": b"nothing to see here"}, "nothing that can be played"),
        ({"status": "404 Not Found"}, "404"),
    ],
)
def test_what_is_no_stream_is_said(answer: dict, says: str) -> None:
    with MjpegServer(**answer) as server, pytest.raises(SourceError, match=says):
        open_source(server.url).open()


def test_what_does_not_speak_http() -> None:
    class Babble(Server):
        def serve(self, connection) -> None:  # type: ignore[no-untyped-def]
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    with Babble() as server, pytest.raises(SourceError, match=r"127\.0\.0\.1"):
        open_source(f"http://127.0.0.1:{server.port}/").open()


def test_another_kind_of_stream_goes_to_ffmpeg(caplog: pytest.LogCaptureFixture, tmp_path) -> None:  # type: ignore[no-untyped-def]
    import cv2

    caplog.set_level(logging.INFO)
    writer = cv2.VideoWriter(str(tmp_path / "a.ts"), cv2.VideoWriter_fourcc(*"mp4v"), 20, (160, 120))
    for _ in range(60):
        writer.write(np.full((120, 160, 3), (0, 0, 255), np.uint8))
    writer.release()
    body = (tmp_path / "a.ts").read_bytes()

    class Transport(Server):
        def serve(self, connection) -> None:  # type: ignore[no-untyped-def]
            self.request(connection)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + body)
            self.closed.wait()

    with Transport() as server, open_source(f"http://127.0.0.1:{server.port}/live") as source:
        frame = source.read()
        assert frame is not None and frame.image[60, 80, 0] > 200
    assert "opencv instead of mjpeg" in caplog.text


def damaged(connection: int) -> Iterator[bytes]:
    for number in range(1 << 16):
        whole = jpeg(number)
        yield whole if number % 3 else whole[: len(whole) // 2]


@pytest.mark.parametrize("length", [True, False])
def test_damaged_pictures_are_counted_not_shown(length: bool) -> None:
    with MjpegServer(damaged, length=length, fps=200) as server, open_source(server.url) as source:
        seen = numbers(source, 20)
        assert all(number % 3 for number in seen) and source.decode_errors > 0


def test_nothing_but_damage_is_a_loss() -> None:
    server = MjpegServer(lambda connection: itertools.repeat(jpeg()[:900]), fps=500)
    source = HttpCamera(StreamUrl.parse(server.url), CameraSettings())
    with server, pytest.raises(SourceLost, match="damaged"):
        source.open()


@pytest.mark.slow
def test_a_slow_reader_gets_the_newest_picture() -> None:
    with MjpegServer(fps=60) as server, open_source(server.url) as source:
        for _ in range(15):
            frame = source.read()
            assert frame is not None
            lag_ms = (time.monotonic_ns() - server.sent[number_in(frame.pixels)]) / 1e6
            time.sleep(0.1)
        assert frame.index > 40, "what nobody read is counted"
    # Sixty pictures a second, ten read: a queue would be a second behind by now.
    assert lag_ms < 500


def bursts(connection: int) -> Iterator[bytes]:
    return (jpeg(100 * connection + number) for number in range(30))


@pytest.mark.slow
@pytest.mark.parametrize("after", ["silence", "end"])
def test_a_stream_that_stops_is_reconnected(after: str) -> None:
    with MjpegServer(bursts, after=after, fps=100) as server:
        with open_source(server.url, CameraSettings(stall_s=0.4)) as source:
            seen, indices = [], []
            while len(seen) < 45:
                frame = source.read()
                assert frame is not None
                seen.append(number_in(frame.pixels) // 100)
                indices.append(frame.index)
        assert source.reconnects >= 1 and set(seen) >= {1, 2}
        assert indices == sorted(set(indices))


@pytest.mark.slow
def test_rtsp_that_stops_is_reconnected_over_tcp() -> None:
    with RtspServer(30, credentials=f"admin:{SECRET}") as server:
        address = server.url.replace("rtsp://", f"rtsp://admin:{SECRET}@")
        with open_source(address, CameraSettings(stall_s=1.0)) as source:
            frames = [source.read() for _ in range(40)]
            assert all(frames) and source.reconnects >= 1
            assert source.granted.backend == "ffmpeg" and source.granted.width == 320
        assert not any("RTP/AVP;" in request or "RTP/AVP/UDP" in request for request in server.requests)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rtsp", "http"])
def test_a_silent_server_costs_less_than_ten_seconds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as `OPEN_S` at most, which is five seconds, and one here."""
    assert http_camera.OPEN_S == stream.OPEN_S == 5
    for module in (http_camera, stream):
        monkeypatch.setattr(module, "OPEN_S", 1.0)
    with Server() as server:
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"127\.0\.0\.1"):
            open_source(f"{kind}://127.0.0.1:{server.port}/x").open()
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("kind", ["rtsp", "http"])
def test_nobody_listens(kind: str) -> None:
    with Server() as server:
        pass
    with pytest.raises(SourceError, match=r"127\.0\.0\.1"):
        open_source(f"{kind}://127.0.0.1:{server.port}/x").open()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rtsp", "http"])
@pytest.mark.parametrize("state", ["opening", "waiting", "lost"])
def test_close_from_another_thread_ends_every_wait(kind: str, state: str) -> None:
    server: Server
    if state == "opening":
        server = Server()
    else:
        server = MjpegServer(bursts) if kind == "http" else RtspServer(30)
    with server:
        settings = CameraSettings(stall_s=0.3 if state == "lost" else 60)
        source = open_source(f"{kind}://127.0.0.1:{server.port}/x", settings)
        opened, done, taken = threading.Event(), threading.Event(), [0.0]

        def use() -> None:
            try:
                source.open()
                opened.set()
                while source.read() is not None:
                    taken.append(time.monotonic())
            except SourceError:
                pass
            done.set()

        threading.Thread(target=use, daemon=True).start()
        if state == "opening":
            until(lambda: server.connections > 0)
            assert not opened.is_set()
        else:
            # The last picture of the server was taken a while ago.
            until(lambda: len(taken) > 1 and time.monotonic() - taken[-1] > (0.1 if state == "lost" else 0.5))
        if state == "lost":
            server.close()
            until(lambda: source.state != "ok")
        assert not done.is_set()
        began = time.monotonic()
        source.close()
        assert done.wait(5) and time.monotonic() - began < 5


# Pictures in what cameras send


def body(parts: list[bytes], delimiter: str = "--frame", length: bool = True) -> bytes:
    text = b""
    for part in parts:
        head = f"{delimiter}\r\nContent-Type: image/jpeg\r\n" + (f"Content-Length: {len(part)}\r\n" if length else "")
        text += head.encode() + b"\r\n" + part + b"\r\n"
    return text + f"{delimiter}\r\n".encode()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("delimiter", ["--frame", "frame", "", "--" + "x" * 70])
def test_parts_come_out_whole_however_they_are_cut(length: bool, delimiter: str) -> None:
    parts = [jpeg(number, size=(64, 48)) for number in range(6)]
    text, dice = body(parts, delimiter, length=length), random.Random(3)
    for _ in range(60):
        finder, pictures, offset = JpegFinder(), [], 0
        while offset < len(text):
            size = dice.choice([1, 7, 200, 5000])
            pictures += finder.feed(text[offset : offset + size])
            offset += size
        assert pictures == parts and finder.damaged == 0


@pytest.mark.parametrize("wrong", [1, 5, 100000])
def test_wrong_lengths_are_not_believed(wrong: int) -> None:
    parts = [jpeg(number, size=(64, 48)) for number in range(4)]
    text = b"".join(
        b"--frame\r\nContent-Length: %d\r\n\r\n%s\r\n" % (wrong if index == 1 else len(part), part)
        for index, part in enumerate(parts)
    )
    assert JpegFinder().feed(text + b"--frame\r\n" + bytes(200_000)) == parts


def test_pictures_of_every_kind_are_whole() -> None:
    """Progressive ones have several scans, and a photo's header may hold a small picture of its own."""
    import io

    from PIL import Image

    thumbnail = jpeg(7, size=(64, 48))
    exif = Image.Exif()
    exif[0x010E] = "a"
    picture, buffer, plain = Image.new("RGB", (333, 222), (9, 99, 200)), io.BytesIO(), io.BytesIO()
    picture.save(buffer, "JPEG", progressive=True, restart_marker_rows=1)
    picture.save(plain, "JPEG", exif=exif, comment=b"x" * 9 + thumbnail + b"y" * 9)
    finder = JpegFinder()
    sent = [buffer.getvalue(), plain.getvalue(), thumbnail]
    assert finder.feed(b"".join(sent)) == sent and finder.damaged == 0


def test_a_body_of_nonsense_ends() -> None:
    dice, finder = random.Random(5), JpegFinder()
    with pytest.raises(ValueError, match="no picture in"):
        for _ in range(400):
            finder.feed(dice.randbytes(1 << 16))


MUTATIONS = ("boundary", "length", "header", "cut", "garbage", "overwritten", "joined", "early end", "doubled")


def mutated(parts: list[bytes], dice: random.Random) -> bytes:
    """A multipart body of `parts` in which something is wrong at every other part."""
    text = b""
    for part in parts:
        what = dice.choice(MUTATIONS) if dice.random() < 0.6 else ""
        head = [b"--frame", b"Content-Type: image/jpeg", b"Content-Length: %d" % len(part)]
        if what == "boundary":
            head[0] = dice.choice([b"", b"frame", b"--other", b"--frame--", dice.randbytes(dice.randrange(40))])
        elif what == "length":
            head[2] = b"Content-Length: " + dice.choice([b"-1", b"0", b"9" * 30, b"x", b"%d" % dice.randrange(1 << 20)])
        elif what == "header":
            head[1] = dice.choice([b"X" * dice.randrange(9000), dice.randbytes(60), b"Content-Type", b":::"])
        elif what == "cut":
            part = part[: dice.randrange(1, len(part))]
        elif what == "garbage":
            text += dice.randbytes(dice.randrange(6000))
        elif what == "overwritten":
            at = dice.randrange(len(part))
            size = dice.randrange(1, 300)
            part = part[:at] + dice.randbytes(size) + part[at + size :]
        elif what == "joined":
            head = []
        elif what == "early end":
            part = part[: len(part) // 2] + b"\xff\xd9" + part[len(part) // 2 :]
        elif what == "doubled":
            part += part
        text += (b"\r\n".join(head) + b"\r\n\r\n" if head else b"") + part + dice.choice([b"\r\n", b"\n", b""])
    return text


def test_a_thousand_damaged_streams() -> None:
    """Every whole picture that arrives comes out, nothing else is taken for one without being counted."""
    parts = [jpeg(number, size=(64, 48)) for number in range(8)]
    for seed in range(1000):
        dice = random.Random(seed)
        text = mutated(parts, dice) + parts[0]
        finder, pictures, offset = JpegFinder(), [], 0
        while offset < len(text):
            size = dice.choice([3, 100, 1500, 65536])
            pictures += finder.feed(text[offset : offset + size])
            offset += size
        pictures += finder.finish()
        whole = [part for part in parts if part in text]
        missing = [part for part in whole if part not in pictures]
        assert len(missing) <= finder.damaged, seed
        assert pictures[-1] == parts[0], seed
        # A picture's beginning inside a broken one is the only way to lose a whole one.
        assert len(missing) <= 1, seed


@pytest.mark.slow
def test_damaged_streams_through_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera whose every connection breaks the format in other ways: frames go on, and nothing else happens."""
    monkeypatch.setattr(HttpCamera, "backoff", (0.05, 0.1))
    parts = [jpeg(number, size=(64, 48)) for number in range(8)]

    class Breaking(Server):
        def serve(self, connection) -> None:  # type: ignore[no-untyped-def]
            self.request(connection)
            dice = random.Random(self.connections)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
            for _ in range(6):
                connection.sendall(mutated(parts, dice) + parts[0] + parts[1])
                if self.closed.wait(0.02):
                    return

    with Breaking() as server, open_source(f"http://127.0.0.1:{server.port}/", CameraSettings(stall_s=1)) as source:
        frames = 0
        until = time.monotonic() + 60
        while server.connections < 20 and time.monotonic() < until:
            frame = source.take(0.1)
            frames += frame is not None
            assert frame is None or frame.pixels.shape == (48, 64, 3)
        assert server.connections >= 20 and frames >= 40 and source.decode_errors > 0


# GStreamer


def test_gstreamer_or_what_is_missing() -> None:
    source = open_source("gst:videotestsrc pattern=red is-live=true ! video/x-raw,width=320,height=240")
    if stream.gstreamer_missing() is not None:
        with pytest.raises(SourceError, match=r"without GStreamer.*python3-opencv"):
            source.open()
        return
    with source:
        frame = source.read()
        assert frame is not None and frame.image[120, 160].argmax() == 0


def test_pipelines_end_in_a_sink_that_drops() -> None:
    assert "appsink drop=true" in stream.complete_pipeline("videotestsrc")
    assert stream.complete_pipeline("videotestsrc ! appsink") == "videotestsrc ! appsink"
    pipeline = stream.jetson_csi_pipeline(1, CameraSettings(width=320, height=240, fps=15))
    for piece in ("nvarguscamerasrc sensor-id=1", "width=320,height=240", "framerate=15/1", "appsink drop=true"):
        assert piece in pipeline
