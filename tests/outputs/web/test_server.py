"""The server over real sockets: what it answers, whom it refuses, what it takes no more of."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_mnv2.outputs.web import guard, pages, server, workbench
from tests.outputs.web.conftest import Served, serving
from tests.processes import until

Run = Callable[..., "tuple[int, str, str]"]


def ask(
    served: Served, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def raw(served: Served, data: bytes, timeout: float = 20) -> bytes:
    """What comes back to `data`: a whole answer, or what came before the connection ended or nothing more came."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=timeout) as connection:
        connection.sendall(data)
        got = b""
        try:
            while not _is_whole(got) and (part := connection.recv(65536)):
                got += part
        except OSError:
            pass
        return got


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?mi)^Content-Length: (\d+)\r?$", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


def change(served: Served, body: Any, **headers: str) -> tuple[int, Any]:
    text = body if isinstance(body, (str, bytes)) else json.dumps(body)
    status, _, answer = ask(served, "/api/controls", "POST", text, **{"Content_Type": "application/json", **headers})
    return status, json.loads(answer)


def test_state_has_what_a_log_line_has_and_more(served: Served) -> None:
    status, headers, body = ask(served, "/api/state")
    state = json.loads(body)
    assert status == 200 and headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    for name in ("t", "frame", "top", "latency_ms", "inference_ms", "fps", "dropped", "temp_c", "throttled", "engine"):
        assert name in state
    assert state["state"] == "ok" and state["model"] == "colours.tflite" and state["controls"]["paused"] is False
    assert len(state["history"]["fps"]) == len(state["history"]["latency_ms"]) <= 300


def test_events_come_by_themselves(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}api/stream", timeout=10) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        frames = []
        while len(frames) < 4:
            line = stream.readline().decode()
            if line.startswith("data: "):
                frames.append(json.loads(line[6:])["frame"])
    assert frames == sorted(frames) and frames[0] < frames[-1]


def test_the_stream_is_whole_jpegs(served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}stream.mjpg", timeout=10) as stream:
        boundary = stream.headers.get_param("boundary")
        pictures = []
        while len(pictures) < 3:
            line = stream.readline()
            if line.startswith(b"Content-Length:"):
                stream.readline()
                pictures.append(stream.read(int(line.split(b":")[1])))
                assert stream.readline() == b"\r\n" and stream.readline() == f"--{boundary}\r\n".encode()
    decoded = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) for one in pictures]
    assert all(one is not None and one.shape == (480, 640, 3) for one in decoded)
    assert not np.array_equal(decoded[0], decoded[2])


def test_a_snapshot_is_the_frame_in_full(served: Served) -> None:
    status, headers, body = ask(served, "/snapshot.jpg?download=1")
    assert status == 200 and headers["Content-Type"] == "image/jpeg" and ".jpg" in headers["Content-Disposition"]
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)


def test_metrics_are_what_prometheus_reads(served: Served) -> None:
    status, headers, body = ask(served, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    frames = families["edge_mnv2_frames"].samples[0]
    assert frames.name == "edge_mnv2_frames_total" and frames.value > 0 and frames.labels == {"engine": "cpu"}
    buckets = [one.value for one in families["edge_mnv2_latency_seconds"].samples if one.name.endswith("_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] >= frames.value
    states = {one.labels["state"]: one.value for one in families["edge_mnv2_state"].samples}
    assert states["ok"] == 1 and sum(states.values()) == 1
    assert "edge_mnv2_temperature_celsius" in families or json.loads(ask(served, "/api/state")[2])["temp_c"] is None
    assert "process_resident_memory_bytes" in families


def test_health_needs_no_token_and_says_only_how_it_is(served: Served) -> None:
    status, _, body = ask(served, "/healthz")
    assert status == 200 and json.loads(body) == {"status": "ok"}


def test_controls_change_the_run_and_nothing_else_is_taken(served: Served) -> None:
    assert change(served, {"threshold": 0.999})[1]["threshold"] == 0.999
    until(lambda: not json.loads(ask(served, "/api/state")[2])["top"])
    assert change(served, {"threshold": 0})[0] == 200
    for wrong in (
        {"threshold": 2},
        {"threshold": "0.5"},
        {"threshold": None, "x": 1},
        {"paused": 1},
        {"smooth": 1},
        {},
        [],
        "{",
        "[" * 5000,
        b"\xff\xfe",
        '{"threshold": NaN}',
        "null",
    ):
        status, answer = change(served, wrong)
        assert status == 400 and answer["error"], wrong
    assert json.loads(ask(served, "/api/state")[2])["controls"]["threshold"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Host": "evil.example"},
    ],
    ids=str,
)
def test_other_sites_change_nothing(served: Served, headers: dict[str, str]) -> None:
    status, _ = change(served, {"paused": True}, **headers)
    assert status in (403, 415)
    assert json.loads(ask(served, "/api/state")[2])["controls"]["paused"] is False


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", ""])
def test_a_foreign_name_for_this_address_sees_nothing(served: Served, host: str) -> None:
    assert ask(served, "/api/state", Host=host)[0] in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "[::1]:8080", "192.168.0.7", socket.gethostname()])
def test_own_names_see_the_page(served: Served, host: str) -> None:
    assert ask(served, "/api/state", Host=host)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/page/../server.py",
        "/app.js/../../server.py",
        "/app.js%00.png",
        "//etc/passwd",
        "/login.html",
        "/index.html",
        "/..\\..\\server.py",
        "/%c0%ae%c0%ae/etc/passwd",
        "/.git/config",
        "/static/",
        "http://evil.example/",
        "*",
    ],
)
def test_paths_lead_nowhere_else(served: Served, path: str) -> None:
    got = raw(served, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = int(got.split()[1])
    assert status in (400, 403, 404), got[:200]
    assert b"root:" not in got and b"import " not in got and b"Traceback" not in got


@pytest.mark.slow
@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, 414)),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20000 + b"\r\n\r\n", (400, 431)),
        (
            b"POST /api/controls HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\n\r\n" + b" " * 1000000,
            (413,),
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\nHost: localhost\r\n\r\n", (400,)),
        (b"POST /api/controls HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", (400, 403)),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (400, 405)),
        (b"DELETE /api/controls HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", (405,)),
    ],
    ids=["long line", "long header", "large body", "TLS", "length", "chunks", "method", "delete"],
)
def test_oversized_and_broken_requests_are_refused(served: Served, request_: bytes, statuses: tuple[int, ...]) -> None:
    got = raw(served, request_)
    assert int(got.split()[1]) in statuses, got[:200]
    assert ask(served, "/healthz")[0] == 200


def test_the_deadlines_of_a_page_as_shipped() -> None:
    """Tests that wait for one shorten it."""
    assert (guard.REQUEST_S, guard.WRITE_S, server._IDLE_S) == (10, 10, 30)
    assert (pages._UPLOAD_S, workbench._UPLOAD_S) == (5, 30)


@pytest.mark.slow
def test_a_request_that_never_ends_is_ended(stub: Path) -> None:
    """Slow headers, a slow body, nothing at all: three connections at once."""
    soon = {"guard.REQUEST_S": 1.0, "pages._UPLOAD_S": 1.0}
    with serving(stub, "--source", "test", "--web", "0", deadlines=soon) as served:
        _never_end(served)


def _never_end(served: Served) -> None:
    begun = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /api/controls HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
        b"",
    ]
    connections = [socket.create_connection(("127.0.0.1", served.port)) for _ in begun]
    ended = set()
    for connection, data in zip(connections, begun):
        connection.sendall(data)
        connection.setblocking(False)
    deadline = time.monotonic() + 120
    while len(ended) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
        for number, connection in enumerate(connections):
            if number in ended:
                continue
            try:
                if begun[number]:
                    connection.send(b"a")
                if connection.recv(1000) == b"":
                    ended.add(number)
            except BlockingIOError:
                pass
            except OSError:
                ended.add(number)
    for connection in connections:
        connection.close()
    assert ended == {0, 1, 2}


@pytest.mark.slow
def test_too_many_connections_do_not_keep_the_next_out_for_good(served: Served) -> None:
    many = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(300)]
    time.sleep(0.5)
    for connection in many:
        connection.close()
    deadline = time.monotonic() + 5
    while True:
        try:
            assert ask(served, "/healthz")[0] == 200
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
            time.sleep(0.1)


PRIVATE = ("/", "/api/state", "/api/stream", "/metrics", "/snapshot.jpg", "/stream.mjpg", "/nothing")


@pytest.mark.slow
def test_a_token_is_asked_for_and_no_guessing(stub: Path) -> None:
    with serving(stub, "--source", "test", "--web", "0.0.0.0:0", "--web-token", "s3same &?+") as served:
        # The page of review is entered as the live page is: a link with the token, or the login.
        code, given, _ = ask(served, "/review?token=s3same%20%26%3F%2B")
        assert (code, given["Location"]) == (303, "review") and "edge_mnv2_" in given["Set-Cookie"]
        code, _, content = ask(served, "/review")
        assert code == 401 and b"<form" in content
        assert "whoever has the token" in served.said and "s3same" not in served.said
        for path in PRIVATE:
            status, headers, body = ask(served, path)
            assert status == 401 and "Bearer" in headers["WWW-Authenticate"], path
            assert b"colours" not in body
        assert change(served, {"paused": True})[0] == 401
        assert ask(served, "/healthz")[0] == 200 and ask(served, "/app.css")[0] == 200
        with_token = {"Authorization": "Bearer s3same &?+"}
        assert ask(served, "/metrics", **with_token)[0] == 200
        assert ask(served, "/api/state?token=s3same%20%26%3F%2B")[0] == 200
        assert change(served, {"threshold": 0.1}, **with_token)[0] == 200
        status, headers, _ = ask(served, "/?token=s3same%20%26%3F%2B")
        assert status == 303 and headers["Location"] == "./"
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "s3same" not in cookie
        pair = cookie.split(";")[0]
        assert ask(served, "/", Cookie=pair)[0] == 200
        assert change(served, {"threshold": 0}, Cookie=pair)[0] == 200
        assert change(served, {"threshold": 1}, Cookie=pair, Origin="http://evil.example")[0] == 403
        forged = pair[:-1] + ("0" if pair[-1] != "0" else "1")
        assert ask(served, "/", Cookie=forged)[0] == 401
        # All at once, so that the test waits for the slowest alone: each waits by how many there were before it.
        guesses: list[tuple[int, float]] = []

        def guess(number: int) -> None:
            asked = time.monotonic()
            status = ask(served, f"/api/state?token=guess{number}")[0]
            guesses.append((status, time.monotonic() - asked))

        threads = [threading.Thread(target=guess, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(status for status, _ in guesses) == [401] * 10 + [429] * 2
        assert sum(seconds for _, seconds in guesses) > 10, "wrong tokens take longer and longer"
        began = time.monotonic()
        assert ask(served, "/api/state", **with_token)[0] == 200, "the right one passes all the same"
        assert time.monotonic() - began < 1
        assert ask(served, "/api/state", Cookie=pair)[0] == 200


@pytest.mark.slow
def test_what_cannot_be_read_fills_no_log(stub: Path) -> None:
    """Whoever can reach the port can send anything: it is refused, and nothing of it is said."""
    head = b"GET /api/state HTTP/1.1\r\nHost: x\r\n"
    gzip = (
        b"POST /api/controls HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tok-tok-tok\r\n"
        b"Content-Type: application/json\r\n"
    )
    requests = [
        (head + b"Authorization: Bearer \xff\xfe\r\n\r\n", b"401"),
        (head + b"Cookie: edge_mnv2=\xff\r\n\r\n", b"401"),
        (head + b"X: " + b"a" * 9000 + b"\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"\x00\xff nonsense\r\n\r\n", b"400"),
        (gzip + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope", b"400"),
    ]
    with serving(stub, "--source", "test", "--web", "0", "--web-token", "tok-tok-tok") as served:
        for request, status in requests:
            assert raw(served, request).split(b" ")[1] == status, request[:80]
        _, said = served.stop()
    assert "Traceback" not in said and not [line for line in said.splitlines() if "rror" in line]


@pytest.mark.slow
def test_the_end_of_a_run_ends_its_page_at_once(stub: Path) -> None:
    with serving(stub, "--source", "test", "--web", "0") as served:
        viewers = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)]
        for viewer in viewers:
            viewer.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for viewer in viewers:
            assert viewer.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        out, err = served.stop()
        assert time.monotonic() - began < 5 and served.process.returncode == 0
        assert json.loads(out)["ended"] == "signal" and "Traceback" not in err and "Task" not in err
        for viewer in viewers:
            viewer.close()


BAD = [
    (["--web", "8080x"], "8080x"),
    (["--web", "70000"], "70000"),
    (["--web", "::1:80"], "::1:80"),
    (["--web", ":8080"], ":8080"),
    (["--web", "203.0.113.7:8099", "--web-open"], "203.0.113.7"),
    (["--web", "no.such.host.invalid:8099", "--web-open"], "no.such.host.invalid"),
    (["--web", "0", "--web-token", ""], "--web-token"),
    (["--web", "0", "--web-token", "seven77"], "shorter than 8"),
    (["--web", "0", "--web-token", "x" * 8, "--web-open"], "exclude"),
    (["--web-token", "x"], "--web"),
    (["--web-open"], "--web"),
]


@pytest.mark.parametrize(("options", "named"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_wrong_addresses_are_one_line(run: Run, options: list[str], named: str) -> None:
    code, out, err = run("run", "--source", "test", "--max-frames", 1, *options)
    said = [line for line in err.splitlines() if "list of processes" not in line]
    assert code == 2 and out == "" and named in err and len(said) == 1


def test_an_address_in_use_is_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("run", "--source", "test", "--max-frames", 1, "--web", port)
    assert code == 2 and str(port) in err and "in use" in err and len(err.splitlines()) == 1


def test_without_the_extra_the_package_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    code, _, err = run("run", "--source", "test", "--max-frames", 1, "--web", 0)
    assert code == 2 and "pip install aiohttp" in err


def test_before_the_first_frame_there_is_a_page_but_no_picture(stub: Path) -> None:
    from edge_mnv2.outputs.live import Live
    from edge_mnv2.outputs.web.address import Address
    from edge_mnv2.outputs.web.server import WebServer

    server = WebServer(Live(), Address("127.0.0.1", 0))

    def status(path: str, body: Optional[bytes] = None) -> int:
        try:
            wanted = urllib.request.Request(f"{server.url}{path}", body, {"Content-Type": "application/json"})
            return int(urllib.request.urlopen(wanted, timeout=5).status)
        except urllib.error.HTTPError as error:
            return error.code

    try:
        assert [status(path) for path in ("", "api/state", "metrics", "healthz", "snapshot.jpg")] == [
            200,
            200,
            200,
            503,
            503,
        ]
        assert status("api/controls", b'{"paused": true}') == 503
    finally:
        server.close()
        server.close()
