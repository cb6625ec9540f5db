"""Events over HTTP, to a real server that misbehaves."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.live import Facts
from edge_mnv2.outputs.webhook import WebhookSink
from tests.outputs.results import event, result
from tests.processes import until


class Service(ThreadingHTTPServer):
    """Answers with `answers` in turn, then 204; "drop" closes the connection, "hang" never answers."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.let_go = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(body)))
        answer = self.server.answers.pop(0) if self.server.answers else 204
        if answer == "drop":
            self.close_connection = True
            return
        if answer == "hang":
            self.server.let_go.wait(30)
            return
        self.send_response(answer)
        if answer == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.let_go.set()
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mnv2.outputs.webhook._FIRST_PAUSE_S", 0.02)
    # What is to come before the end comes, however long the machine stops just then.
    monkeypatch.setattr("edge_mnv2.outputs.webhook._FAREWELL_S", 60.0)


def test_each_event_is_posted_with_who_and_what(service: Service) -> None:
    sink = WebhookSink(service.url)
    sink.begin(Facts(model="birds"), ["tabby"])
    sink.write(result(0))
    sink.write(result(1, events=(event("appeared", frame=1), event("gone", "dog", 1))))
    sink.announce([event("gone", frame=1)])
    sink.close()
    assert [one["event"] for _, _, one in service.got] == ["appeared", "gone", "gone"] and sink.lost == 0
    path, headers, first = service.got[0]
    assert path == "/hook" and headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == first["id"] and headers["User-Agent"].startswith("edge-mnv2/")
    assert first["model"] == "birds" and first["host"] and first["start"].endswith("Z")


@pytest.mark.slow
def test_a_service_that_is_down_gets_everything_later_and_in_order(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.answers = [503, "drop", 429, 500, 408]
    sink = WebhookSink(service.url)
    sink.announce([event(frame=frame) for frame in range(20)])
    until(lambda: len(service.got) == 25)
    sink.close()
    taken = [one["frame"] for _, _, one in service.got[5:]]
    assert taken == list(range(20)) and sink.lost == 0
    assert {one["id"] for _, _, one in service.got[:6]} == {service.got[5][2]["id"]}
    assert "taken again" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize("answer", [400, 401, 404, 410, 302])
def test_what_is_refused_is_lost_and_the_next_goes(
    service: Service, answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    service.answers = [answer, answer]
    sink = WebhookSink(service.url)
    sink.announce([event(frame=frame) for frame in range(4)])
    until(lambda: len(service.got) == 4)
    sink.close()
    assert sink.lost == 2 and [one["frame"] for _, _, one in service.got] == [0, 1, 2, 3]
    assert len([one for one in caplog.records if f"answers {answer}" in one.message]) == 1


@pytest.mark.slow
def test_an_end_in_the_middle_of_an_outage_is_soon_and_counts(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mnv2.outputs.webhook._FAREWELL_S", 1.5)
    service.answers = ["hang"]
    sink = WebhookSink(service.url)
    sink.announce([event(frame=frame) for frame in range(5)])
    until(lambda: service.got)
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 4 and sink.lost >= 4


@pytest.mark.parametrize("url", ["", "localhost", "ftp://x/y", "http://", "/hook"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="--webhook"):
        WebhookSink(url)


@pytest.mark.parametrize("password", ["p/w", "p@w:1", "12#34", "a?b", "ä b", "p%2Fw"])
def test_a_password_with_any_sign_arrives(service: Service, password: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    sink = WebhookSink(service.url.replace("secret", password))
    sink.announce([event()])
    until(lambda: service.got)
    sink.close()
    sent = base64.b64decode(service.got[0][1]["Authorization"].split()[1]).decode()
    assert sent == f"user:{password.replace('%2F', '/')}" and service.got[0][0] == "/hook"
    assert password not in caplog.text


def test_a_private_authority(service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    url = f"https://localhost:{service.server_port}/hook/with-its-secret-in-the-path"
    for authority, said in ((None, "--ca FILE"), (str(tmp_path / "ca.pem"), "")):
        caplog.clear()
        sink = WebhookSink(url, authority)
        sink.announce([event()])
        until(lambda said=said: said in caplog.text if said else service.got)
        sink.close()
    assert len(service.got) == 1 and "with-its-secret" not in caplog.text
    plain = WebhookSink(f"https://localhost:{_plain_port()}/x")
    plain.announce([event()])
    until(lambda: "does not speak TLS" in caplog.text)
    plain.close()


def _plain_port() -> int:
    return Service().server_port


def test_a_file_of_authorities_that_goes_is_an_outage_and_not_the_end(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """requests raises an OSError of no class of its own for it."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    sink = WebhookSink(f"https://localhost:{service.server_port}/hook")
    sink.announce([event()])
    until(lambda: "cannot be reached; events wait" in caplog.text)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    until(lambda: service.got)
    sink.close()
    assert sink.lost == 0
