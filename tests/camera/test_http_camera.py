"""Cameras behind HTTP: passwords, redirects, certificates, snapshots, clips and HLS, each from a server on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from edge_mnv2.camera.frame import Source
from edge_mnv2.camera.http_client import best, digest, parse_challenges
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.errors import SourceError, UsageError
from tests.camera import mp4
from tests.camera.stream_servers import Server, jpeg, number_in
from tests.stubs import free_port

USER, PASSWORD = "admin", 'p"a\\s:s'


class HttpServer(Server):
    """Answers each request with `answer(path, head, count)`: (status, headers, content or a generator of it)."""

    def __init__(self, answer: Callable, tls: Optional[ssl.SSLContext] = None) -> None:
        self.answer, self.tls = answer, tls
        self.paths: list[str] = []
        super().__init__()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://localhost:{self.port}"

    def serve(self, connection: socket.socket) -> None:
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True)
        while head := self.request(connection):
            path = head.split(" ")[1]
            self.paths.append(path)
            status, headers, content = self.answer(path, head, len(self.paths))
            if isinstance(content, bytes):
                headers = {**headers, "Content-Length": str(len(content))}
                content = [content]
            lines = [f"HTTP/1.1 {status}", *(f"{key}: {value}" for key, value in headers.items() if key != "Auth")]
            lines += [f"WWW-Authenticate: {one}" for one in headers.get("Auth", [])]
            connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            for data in content:
                connection.sendall(data)
            if "Content-Length" not in headers:
                return


def stream(fps: float = 50) -> Iterator[bytes]:
    for number in itertools.count():
        picture = jpeg(number & 0xFFFF)
        yield b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture)
        time.sleep(1 / fps)


MULTIPART = {"Content-Type": "multipart/x-mixed-replace; boundary=f"}


def with_password(url: str) -> str:
    from urllib.parse import quote

    return url.replace("://", f"://{USER}:{quote(PASSWORD, safe='')}@")


# Passwords


def admitted(head: str, realm: str = "cam") -> bool:
    """Checks a digest as a camera does, from RFC 7616."""
    match = re.search(r"(?im)^authorization: digest (.*?)\r?$", head)
    if match is None:
        return False
    pairs = re.findall(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))', match[1])
    field = {key: re.sub(r"\\(.)", r"\1", quoted) or plain for key, quoted, plain in pairs}
    algorithm = field.get("algorithm", "MD5").upper()
    name = algorithm.replace("-SESS", "")
    new = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}[name]

    def hashed(text: str) -> str:
        return hashlib.new(new, text.encode()).hexdigest()

    user = hashed(f"{USER}:{realm}") if field.get("userhash") == "true" else USER
    secret = hashed(f"{USER}:{realm}:{PASSWORD}")
    if algorithm.endswith("-SESS"):
        secret = hashed(f"{secret}:{field['nonce']}:{field['cnonce']}")
    action = hashed(
        f"{head.split(' ')[0]}:{field['uri']}" + (f":{hashed('')}" if field.get("qop") == "auth-int" else "")
    )
    middle = f":{field['nc']}:{field['cnonce']}:{field['qop']}" if "qop" in field else ""
    response = hashed(f"{secret}:{field['nonce']}{middle}:{action}")
    return field["username"] == user and field["response"] == response and field["uri"] == head.split(" ")[1]


CHALLENGES = {
    "plain digest": ['Digest realm="cam", nonce="n1"'],
    "qop": ['Digest realm="cam", nonce="n1", qop="auth", opaque="o,p"'],
    "several qops": ['Digest realm="cam", nonce="n1", qop="auth-int,auth", algorithm=MD5'],
    "auth-int only": ['Digest realm="cam", nonce="n1", qop="auth-int"'],
    "SHA-256": ['Digest realm="cam", nonce="n1", qop="auth", algorithm=SHA-256'],
    "SHA-512-256": ['Digest realm="cam", nonce="n1", qop="auth", algorithm=SHA-512-256, userhash=true'],
    "MD5-sess": ['Digest realm="cam", nonce="n1", qop="auth", algorithm=MD5-sess'],
    "one header each": ['Basic realm="cam"', 'Digest realm="cam", nonce="n1", qop="auth", algorithm=SHA-256'],
    "one header for all": ['Basic realm="cam", Digest realm="cam", nonce="n1", qop="auth", Negotiate'],
    "an unknown one first": ['Digest realm="cam", nonce="n0", algorithm=TIGER', 'Digest realm="cam", nonce="n1"'],
    "MD5 before SHA-256": [
        'Digest realm="cam", nonce="n1", qop="auth", algorithm=MD5',
        'Digest realm="cam", nonce="n1", qop="auth", algorithm=SHA-256',
    ],
}


@pytest.mark.parametrize("name", CHALLENGES)
def test_every_challenge_is_answered(name: str) -> None:
    def answer(path: str, head: str, count: int) -> tuple:
        if admitted(head):
            return "200 OK", MULTIPART, stream()
        return "401 Unauthorized", {"Auth": CHALLENGES[name]}, b""

    with HttpServer(answer) as server, open_source(with_password(server.url) + "/a?b=c,d") as source:
        assert source.read() is not None
    assert not any("Basic" in request for request in server.requests), "the stronger one is chosen"


def test_a_stale_nonce_is_answered_with_the_new_one() -> None:
    picture = jpeg(1)

    def answer(path: str, head: str, count: int) -> tuple:
        nonce = f"n{count // 4}"
        if admitted(head) and f'nonce="{nonce}"' in head:
            return "200 OK", {"Content-Type": "image/jpeg"}, picture
        return "401 Unauthorized", {"Auth": [f'Digest realm="cam", nonce="{nonce}", stale=true, qop="auth"']}, b""

    with HttpServer(answer) as server, open_source(with_password(server.url), CameraSettings(fps=50)) as source:
        for _ in range(6):
            assert source.read() is not None


def test_a_wrong_password_is_said_and_not_tried_again_and_again() -> None:
    def answer(path: str, head: str, count: int) -> tuple:
        return "401 Unauthorized", {"Auth": ['Digest realm="other", nonce="n1", qop="auth"', 'Basic realm="x"']}, b""

    with HttpServer(answer) as server:
        with pytest.raises(SourceError, match="refuses the user name or password"):
            open_source(with_password(server.url)).open()
        assert len(server.requests) == 2
        with pytest.raises(SourceError, match="put them into the address"):
            open_source(server.url).open()


def test_another_kind_of_password() -> None:
    server = HttpServer(lambda *_: ("401 Unauthorized", {"Auth": ["Negotiate", "NTLM"]}, b""))
    with server, pytest.raises(SourceError, match="negotiate, ntlm, which is not supported"):
        open_source(with_password(server.url)).open()


def test_challenges_and_digests_of_the_standard() -> None:
    """The example of RFC 7616, section 3.9.1."""
    line = (
        'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, '
        'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    )
    challenge = best(parse_challenges([line, 'Basic realm="a, b=\\"c\\""']))
    assert challenge is not None and challenge[0] == "digest" and challenge[1]["algorithm"] == "SHA-256"
    header = digest(challenge[1], "Mufasa", "Circle of Life", "GET", "/dir/index.html", 1)
    cnonce = re.search(r'cnonce="(\w+)"', header)
    assert cnonce is not None

    def hashed(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    secret = hashed("Mufasa:http-auth@example.org:Circle of Life")
    assert secret == "7987c64c30e25f1b74be53f966b49b90f2808aa92faf9a00262392d7b4794232"
    wanted = hashed(f"{secret}:{challenge[1]['nonce']}:00000001:{cnonce[1]}:auth:" + hashed("GET:/dir/index.html"))
    assert f'response="{wanted}"' in header and 'opaque="FQhe' in header
    assert parse_challenges(['Basic realm="a, b=\\"c\\""']) == [("basic", {"realm": 'a, b="c"'})]


def test_redirects_are_followed_and_take_the_password_to_no_other_host() -> None:
    def answer(path: str, head: str, count: int) -> tuple:
        if path == "/old":
            return "302 Found", {"Location": "/new"}, b""
        if path == "/away":
            return "302 Found", {"Location": f"http://127.0.0.1:{server.port}/secret"}, b""
        if path == "/circle":
            return "302 Found", {"Location": "/circle"}, b""
        if not admitted(head):
            return "401 Unauthorized", {"Auth": ['Digest realm="cam", nonce="n1", qop="auth"', 'Basic realm="c"']}, b""
        return "200 OK", MULTIPART, stream()

    with HttpServer(answer) as server:
        with open_source(with_password(server.url) + "/old") as source:
            assert source.read() is not None
        with pytest.raises(SourceError, match=r"redirects to 127\.0\.0\.1, which gets no password"):
            open_source(with_password(server.url) + "/away").open()
        assert not any("authorization" in head.lower() for head in server.requests if "GET /secret" in head)
        with pytest.raises(SourceError, match="circle"):
            open_source(with_password(server.url) + "/circle").open()


# Reasons


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://no-such-host.invalid/x", "no computer is called no-such-host.invalid"),
        ("http://127.0.0.1:1/x", "refuses connections to port 1"),
    ],
)
def test_why_a_camera_is_not_reached(address: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_source(address).open()


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private authority: ca.pem, and server.pem with key.pem for localhost; other.pem is another authority."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    folder = tmp_path_factory.mktemp("authority")

    def run(command: str) -> None:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        run(f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}")
    run("openssl req -newkey rsa:2048 -nodes -keyout key.pem -out server.csr -subj /CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost")
    sign = "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names"
    run(f"{sign} -out server.pem")
    return folder


@pytest.mark.slow
def test_a_private_authority(authority: Path, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "server.pem", authority / "key.pem")
    with HttpServer(lambda *_: ("200 OK", MULTIPART, stream()), tls) as server:
        with open_source(server.url, CameraSettings(ca=str(authority / "ca.pem"))) as source:
            assert source.read() is not None
        for ca in (None, str(authority / "other.pem")):
            with pytest.raises(SourceError, match=r"certificate is refused.*--ca FILE"):
                open_source(server.url, CameraSettings(ca=ca)).open()
        with pytest.raises(SourceError, match=r"certificate is refused.*name"):
            address = server.url.replace("localhost", "127.0.0.1")
            open_source(address, CameraSettings(ca=str(authority / "ca.pem"))).open()
        (tmp_path / "empty.pem").write_text("nothing")
        for wrong, says in (
            (tmp_path / "empty.pem", "holds no certificate"),
            (tmp_path / "none.pem", "cannot be read"),
        ):
            with pytest.raises(UsageError, match=says):
                open_source(server.url, CameraSettings(ca=str(wrong))).open()


# Single pictures


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("content_type", ["image/jpeg", "image/jpg; charset=x", "application/octet-stream"])
def test_a_single_picture_is_polled(length: bool, content_type: str) -> None:
    def answer(path: str, head: str, count: int) -> tuple:
        picture = jpeg(count)
        return "200 OK", {"Content-Type": content_type}, picture if length else [picture]

    with HttpServer(answer) as server, open_source(server.url + "/shot?id=1", CameraSettings(fps=20)) as source:
        frames = [source.read() for _ in range(8)]
        # One for each picture that was asked for; what nobody took in time is counted.
        assert {number_in(frame.pixels) - frame.index for frame in frames} == {number_in(frames[0].pixels)}
        assert len({frame.index for frame in frames}) == 8 and source.reconnects == 0
        assert source.granted.backend == "snapshot" and source.granted.fps == 20


@pytest.mark.slow
def test_pictures_are_asked_for_once_a_second_by_default() -> None:
    with HttpServer(lambda *_: ("200 OK", {"Content-Type": "image/jpeg"}, jpeg(3))) as server:
        with open_source(server.url) as source:
            began = time.monotonic()
            for _ in range(4):
                assert source.read() is not None
        assert 1.5 < time.monotonic() - began < 5 and len(server.paths) < 8


def test_other_pictures_than_jpeg_are_polled_too() -> None:
    import cv2

    png = cv2.imencode(".png", np.full((40, 60, 3), (0, 0, 255), np.uint8))[1].tobytes()
    server = HttpServer(lambda *_: ("200 OK", {"Content-Type": "image/png"}, png))
    with server, open_source(server.url, CameraSettings(fps=50)) as source:
        assert source.read().image[5, 5].tolist() == [255, 0, 0]


def test_a_camera_that_is_busy_now_and_then() -> None:
    def answer(path: str, head: str, count: int) -> tuple:
        if count % 3 == 2:
            return "503 Busy", {}, b""
        picture = jpeg(count)
        return "200 OK", {"Content-Type": "image/jpeg"}, picture[:300] if count % 5 == 4 else picture

    with HttpServer(answer) as server, open_source(server.url, CameraSettings(fps=50)) as source:
        for _ in range(8):
            assert source.read() is not None
        assert source.reconnects == 0 and source.decode_errors > 0


def test_the_same_picture_for_a_while_is_no_frozen_camera() -> None:
    server = HttpServer(lambda *_: ("200 OK", {"Content-Type": "image/jpeg"}, jpeg(3)))
    with server, open_source(server.url, CameraSettings(fps=50, frozen_s=0.2)) as source:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert source.read() is not None
        assert source.reconnects == 0


# Streams without a proper form


def endless(pictures: Iterator[bytes], fps: float = 50) -> Iterator[bytes]:
    for picture in pictures:
        yield picture
        time.sleep(1 / fps)


@pytest.mark.parametrize("content_type", ["image/jpeg", "video/x-motion-jpeg", "", "text/plain", "text/html"])
def test_one_picture_after_the_other_without_anything_between(content_type: str) -> None:
    def answer(path: str, head: str, count: int) -> tuple:
        headers = {"Content-Type": content_type} if content_type else {}
        return "200 OK", headers, endless(jpeg(number & 0xFFFF) for number in itertools.count())

    with HttpServer(answer) as server, open_source(server.url) as source:
        numbers = [number_in(source.read().pixels) for _ in range(10)]
        assert numbers == sorted(set(numbers)) and len(server.paths) == 1


@pytest.mark.slow
def test_a_large_picture_and_garbage_between_parts() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (1500, 2000, 3), dtype=np.uint8)
    import cv2

    large = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    assert len(large) > 2 << 20
    parts = itertools.cycle([large, b"\r\n--x\r\n" + bytes(range(256)) * 40, large[:5000], b"\r\n\r\n", large])
    with HttpServer(lambda *_: ("200 OK", MULTIPART, endless(parts))) as server, open_source(server.url) as source:
        for _ in range(4):
            assert source.read().pixels.shape == (1500, 2000, 3)
        assert source.decode_errors > 0


def test_pictures_that_are_passed_over_are_counted() -> None:
    def burst() -> Iterator[bytes]:
        for number in itertools.count():
            yield b"".join(jpeg((10 * number + one) & 0xFFFF, size=(64, 48)) for one in range(10))
            time.sleep(0.05)

    with HttpServer(lambda *_: ("200 OK", MULTIPART, burst())) as server, open_source(server.url) as source:
        frames = [source.read() for _ in range(10)]
        assert frames[-1].index > 80


# A rhythm of its own


@pytest.mark.slow
def test_a_picture_every_few_seconds_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    from edge_mnv2.camera import http_camera

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_camera, "STALL_S", 0.15)
        with HttpServer(lambda *_: ("200 OK", MULTIPART, stream(fps=3))) as server, open_source(server.url) as source:
            for _ in range(8):
                assert source.read() is not None
            assert source.reconnects <= 2
            before = source.reconnects
            for _ in range(4):
                assert source.read() is not None
            assert source.reconnects == before
    assert "camera.stall_s" in caplog.text


# Clips and HLS


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds at 20 pictures a second, numbered."""
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    pictures = []
    for number in range(40):
        picture = np.zeros((240, 320, 3), np.uint8)
        for bit in range(16):
            picture[:60, bit * 20 : bit * 20 + 20] = 255 if number >> bit & 1 else 0
        pictures.append(picture)
    path.write_bytes(mp4.index_first(mp4.write_clip(path, pictures, "mp4v")))
    return path


def read_all(source: Source, limit_s: float = 15) -> list[tuple[int, float]]:
    """(number, seconds since the first) of every frame until the source says that it is closed."""
    frames, until = [], time.monotonic() + limit_s
    began = None
    while time.monotonic() < until:
        frame = source.take(0.2)
        if frame is None:
            if source.closed:
                return frames
            continue
        began = frame.captured_at if began is None else began
        frames.append((number_in(frame.pixels), (frame.captured_at - began) / 1e9))
    raise AssertionError("it never ended")


@pytest.mark.slow
def test_a_clip_over_http_keeps_its_time_and_ends(clip: Path) -> None:
    content = clip.read_bytes()

    def answer(path: str, head: str, count: int) -> tuple:
        match = re.search(r"(?im)^range: bytes=(\d+)-", head)
        first = int(match[1]) if match else 0
        headers = {"Content-Type": "video/mp4", "Accept-Ranges": "bytes"}
        if match:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return "206 Partial" if match else "200 OK", headers, content[first:]

    with HttpServer(answer) as server, open_source(server.url + "/a.mp4") as source:
        frames = read_all(source)
        assert source.reconnects == 0
    assert len(frames) >= 30 and frames[-1][0] >= 38
    assert 1.5 < frames[-1][1] < 3


@pytest.mark.slow
def test_hls_comes_in_bursts_and_is_shown_at_its_time(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg")
    command = (
        "ffmpeg -v error -f lavfi -i testsrc2=size=320x240:rate=20:duration=24 -c:v mpeg2video -g 20 -f hls "
        "-hls_time 3 -hls_list_size 0 all.m3u8"
    )
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    segments = sorted(tmp_path.glob("*.ts"), key=lambda path: int(re.sub(r"\D", "", path.stem)))
    began = time.monotonic()

    def answer(path: str, head: str, count: int) -> tuple:
        if path.endswith(".ts"):
            return "200 OK", {"Content-Type": "video/mp2t"}, (tmp_path / path.strip("/")).read_bytes()
        ready = min(len(segments), 3 + int((time.monotonic() - began) / 3))
        first = max(0, ready - 3)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:3", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for segment in segments[first:ready]:
            lines += ["#EXTINF:3.0,", segment.name]
        return "200 OK", {"Content-Type": "application/vnd.apple.mpegurl"}, "\n".join(lines).encode()

    with HttpServer(answer) as server, open_source(server.url + "/live.m3u8") as source:
        times = []
        while len(times) < 140:
            frame = source.read()
            assert frame is not None
            times.append(frame.captured_at / 1e9)
        assert source.reconnects == 0
    gaps = np.diff(times)
    assert np.median(gaps) == pytest.approx(0.05, abs=0.02), "at its own time, not as fast as it comes"
    assert gaps.max() < 3


# Deaths


@pytest.mark.slow
def test_a_camera_that_dies_in_ten_ways_is_back_within_three_seconds() -> None:
    """Ten cameras at once, as each of them takes its time."""

    def returns(way: str) -> float:
        with Deaths([way]) as deaths:
            deaths.run()
        return max(deaths.returns)

    with ThreadPoolExecutor(len(Deaths.WAYS)) as pool:
        seconds = dict(zip(Deaths.WAYS, pool.map(returns, Deaths.WAYS)))
    assert len(seconds) == 10 and max(seconds.values()) < 3, seconds


@pytest.mark.slow
@pytest.mark.soak
def test_a_hundred_and_twenty_deaths() -> None:
    """Back each time, and no memory is lost over them."""
    deaths = Deaths(Deaths.WAYS * 12)
    with deaths:
        deaths.run()
    assert len(deaths.returns) == 120 and max(deaths.returns) < 3, deaths.returns
    assert deaths.memory[-1] - deaths.memory[len(deaths.memory) // 3] < 10, deaths.memory


class Deaths:
    """One camera's server that dies again and again, and a source that has to find it again."""

    WAYS = (
        *("closes", "resets", "silent", "refuses", "500"),
        *("cut picture", "garbage", "html", "half a header", "slow accept"),
    )

    def __init__(self, ways: Sequence[str]) -> None:
        self.ways = ways
        self.way = ""
        self.alive = threading.Event()
        self.alive.set()
        self.returns: list[float] = []
        self.memory: list[float] = []
        # While nobody listens, a client that asks for a port of the kernel's own range may meet itself there.
        self.port = free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.ended = False
        self.kill = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Deaths:
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended = True
        self.listener.close()

    def _accept(self) -> None:
        while not self.ended:
            if self.way == "refuses" and not self.alive.is_set():
                self.listener.close()
                self.alive.wait()
                self.listener = socket.create_server(("127.0.0.1", self.port))
            self.listener.settimeout(0.1)
            with contextlib.suppress(OSError):
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(None)
            if not self.alive.is_set():
                if self.way in ("silent", "slow accept"):
                    self.alive.wait(30)
                elif self.way == "500":
                    connection.sendall(b"HTTP/1.1 500 Sorry\r\nContent-Length: 0\r\n\r\n")
                elif self.way == "html":
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>starting</html>")
                elif self.way == "half a header":
                    connection.sendall(b"HTTP/1.1 200 O")
                elif self.way == "garbage":
                    connection.sendall(b"\0\1\2\3" * 100)
                return
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n")
            for number in itertools.count():
                picture = jpeg(number & 0xFFFF, size=(64, 48))
                if not self.alive.is_set():
                    if self.way == "silent":
                        self.alive.wait(30)
                        time.sleep(5)
                    elif self.way == "resets":
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    elif self.way == "cut picture":
                        connection.sendall(picture[: len(picture) // 2])
                    elif self.way == "garbage":
                        connection.sendall(bytes(20_000))
                    return
                connection.sendall(b"--f\r\nContent-Type: image/jpeg\r\n\r\n" + picture + b"\r\n")
                time.sleep(0.02)

    def run(self) -> None:
        settings = CameraSettings(stall_s=0.5)
        with open_source(f"http://127.0.0.1:{self.port}/", settings) as source:
            for way in self.ways:
                until = time.monotonic() + 0.15
                while time.monotonic() < until:
                    source.take(0.1)
                self.way = way
                self.alive.clear()
                # What is on its way still comes.
                until = time.monotonic() + 0.8
                while time.monotonic() < until:
                    source.take(0.1)
                self.alive.set()
                answers = time.monotonic()
                while source.take(0.1) is None:
                    assert time.monotonic() - answers < 20, way
                self.returns.append(time.monotonic() - answers)
                self.memory.append(resident_mb())


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6
