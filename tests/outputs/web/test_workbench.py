"""The page as a workbench: what visitors may and may not do, and the whole way of a picture in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import cv2
import numpy as np
import pytest

from edge_mnv2.app.board_models import remember_in_use
from edge_mnv2.app.workbench import ModelWorkbench
from edge_mnv2.datasets.collection import Answer, Collection
from edge_mnv2.outputs.live import Live
from edge_mnv2.outputs.web.address import Access, Address
from edge_mnv2.outputs.web.pages import _OPEN as OPEN
from edge_mnv2.outputs.web.pages import Pages
from edge_mnv2.outputs.web.server import WebServer
from edge_mnv2.outputs.web.workbench import WorkbenchPages
from tests.outputs.web.browser import Tab, tab
from tests.outputs.web.conftest import Served, serving
from tests.processes import until

DEFAULT = "mobilenet_v2_1.0_224_int8"
TOKEN = "correct-horse-battery"
_SHOTS = os.environ.get("EDGE_MNV2_SCREENSHOTS")


def add(collection: Collection, jpeg: bytes, label: str = "cup", value: float = 0.5) -> str:
    top = [{"label": label, "index": 1, "score": 0.4}]
    item = collection.add(jpeg, t="2026-11-29T10:00:00Z", why=["low score"], value=value, top=top, model="m")
    assert item is not None
    return item.id


def jpeg(seed: int, size: int = 96) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", pixels)[1].tobytes())


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    collection = Collection(folder)
    for seed in range(5):
        add(collection, jpeg(seed), "<img src=x onerror=alert(1)>" if seed == 0 else "cup")
    return folder


@pytest.fixture(scope="module")
def served(collected: Path) -> Iterator[Served]:
    source = ("--source", "test:320x240@10")
    with serving(DEFAULT, *source, "--collect", collected, "--web", 0, "--web-token", TOKEN) as run:
        yield run


def ask(
    run: Served,
    path: str,
    document: Any = None,
    *,
    token: Optional[str] = TOKEN,
    data: Optional[bytes] = None,
    kind: str = "application/json",
) -> tuple[int, Any]:
    """(status, what was answered)."""
    content = json.dumps(document).encode() if document is not None else data
    headers = {"Content-Type": kind} if content is not None else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(run.url.rstrip("/") + path, content, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, said, said_kind = answer.status, answer.read(), answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        status, said, said_kind = error.code, error.read(), error.headers.get_content_type()
    return status, json.loads(said) if said_kind == "application/json" else said


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/review", None),
        ("/api/collected", None),
        ("/api/workbench", None),
        ("/api/answers", {"ids": [], "class": "x"}),
        ("/api/collected/delete", {"all": True}),
        ("/api/teach", {}),
        ("/api/model", {"model": "original"}),
        ("/api/roi", {"roi": None}),
        ("/api/classify", {"x": 1}),
    ],
)
def test_without_the_token_nothing_is_shown_or_changed(served: Served, path: str, document: Any) -> None:
    assert ask(served, path, document, token=None)[0] == 401
    assert len(ask(served, "/api/collected")[1]["items"]) >= 5


def _routes() -> list[tuple[str, str]]:
    """Every (method, path) of the page that shows or changes something of the run; new ones too."""
    pages = Pages(Live(), Access(TOKEN, 80))
    try:
        resources = pages.application().router.routes()
        routes = {(route.method, route.resource.canonical) for route in resources if route.resource is not None}
    finally:
        pages.close()
    return sorted(route for route in routes if route[1] not in OPEN)


def test_no_route_at_all_answers_without_the_token(served: Served, collected: Path) -> None:
    """Nor with the session of somebody who was led here by another site."""

    def everything() -> Any:
        kept = [(item.id, item.answer) for item in Collection(collected).items()]
        bench, state = ask(served, "/api/workbench")[1], ask(served, "/api/state")[1]
        return kept, bench["model"], bench["teaching"]["state"], state["roi"], state["controls"]

    routes, identity = _routes(), Collection(collected).items()[0].id
    assert len(routes) >= 25 and ("POST", "/api/roi") in routes and ("GET", "/api/collected/{id}.jpg") in routes
    document = json.dumps({"ids": [identity], "class": "x", "all": True, "roi": [0, 0, 0.5, 0.5], "model": "original"})
    before = everything()
    cookie = _session(served)
    for method, path in routes:
        place = path.replace("{id}", identity)
        headers = {"Content-Type": "application/json"} if method == "POST" else {}
        assert _status(served, method, place, document, headers) == 401, path
        if method == "POST":
            forged = {**headers, "Cookie": cookie, "Origin": "http://elsewhere.example"}
            assert _status(served, method, place, document, forged) == 403, path
    assert everything() == before


def _session(run: Served) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", run.port)
    connection.request("GET", f"/?token={TOKEN}")
    return str(connection.getresponse().headers["Set-Cookie"]).partition(";")[0]


def _status(run: Served, method: str, path: str, document: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=20)
    connection.request(method, path, document if method == "POST" else None, headers)
    answer = connection.getresponse()
    if method != "HEAD":
        assert b"items" not in answer.read()
    connection.close()
    return answer.status


def test_pictures_are_had_by_their_names_alone(served: Served, collected: Path) -> None:
    identity = Collection(collected).items()[0].id
    assert ask(served, f"/api/collected/{identity}.jpg", token=None)[0] == 401
    status, whole = ask(served, f"/api/collected/{identity}.jpg")
    assert status == 200 and whole.startswith(b"\xff\xd8")
    status, small = ask(served, f"/api/collected/{identity}.jpg?small")
    assert status == 200 and cv2.imdecode(np.frombuffer(small, np.uint8), 1) is not None
    for name in ("..%2f..%2findex", "..%2findex.jsonl%00", "0" * 16, "%2e%2e/index", "index"):
        assert ask(served, f"/api/collected/{name}.jpg")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", "/api/collected/../../../etc/passwd.jpg", headers={"Authorization": f"Bearer {TOKEN}"})
    assert connection.getresponse().status == 404


def test_answers_are_noted_and_taken_back(served: Served, collected: Path) -> None:
    ids = [item.id for item in Collection(collected).items()][:2]
    assert ask(served, "/api/answers", {"ids": ids, "class": "my cup"}) == (200, {"answered": 2})
    assert [item.answer for item in Collection(collected).items()][:2] == [Answer("my cup")] * 2
    assert ask(served, "/api/answers", {"ids": ids[:1], "class": "cafe\u0301"})[0] == 200
    assert Collection(collected).items()[0].answer == Answer("caf\xe9"), "one letter, however it is typed"
    assert ask(served, "/api/answers", {"ids": ids[:1], "class": None})[0] == 200
    assert ask(served, "/api/answers", {"ids": ids[1:], "undo": True})[0] == 200
    assert [item.answer for item in Collection(collected).items()][:2] == [Answer(None), None]


@pytest.mark.parametrize(
    "document",
    [
        {"ids": "x", "class": "a"},
        {"ids": [1], "class": "a"},
        {"ids": []},
        {"ids": [], "class": 5},
        {"ids": [], "class": ""},
        {"ids": [], "class": "a/b"},
        {"ids": [], "class": "../x"},
        {"ids": [], "class": ".hidden"},
        {"ids": [], "class": "x" * 101},
        {"ids": [], "class": "a\u202eb"},
        {"ids": [], "class": "a\nb"},
        {"ids": [], "class": "Unknown"},
        {"ids": [], "class": " background "},
    ],
)
def test_answers_that_cannot_be(served: Served, document: Any) -> None:
    status, said = ask(served, "/api/answers", document)
    assert status == 400 and said["error"]


def bomb() -> bytes:
    """A PNG of a few bytes that is 30,000 pixels wide and high."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.slow
def test_sizes_and_kinds_and_rates_are_limited(served: Served) -> None:
    assert ask(served, "/api/answers", data=b"ids=1", kind="application/x-www-form-urlencoded")[0] == 415
    assert ask(served, "/api/answers", data=b"[" * 100_000)[0] == 400
    assert ask(served, "/api/answers", data=b"x" * 1_100_000)[0] == 413
    status, said = ask(served, "/api/classify", data=b"no picture", kind="image/jpeg")
    assert status == 415 and said["error"].startswith("picture ")
    status, said = ask(served, "/api/classify", data=bomb(), kind="image/png")
    assert status == 413 and "30000x30000" in said["error"]
    assert ask(served, "/api/classify", data=b"x", kind="text/html")[0] == 415
    # Three at once, so that a slow machine sends them faster than they may come.
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: ask(served, "/api/classify", data=jpeg(1), kind="image/jpeg"), range(40)))
    assert {status for status, _ in answers} <= {200, 429}
    assert any("pictures a second" in said.get("error", "") for _, said in answers)
    time.sleep(1)
    status, said = ask(served, "/api/classify", data=jpeg(1), kind="image/jpeg")
    assert status == 200 and {"file", "top", "inference_ms"} == set(said)
    boundary = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + jpeg(2) + b"\r\n--x--\r\n"
    )
    status, said = ask(served, "/api/classify", data=boundary, kind="multipart/form-data; boundary=x")
    assert status == 200 and said["file"] == "a.jpg"


def test_a_model_of_no_list_is_not_opened(served: Served) -> None:
    for name in ("/etc/passwd", "version:99", "nothing"):
        assert ask(served, "/api/model", {"model": name})[0] == 409
    assert ask(served, "/api/roi", {"roi": [0, 0, 2, 2]})[0] == 409
    for roi, shown in (([0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]), (None, [0, 0, 1, 1])):
        assert ask(served, "/api/roi", {"roi": roi})[0] == 200
        until(lambda shown=shown: ask(served, "/api/state")[1]["roi"] == shown)


@pytest.mark.slow
def test_two_thousand_pictures_answer_at_once(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    lines = []
    looks = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float16)
    import base64

    for number in range(2000):
        identity = f"{number:016x}"
        (tmp_path / "pictures" / f"{identity}.jpg").write_bytes(jpeg(number % 7, 48))
        look = looks[number] / np.linalg.norm(looks[number].astype(float))
        lines.append(
            json.dumps(
                {
                    "id": identity,
                    "t": "2026-11-29T10:00:00Z",
                    "why": ["low score"],
                    "value": 0.5,
                    "top": [{"label": "cup", "index": 1, "score": 0.4}],
                    "model": "m",
                    "bytes": 1000,
                    "look": base64.b64encode(look.astype(np.float16).tobytes()).decode(),
                }
            )
        )
    (tmp_path / "index.jsonl").write_text("\n".join(lines) + "\n")
    assert len(collection.items()) == 2000
    command = [sys.executable, "-m", "edge_mnv2", "review", str(tmp_path), "--web", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        served = Served(process, url, "")
        assert len(ask(served, "/api/collected", token=None)[1]["items"]) == 2000
        times = []
        for _ in range(5):
            began = time.monotonic()
            ask(served, "/api/collected", token=None)
            times.append(time.monotonic() - began)
        assert min(times) < 0.2

        async def look_at_it() -> None:
            async with tab(tmp_path / "browser") as page:
                await page.open(f"{url}review", 390, 844, phone=True)
                await page.until("document.querySelectorAll('.tile').length === 2000")
                assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")
                loaded = await page.run("[...document.images].filter(one => one.complete && one.naturalWidth).length")
                assert loaded < 400
                # Far below, pictures come as they come near.
                await page.run("window.scrollTo(0, 30000)")
                box = "one.getBoundingClientRect()"
                near = f"((one) => {box}.bottom > 0 && {box}.top < innerHeight)"
                shown = f"[...document.querySelectorAll('.tile img')].filter({near})"
                await page.until(f"{shown}.length > 10 && {shown}.every((one) => one.complete && one.naturalWidth)")

        asyncio.run(look_at_it())
    finally:
        process.kill()
        process.communicate()


def photographs(data: Path, kinds: tuple[str, ...], number: int) -> dict[str, list[Path]]:
    with (data / "imagenet-dev" / "groups.csv").open() as table:
        rows = list(csv.DictReader(table))
    return {
        kind: [data / "imagenet-dev" / row["file"] for row in rows if row["group"] == kind][:number] for kind in kinds
    }


@pytest.mark.slow
def test_from_an_unknown_object_to_a_model_that_knows_it_and_back(data: Path, tmp_path: Path) -> None:
    """Collected, answered, taught, tried, taken, stepped back: by a person with a phone."""
    collection = Collection(tmp_path / "collected")
    names = {}
    for kind, paths in photographs(data, ("dog", "bird"), 6).items():
        for path in paths:
            names[add(collection, path.read_bytes(), kind)] = kind
    run = serving(DEFAULT, "--source", "test:320x240@10", "--collect", tmp_path / "collected", "--web", 0)
    with run as served:

        async def whole_way() -> None:
            async with tab(tmp_path / "browser") as page:
                await page.open(f"{served.url}review", 390, 844, phone=True)
                await page.until("document.querySelectorAll('.tile').length >= 12")
                await answer_all(page, names)
                await page.until("!document.getElementById('teach').hidden")
                await page.run("document.getElementById('teach').click()")
                await page.until("!document.getElementById('use').hidden", 120)
                assert await page.run("document.querySelectorAll('#report tr').length") == 4
                await shot(page, "review-phone")
                await page.run("document.getElementById('use').click()")
                await page.until("document.getElementById('model').textContent === 'taught.tflite'")
                await page.until("[...document.querySelectorAll('#versions strong')].length === 1")
                await page.until("fetch('api/state').then(a => a.json()).then(s => s.model.startsWith('taught'))")
                await page.run(
                    "fetch('api/model', {method: 'POST', headers: {'Content-Type': 'application/json'},"
                    " body: JSON.stringify({model: 'original'})})"
                )
                await page.until("document.getElementById('model').textContent !== 'taught.tflite'")
                assert page.complaints == []

        asyncio.run(whole_way())
        out, _ = served.stop()
        summary = json.loads(out)
        assert summary["swaps"] == 2 and summary["write_errors"] == 0


async def answer_all(page: Tab, names: dict[str, str]) -> None:
    """Tap the pictures of each kind and name the class."""
    for kind in sorted(set(names.values())):
        wanted = json.dumps([identity for identity, of in names.items() if of == kind])
        await page.run(
            f"(() => {{ const ids = {wanted}; for (const tile of document.querySelectorAll('.tile'))"
            " if (ids.some((id) => tile.querySelector('img').src.includes(id))) tile.click(); })()"
        )
        await page.run(f"document.getElementById('new-name').value = '{kind}'")
        await page.run("document.querySelector('#new-class button').click()")
        await page.until(
            f"[...document.querySelectorAll('#classes button')].some(b => b.textContent.startsWith('{kind}'))"
        )
        await page.until("document.getElementById('chosen').textContent.startsWith('Tap')")


async def shot(page: Tab, name: str) -> None:
    if _SHOTS:
        await page.screenshot(Path(_SHOTS) / f"{name}.png")


def test_a_listing_is_never_that_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answered twice between two looks: an object that is gone leaves its place in memory to another one."""
    monkeypatch.setattr("edge_mnv2.outputs.web.workbench.id", lambda _: 1, raising=False)
    collection = Collection(tmp_path)
    identity = add(collection, jpeg(1, 16))
    pages = WorkbenchPages(lambda: None)
    for name in ("cup", "plate"):
        collection.answer([identity], Answer(name))
        (row,) = json.loads(pages._list(collection))["items"]
        assert row["answer"]["class"] == name
    collection.delete()
    assert json.loads(pages._list(collection))["items"] == []


def test_pictures_to_delete_are_named_in_a_list(served: Served, collected: Path) -> None:
    number = len(Collection(collected).items())
    for ids in (5, "x", {"a": 1}, [1], [None]):
        assert ask(served, "/api/collected/delete", {"ids": ids})[0] == 400
    extra = add(Collection(collected), jpeg(99))
    assert ask(served, "/api/collected/delete", {"ids": [extra, extra, "0" * 16]}) == (200, {"deleted": 1})
    assert len(Collection(collected).items()) == number


@pytest.mark.slow
def test_many_pictures_at_once_do_not_fill_the_memory(served: Served) -> None:
    time.sleep(2)
    statm = Path(f"/proc/{served.process.pid}/statm")
    before = int(statm.read_text().split()[1])
    visitors = []
    for _ in range(12):
        visitors.append(socket.create_connection(("127.0.0.1", served.port)))
        visitors[-1].settimeout(5)
        head = f"POST /api/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
        visitors[-1].sendall(f"{head}Content-Type: image/jpeg\r\nContent-Length: 19000000\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            visitors[-1].sendall(b"\xff" * 18_000_000)
        time.sleep(0.05)
    grown = (int(statm.read_text().split()[1]) - before) * os.sysconf("SC_PAGE_SIZE")
    for one in visitors:
        one.close()
    assert grown < 100_000_000
    until(lambda: ask(served, "/api/classify", data=jpeg(1), kind="image/jpeg")[0] != 429)


def test_the_page_answers_while_several_wait_for_a_model() -> None:
    go, begun, asked = threading.Event(), threading.Event(), list[str]()

    def swap(model: str, _force: bool) -> dict[str, object]:
        asked.append(model)
        begun.set()
        go.wait(60)
        return {"taken": True, "model": model}

    live = Live()
    live.workbench = SimpleNamespace(swap=swap, document=lambda: {"model": "here"})  # type: ignore[assignment]
    server = WebServer(live, Address("127.0.0.1", 0))
    run: Any = SimpleNamespace(url=server.url)
    answers: list[tuple[int, Any]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(run, "/api/model", {"model": "x@latest"}, token=None)))
        for _ in range(5)
    ]
    try:
        for thread in threads:
            thread.start()
        assert begun.wait(20)
        for _ in range(3):
            assert ask(run, "/api/workbench", token=None)[1] == {"model": "here"}
            time.sleep(0.2)
        assert asked == ["x@latest"]
        go.set()
        for thread in threads:
            thread.join(20)
        assert [status for status, _ in answers] == [200] * 5 and len(asked) == 5
    finally:
        go.set()
        server.close()


@pytest.mark.slow
def test_a_key_answers_what_its_button_says(tmp_path: Path) -> None:
    """However the classes would be ordered by now."""
    collection = Collection(tmp_path / "c")
    ids = [add(collection, jpeg(seed, 16)) for seed in range(3)]
    live = Live()
    live.workbench = ModelWorkbench(collection, None)
    server = WebServer(live, Address("127.0.0.1", 0))

    async def by_keys() -> None:
        async with tab(tmp_path / "browser") as page:
            await page.open(f"{server.url}review", 1200, 800)
            await page.until("document.querySelectorAll('.tile').length === 3")
            await page.until("document.getElementById('teach-text').textContent !== ''")
            await asyncio.sleep(0.2)
            for name in ("first", "second"):
                await page.run(f"document.getElementById('new-name').value = '{name}'")
                await page.run("document.querySelector('#new-class button').click()")
            for identity, key in ((ids[2], 2), (ids[0], 1)):
                await page.run(
                    "(one => (one.focus(), one.click()))"
                    f"(document.querySelector('.tile img[src*=\"{identity}\"]').closest('button'))"
                )
                press = f"new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}})"
                await page.run(f"document.body.dispatchEvent({press})")
                await page.until("document.getElementById('chosen').textContent.startsWith('Tap')")
                # Whoever goes by keyboard stays where the answered picture was.
                assert await page.run("document.activeElement.matches('.tile')")

    try:
        asyncio.run(by_keys())
    finally:
        server.close()
    answers = {item.id: item.answer for item in collection.items()}
    assert answers == {ids[0]: Answer("first"), ids[1]: None, ids[2]: Answer("second")}


@pytest.mark.slow
def test_a_review_shows_the_model_that_the_next_run_begins_with(tmp_path: Path, stub: Path) -> None:
    add(Collection(tmp_path), jpeg(1))
    (tmp_path / "taught").mkdir()
    (tmp_path / "taught" / "taught.tflite").write_bytes(stub.read_bytes())
    remember_in_use(tmp_path, DEFAULT, taught=True)
    command = [sys.executable, "-m", "edge_mnv2", "review", str(tmp_path), "--web", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        served = Served(process, process.stderr.readline().split()[-1], "")
        assert ask(served, "/api/workbench", token=None)[1]["model"] == "taught.tflite"
        tried = ask(served, "/api/classify", data=jpeg(1), kind="image/jpeg", token=None)[1]
        assert {one["label"] for one in tried["top"]} == {"0", "1", "2"}
    finally:
        process.kill()
        process.communicate()
