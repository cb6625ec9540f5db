"""Downloads against a real server that goes wrong in every way; what is there and good always stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from edge_mnv2.errors import DownloadError
from edge_mnv2.zoo import cache, pull
from edge_mnv2.zoo.entry import Entry, FolderSource, PipSource, UrlSource
from edge_mnv2.zoo.web import Limits
from tests.zoo.conftest import HASTY_S, url_entry
from tests.zoo.server import (
    LFS_POINTER,
    LOGIN_PAGE,
    FaultyServer,
    Handler,
    breaking,
    dripping,
    etag,
    in_turn,
    serving,
    slow,
    team_registry,
    whole,
)

Answer = Callable[[Handler, int], None]


def _status(code: int, **headers: str) -> Answer:
    return lambda handler, turn: handler.reply(b"sorry", code, **headers)


def _html(handler: Handler, turn: int) -> None:
    handler.reply(LOGIN_PAGE, Content_Type="text/html")


def _html_as_binary(handler: Handler, turn: int) -> None:
    """A page of exactly the length that is asked for, under a binary type."""
    page = LOGIN_PAGE + b" " * (200_008 - len(LOGIN_PAGE))
    handler.reply(page, Content_Type="application/octet-stream")


def _chunked_html(handler: Handler, turn: int) -> None:
    handler.begin(200, None, Transfer_Encoding="chunked", Content_Type="text/html")
    handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LOGIN_PAGE), LOGIN_PAGE))


def _portal(handler: Handler, turn: int) -> None:
    if handler.path == "/login":
        _html(handler, turn)
    else:
        port = handler.server.server_address[1]
        handler.reply(b"", 302, Location=f"http://localhost:{port}/login")


def _circle(handler: Handler, turn: int) -> None:
    handler.reply(b"", 302, Location="/again")


def _always_short(handler: Handler, turn: int) -> None:
    handler.begin(200, 200_008)
    handler.wfile.write(b"\x1c\0\0\0TFL3" + bytes(50_000))
    handler.hang_up()


def _declared_short(handler: Handler, turn: int) -> None:
    handler.reply(b"\x1c\0\0\0TFL3" + bytes(50_000))


def _too_long(handler: Handler, turn: int) -> None:
    handler.begin(200, None, Connection="close")
    handler.wfile.write(b"\x1c\0\0\0TFL3" + bytes(400_000))
    handler.hang_up()


def _wrong_hash(handler: Handler, turn: int) -> None:
    handler.reply(b"\x1c\0\0\0TFL3" + bytes(200_000))


def _silence(handler: Handler, turn: int) -> None:
    time.sleep(1.2)


def _silent_body(handler: Handler, turn: int) -> None:
    handler.begin(200, 200_008)
    handler.wfile.write(b"\x1c\0\0\0TFL3" + bytes(1000))
    handler.wfile.flush()
    time.sleep(1.2)


def _dripping_headers(handler: Handler, turn: int) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 500:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        time.sleep(0.05)


def _hang_up(handler: Handler, turn: int) -> None:
    handler.hang_up()


def _no_http(handler: Handler, turn: int) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n")
    handler.hang_up()


def _gzipped(handler: Handler, turn: int) -> None:
    handler.reply(b"\x1f\x8b" + bytes(500), Content_Encoding="gzip")


BAD = {
    "HTML with 200": (_html, ["HTML page 'Hotel WLAN \u2013 Sign in'", "login page"]),
    "HTML of the right length": (_html_as_binary, ["HTML page 'Hotel WLAN"]),
    "HTML in chunks": (_chunked_html, ["HTML page 'Hotel WLAN"]),
    "LFS pointer": (lambda handler, turn: handler.reply(LFS_POINTER), ["Git LFS pointer"]),
    "JSON with 200": (lambda handler, turn: handler.reply(b'{"error": "no token"}'), ['{"error": "no token"}']),
    "empty body": (lambda handler, turn: handler.reply(b""), ["0 of 200008 bytes|an empty body"]),
    "short body": (_always_short, ["of 200008 bytes"]),
    "short file": (_declared_short, ["50008 of 200008 bytes"]),
    "long body": (_too_long, ["more than the 200008 bytes"]),
    "wrong hash": (_wrong_hash, ["another file came back", "sha256"]),
    "404": (_status(404), ["404 Not Found"]),
    "403": (_status(403), ["403 Forbidden"]),
    "429 for long": (_status(429, Retry_After="3600"), ["429 Too Many Requests", "3600 s"]),
    "429 without end": (_status(429, Retry_After="0"), ["429 Too Many Requests"]),
    "503": (_status(503), ["503 Service Unavailable"]),
    "503 with a date": (
        _status(503, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT"),
        ["503 Service Unavailable", "asks to wait"],
    ),
    "511": (_status(511), ["511", "login"]),
    "redirect to a portal": (_portal, ["redirected to http://localhost", "/login", "HTML page 'Hotel WLAN"]),
    "redirects in a circle": (_circle, ["circle"]),
    "silence": (_silence, ["no answer", "0.4 s"]),
    "silent body": (_silent_body, ["nothing came for 0.4 s"]),
    "one byte at a time": (dripping(b"\x1c\0\0\0TFL3" + bytes(300), 0.02), ["bytes a second"]),
    "headers byte by byte": (_dripping_headers, ["no answer"]),
    "hangs up": (_hang_up, ["closed the connection"]),
    "another protocol": (_no_http, ["127.0.0.1"]),
    "compressed": (_gzipped, ["gzip"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", BAD)
def test_a_bad_answer_is_named_and_replaces_nothing(
    fault: str, server: FaultyServer, entry: Entry, body: bytes, limits: Limits
) -> None:
    answer, wanted = BAD[fault]
    hasty = replace(limits, read_s=HASTY_S) if fault in ("silence", "silent body", "headers byte by byte") else limits
    if "byte" in fault:
        entry = replace(entry, bytes=308)
    target = cache.cached_path(entry)
    target.parent.mkdir(parents=True)
    target.write_bytes(b"the version of last year")
    server.answer = answer
    with pytest.raises(DownloadError) as caught:
        pull.pull(entry, limits=hasty)
    text = str(caught.value)
    assert caught.value.exit_code == 7
    assert "\n" not in text
    for words in wanted:
        assert any(word in text for word in words.split("|")), text
    assert target.read_bytes() == b"the version of last year"
    assert len(server.requests) <= 2 * limits.attempts + 30

    if entry.bytes == len(body):
        server.answer = whole(body)
        assert pull.pull(entry, limits=limits).path.read_bytes() == body
        assert sorted(path.name for path in target.parent.iterdir()) == [".parts.tflite.lock", "parts.tflite"]


def test_nobody_listens(body: bytes, limits: Limits) -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match="refuses the connection"):
        pull.pull(url_entry(f"{url}/parts.tflite", body=body), limits=limits)


def test_a_host_that_is_not_found_fails_at_once(body: bytes) -> None:
    entry = url_entry("https://no-such-host.invalid/parts.tflite", body=body)
    with pytest.raises(DownloadError) as caught:
        pull.pull(entry)
    assert "no-such-host.invalid is not found" in str(caught.value)
    assert "EDGE_MNV2_MIRROR" in str(caught.value)


GOOD = {
    "after 503": lambda body: in_turn(_status(503), _status(500), whole(body)),
    "after 429 with a pause": lambda body: in_turn(_status(429, Retry_After="1"), whole(body)),
    "after a hang-up": lambda body: in_turn(_hang_up, whole(body)),
    "resumed": lambda body: breaking(body, 70_000, whole(body)),
    "resumed twice": lambda body: breaking(body, 70_000, in_turn(whole(body), _cut_again(body), whole(body))),
    "no ranges": lambda body: breaking(body, 70_000, lambda handler, turn: handler.reply(body)),
    "in chunks": lambda body: lambda handler, turn: _in_chunks(handler, body),
    "redirected": lambda body: (
        lambda handler, turn: (
            whole(body)(handler, turn) if handler.path == "/there" else handler.reply(b"", 302, Location="/there")
        )
    ),
}


def _cut_again(body: bytes) -> Answer:
    def answer(handler: Handler, turn: int) -> None:
        start = handler.offset
        handler.begin(206, len(body) - start, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
        handler.wfile.write(body[start : start + 10_000])
        handler.hang_up()

    return answer


def _in_chunks(handler: Handler, body: bytes) -> None:
    handler.begin(200, None, Transfer_Encoding="chunked")
    for at in range(0, len(body), 9000):
        piece = body[at : at + 9000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


@pytest.mark.slow
@pytest.mark.parametrize("case", GOOD)
def test_a_server_that_recovers(case: str, server: FaultyServer, entry: Entry, body: bytes, limits: Limits) -> None:
    server.answer = GOOD[case](body)
    seen: list[tuple[int, int]] = []
    found = pull.pull(entry, limits=limits, progress=lambda done, total: seen.append((done, total)))
    assert found.path.read_bytes() == body
    assert (found.sha256, found.bytes, found.cached) == (entry.sha256, len(body), False)
    assert found.source == f"{server.url}/parts.tflite"
    assert seen[-1] == (len(body), len(body))
    if case == "resumed":
        assert server.requests[1][1]["Range"] == "bytes=70000-"
        assert server.requests[1][1]["If-Range"] == etag(body)
    assert pull.pull(entry, limits=limits).cached
    assert sorted(path.name for path in found.path.parent.iterdir()) == [".parts.tflite.lock", "parts.tflite"]


@pytest.mark.parametrize("knows_if_range", [True, False])
@pytest.mark.parametrize("tells_version", [True, False])
def test_a_file_that_changes_in_mid_resume_is_fetched_anew(
    knows_if_range: bool, tells_version: bool, server: FaultyServer, entry: Entry, body: bytes, limits: Limits
) -> None:
    older = body[:30_000] + b"an older version" + body[30_016:]

    def newer(handler: Handler, turn: int) -> None:
        tag = {"ETag": etag(body)} if tells_version else {}
        if handler.offset and not (knows_if_range and tells_version):
            span = f"bytes {handler.offset}-{len(body) - 1}/{len(body)}"
            handler.reply(body[handler.offset :], 206, Content_Range=span, **tag)
        else:
            handler.reply(body, **tag)

    server.answer = breaking(older, 70_000, newer)
    assert pull.pull(entry, limits=limits).path.read_bytes() == body


def test_a_beginning_damaged_on_the_disk_is_not_built_upon(
    server: FaultyServer, entry: Entry, body: bytes, limits: Limits
) -> None:
    part = cache.cached_path(entry).with_name(".parts.tflite.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(60_000))
    server.answer = whole(body)
    assert pull.pull(entry, limits=limits).path.read_bytes() == body


@pytest.mark.parametrize("size", [200_008, 300_000])
def test_a_partial_file_of_full_length_is_not_trusted(
    size: int, server: FaultyServer, entry: Entry, body: bytes, limits: Limits
) -> None:
    part = cache.cached_path(entry).with_name(".parts.tflite.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(size))
    server.answer = whole(body)
    assert pull.pull(entry, limits=limits).path.read_bytes() == body


def test_a_portal_in_mid_resume_costs_nothing_of_what_came(
    server: FaultyServer, entry: Entry, body: bytes, limits: Limits
) -> None:
    server.answer = breaking(body, 70_000, _html)
    with pytest.raises(DownloadError, match="HTML page"):
        pull.pull(entry, limits=limits)
    server.answer = whole(body)
    assert pull.pull(entry, limits=limits).path.read_bytes() == body
    assert server.requests[-1][1]["Range"] == "bytes=70000-"


def test_sources_are_tried_in_turn(server: FaultyServer, body: bytes, limits: Limits, tmp_path: Path) -> None:
    server.answer = lambda handler, turn: (
        whole(body)(handler, turn) if handler.path == "/third" else handler.reply(LOGIN_PAGE)
    )
    entry = url_entry(f"{server.url}/first", f"{server.url}/second", f"{server.url}/third", body=body)
    assert pull.pull(entry, limits=limits).source == f"{server.url}/third"

    entry = replace(entry, file="other.tflite", sources=(FolderSource(str(tmp_path / "gone")), *entry.sources[:2]))
    with pytest.raises(DownloadError) as caught:
        pull.pull(entry, limits=limits)
    for name in (str(tmp_path / "gone"), "/first", "/second"):
        assert name in str(caught.value)


def test_the_mirror_is_searched_by_name_then_by_content(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = url_entry("https://no-such-host.invalid/x", body=body)
    monkeypatch.setenv(cache.MIRROR, str(tmp_path))
    (tmp_path / "parts.tflite").write_bytes(body[:-1] + b"!")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "renamed.bin").write_bytes(body)
    (tmp_path / "same_size").write_bytes(bytes(len(body)))
    found = pull.pull(entry)
    assert (found.source, found.cached) == ("mirror", False)
    assert found.path.read_bytes() == body
    (tmp_path / "deep" / "er" / "renamed.bin").unlink()
    assert pull.pull(entry).source == "cache"
    found.path.unlink()
    with pytest.raises(DownloadError, match=r"mirror: another file.*no-such-host"):
        pull.pull(entry)


def test_a_mirror_that_is_not_there_does_not_matter(
    server: FaultyServer, entry: Entry, body: bytes, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.MIRROR, "/no/such/folder")
    server.answer = whole(body)
    assert pull.pull(entry, limits=limits).path.read_bytes() == body


@pytest.mark.parametrize(("exists", "said"), [(True, "has no parts.tflite"), (False, "is no folder")])
def test_a_mirror_that_did_not_help_is_named(
    exists: bool, said: str, body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "usb"
    if exists:
        folder.mkdir()
    monkeypatch.setenv(cache.MIRROR, str(folder))
    with pytest.raises(DownloadError) as caught:
        pull.pull(url_entry("https://no-such-host.invalid/parts.tflite", body=body))
    assert f"EDGE_MNV2_MIRROR={folder} {said}; https://no-such-host.invalid/parts.tflite: " in str(caught.value)


@pytest.mark.slow
def test_fifty_pulls_at_once_download_once(server: FaultyServer, body: bytes, tmp_path: Path, isolated: Path) -> None:
    server.answer = slow(body, 1.0)
    registry = team_registry(tmp_path, body, f"{server.url}/parts.tflite")
    program = """
        import sys, threading
        from edge_mnv2.zoo.pull import fetch
        def one():
            sys.stdout.write(f"{fetch('parts').stat().st_size}\\n")
        threads = [threading.Thread(target=one) for _ in range(10)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    """
    environment = {**os.environ, "EDGE_MNV2_REGISTRY": str(registry)}
    processes = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], env=environment, stdout=subprocess.PIPE)
        for _ in range(5)
    ]
    lines = [line for process in processes for line in process.communicate(timeout=60)[0].split()]
    assert lines == [str(len(body)).encode()] * 50
    assert len(server.requests) == 1


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_pull_leaves_nothing_that_is_trusted(
    kind: signal.Signals, server: FaultyServer, body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", str(team_registry(tmp_path, body, f"{server.url}/parts.tflite")))
    server.answer = slow(body, 20.0)
    process = subprocess.Popen(
        [sys.executable, "-c", "from edge_mnv2.zoo.pull import fetch; fetch('parts')"], stderr=subprocess.DEVNULL
    )
    from edge_mnv2.zoo.registry import load

    entry = load().get("parts")
    target = cache.cached_path(entry)
    part = target.with_name(".parts.tflite.part")
    deadline = time.monotonic() + 30
    while (not part.exists() or part.stat().st_size < 5000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(kind)
    assert process.wait(10) != 0
    assert not target.exists()
    assert cache.find(entry) == (None, [])
    server.answer = whole(body)
    assert pull.fetch("parts").read_bytes() == body
    assert server.requests[-1][1]["Range"].startswith("bytes=")


def test_a_waiting_pull_takes_over_from_one_that_dies(
    server: FaultyServer, body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", str(team_registry(tmp_path, body, f"{server.url}/parts.tflite")))
    server.answer = in_turn(slow(body, 20.0), whole(body))
    command = [sys.executable, "-c", "from edge_mnv2.zoo.pull import fetch; print(fetch('parts'))"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    second = subprocess.Popen(command, stdout=subprocess.PIPE)
    time.sleep(0.5)
    first.kill()
    first.wait()
    assert second.communicate(timeout=30)[0].strip()
    assert second.returncode == 0


def test_space_is_looked_at_before(server: FaultyServer, entry: Entry, limits: Limits) -> None:
    with pytest.raises(DownloadError, match=r"it needs .* [GP]B, and .* are free"):
        pull.pull(replace(entry, bytes=10**17), limits=limits)
    assert not server.requests


def test_a_disk_that_fills_up_is_said(server: FaultyServer, entry: Entry, body: bytes, limits: Limits) -> None:
    part = cache.cached_path(entry).with_name(".parts.tflite.part")
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    server.answer = whole(body)
    with pytest.raises(DownloadError, match="no space is left"):
        pull.pull(entry, limits=limits)


def test_a_cache_that_cannot_be_written(
    server: FaultyServer, entry: Entry, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_MNV2_CACHE_DIR", "/proc/self/no")
    with pytest.raises(DownloadError, match="cannot write to /proc/self/no"):
        pull.pull(entry, limits=limits)


def test_proxies_of_the_environment_are_used(
    server: FaultyServer, body: bytes, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = whole(body)
    monkeypatch.setenv("http_proxy", server.url)
    pull.pull(url_entry("http://models.invalid/parts.tflite", body=body), limits=limits)
    assert server.requests[0][0] == "http://models.invalid/parts.tflite"


def test_credentials_in_a_url_are_sent_and_never_shown(server: FaultyServer, body: bytes, limits: Limits) -> None:
    server.answer = _status(403)
    secret = server.url.replace("http://", "http://anna:s3cret@") + "/parts.tflite?token=t0ken"
    with pytest.raises(DownloadError) as caught:
        pull.pull(url_entry(secret, body=body), limits=limits)
    assert "s3cret" not in str(caught.value)
    assert "t0ken" not in str(caught.value)
    assert server.requests[0][1]["Authorization"].startswith("Basic ")


def _wheel(folder: Path, members: dict[str, bytes]) -> None:
    import zipfile

    with zipfile.ZipFile(folder / "some_models-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        info = "some_models-1.0.dist-info"
        members = {
            **members,
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: some-models\nVersion: 1.0\nRequires-Dist: torch==1.6\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in members))


PIP = {
    "good": ({"some_models/parts.tflite": None}, None),
    "no such member": ({"some_models/other.tflite": None}, "no member some_models/parts.tflite"),
    "another size": ({"some_models/parts.tflite": b"short"}, "5 bytes instead of 200008"),
    "another content": ({"some_models/parts.tflite": bytes(200_008)}, "another file came back"),
    "no such version": (None, "does not have this version"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", PIP)
def test_a_member_of_a_wheel_by_the_users_own_pip(
    case: str, body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, wanted = PIP[case]
    if members is not None:
        _wheel(tmp_path, {name: body if content is None else content for name, content in members.items()})
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    entry = replace(url_entry(body=body), sources=(PipSource("some-models==1.0", "some_models/parts.tflite"),))
    if wanted is None:
        found = pull.pull(entry)
        assert found.path.read_bytes() == body
        assert found.source == "pip some-models==1.0"
    else:
        with pytest.raises(DownloadError, match=wanted):
            pull.pull(entry)
        assert not cache.cached_path(entry).exists()
    assert not list(cache.cached_path(entry).parent.glob(".pip-*"))


def test_without_pip_the_way_out_is_named(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    entry = replace(url_entry(body=body), sources=(PipSource("some-models==1.0", "some_models/parts.tflite"),))
    with pytest.raises(DownloadError, match=r"there is no pip for .*apt install python3-pip"):
        pull.pull(entry)


def test_a_recipe_is_built_once_and_then_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edge_mnv2.errors import ModelError
    from edge_mnv2.zoo import inventory, registry
    from edge_mnv2.zoo.resolve import resolve

    entry = registry.load().get("mobilenet_v2_1.0_128_int8")
    target = cache.cached_path(entry)
    built: list[Path] = []

    def build(of: Entry, out: Path) -> None:
        built.append(out)
        out.write_bytes(b"\x1c\0\0\0TFL3" + bytes([len(built)]))
        out.with_suffix(".yaml").write_text("task: classification\n")

    with pytest.raises(DownloadError, match=f"is built, not downloaded: edge-mnv2 pull {entry.name}"):
        pull.pull(entry)
    with pytest.raises(ModelError, match="has not been built on this device yet"):
        resolve(entry.name)
    first = pull.pull(entry, build=build)
    assert (first.source, first.cached, first.path) == ("build", False, target)
    assert pull.pull(entry).cached
    found = resolve(entry.name)
    assert found.sha256 == first.sha256 and found.labels is not None and len(found.labels) == 1000
    assert len(built) == 1

    target.write_bytes(b"something else")
    with pytest.raises(ModelError, match="is damaged"):
        resolve(entry.name)
    assert pull.pull(entry, build=build).sha256 != first.sha256
    cache.built_mark(target).unlink()
    assert not pull.pull(entry, build=build).cached
    assert len(built) == 3
    monkeypatch.setenv(cache.MIRROR, str(tmp_path))
    (tmp_path / entry.file).write_bytes(b"a stranger's")
    inventory.remove(entry)
    assert [path.name for path in target.parent.iterdir()] == [f".{target.name}.lock"]
    with pytest.raises(ModelError, match="has not been built"):
        resolve(entry.name)


def test_requests_is_imported_only_where_a_url_is_asked(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "parts.tflite").write_bytes(body)
    registry = team_registry(tmp_path, body, "https://no-such-host.invalid/parts.tflite")
    program = "import sys; from edge_mnv2.zoo import pull, registry, resolve; import edge_mnv2.cli.app; "
    program += "pull.fetch('parts'); resolve.resolve('parts'); assert 'requests' not in sys.modules"
    environment = {**os.environ, "EDGE_MNV2_REGISTRY": str(registry), cache.MIRROR: str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_a_url_source_is_shown_without_credentials() -> None:
    assert str(UrlSource("https://u:p@host:8443/a/b.tflite?k=v#f")) == "https://host:8443/a/b.tflite"
