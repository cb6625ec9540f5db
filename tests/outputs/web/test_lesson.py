"""Pictures for a lesson, taken from the page: in a real browser, and by requests alone."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from PIL import Image

from edge_mnv2 import signals
from edge_mnv2.app import lesson
from edge_mnv2.app.run import RunOutcome, RunRequest
from edge_mnv2.errors import SourceError
from edge_mnv2.outputs.live import Live
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.settings.profile import resolve
from edge_mnv2.teach.guide import Guide
from edge_mnv2.zoo.versions import versions
from tests.outputs.web.browser import Tab, chromium, tab
from tests.outputs.web.conftest import Served, serving

_SHOTS = os.environ.get("EDGE_MNV2_SCREENSHOTS")


def _lesson(folder: Path, shots: int, *more: object) -> tuple[object, ...]:
    classes = ("--class", "ok", "--class", "scratched", "--shots", shots)
    return (folder, "--camera", "test:320x240@30", *classes, "--out", folder.parent / "m.tflite", *more)


def _post(served: Served, path: str = "api/lesson", document: object = {}) -> tuple[int, dict[str, Any]]:
    content = json.dumps(document).encode()
    request = urllib.request.Request(
        served.url + path, content, {"Content-Type": "application/json", "Origin": served.url.rstrip("/")}
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "height", "phone"), [("desktop", 1280, 900, False), ("phone", 390, 844, True)]
)
def test_every_class_begins_with_the_button(tmp_path: Path, name: str, width: int, height: int, phone: bool) -> None:
    chromium()
    folder = tmp_path / "parts"

    async def visit(served: Served) -> None:
        async with tab(tmp_path / "browser") as page:
            await page.open(served.url, width, height, phone=phone)
            await _taught(page, folder, name)
            assert page.complaints == []
            assert page.hosts() == {f"127.0.0.1:{served.port}"}

    arguments = _lesson(folder, 3, "--web", "0")
    with serving("mobilenet_v2_1.0_224_int8", *arguments, command="teach", ready="ok: show it") as served:
        asyncio.run(visit(served))
        said, _ = served.end(60)
        assert served.process.returncode == 0
    assert [one["label"] for one in json.loads(said)["classes"]] == ["ok", "scratched"]
    assert len(list(folder.rglob("*.jpg"))) == 6 and (tmp_path / "m.tflite").exists()


async def _taught(page: Tab, folder: Path, name: str) -> None:
    await page.until("document.getElementById('lesson-label').textContent === 'ok'")
    await page.until("!document.getElementById('view').hidden && document.querySelectorAll('#bars li').length > 0")
    assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert await page.run("document.getElementById('controls').checkVisibility()") is False
    assert not folder.exists()
    await _shot(page, f"teach-{name}")
    await page.run("document.getElementById('lesson-go').click()")
    await page.until("document.getElementById('lesson-label').textContent === 'scratched'")
    assert len(list((folder / "ok").glob("*.jpg"))) == 3 and not (folder / "scratched").exists()
    assert "3 of 3" in await page.run("document.getElementById('lesson-taken').textContent")
    await page.run("document.getElementById('lesson-go').focus()")
    await page.press("Enter", 13)
    await page.until("document.getElementById('lesson-label').textContent === 'Try it'", timeout=180)
    assert "m.tflite" in await page.run("document.getElementById('lesson-lines').textContent")
    await _shot(page, f"taught-{name}")
    await page.run("document.getElementById('lesson-finish').click()")
    await page.until("document.getElementById('lesson-label').textContent === 'Done'")
    assert "m.tflite" in await page.run("document.getElementById('lesson-lines').textContent")
    await page.until("document.getElementById('state').textContent === 'ended'")


async def _shot(page: Tab, name: str) -> None:
    if _SHOTS:
        await page.screenshot(Path(_SHOTS) / f"{name}.png")


_THUMBNAILS = "document.querySelectorAll('#lesson-taken img').length"
_TRYING = "document.getElementById('lesson-label').textContent === 'Try it'"
_ANSWER = "document.querySelector('#bars .name')?.textContent"


@pytest.mark.slow
def test_a_lesson_is_tried_mended_taught_again_and_used(tmp_path: Path) -> None:
    """On a phone: a clip waits for the page, the new model answers live, bad pictures go, the run goes on with it."""
    chromium()
    folder, out = tmp_path / "parts", tmp_path / "m.tflite"

    async def visit(served: Served) -> None:
        async with tab(tmp_path / "browser") as page:
            await page.open(served.url, 390, 844, phone=True)
            for label in ("ok", "scratched"):
                await page.until(f"document.getElementById('lesson-label').textContent === '{label}'")
                assert await page.run("document.getElementById('lesson-go').disabled") is False
                assert not (folder / label).exists()
                await page.run("document.getElementById('lesson-go').click()")
            await page.until(_TRYING, timeout=180)
            first = out.read_bytes()
            await page.until(f"['ok', 'scratched', 'unknown'].includes({_ANSWER})")
            await page.until(f"{_THUMBNAILS} === 6 && [...document.images].every((one) => one.hidden || one.complete)")
            broken = "[...document.querySelectorAll('#lesson-taken img')].filter((one) => !one.naturalWidth).length"
            assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")
            assert await page.run("document.getElementById('lesson-again').checkVisibility()") is False
            await page.run("document.querySelector('#lesson-taken').scrollIntoView()")
            await page.until(f"{broken} === 0")
            await _shot(page, "tried-phone")

            await page.run("document.querySelector('#lesson-taken li button').click()")
            await page.until(f"{_THUMBNAILS} === 5")
            assert sorted(path.name for path in (folder / "ok").iterdir()) == ["shot_0002.jpg", "shot_0003.jpg"]
            await page.until("document.getElementById('lesson-again').checkVisibility()")
            await page.run("document.getElementById('lesson-again').click()")
            again = "document.getElementById('lesson-lines').textContent.includes('5, 0 of them held out')"
            await page.until(f"{_TRYING} && {again}", timeout=180)
            assert out.read_bytes() != first

            await page.run("document.querySelector('#lesson-taken section p button').click()")
            await page.until("document.getElementById('lesson-label').textContent === 'ok'")
            await page.run("document.getElementById('lesson-go').click()")
            await page.until(_TRYING, timeout=180)
            await page.until(f"{_THUMBNAILS} === 8")

            await page.run("document.getElementById('lesson-use').click()")
            await page.until("document.getElementById('controls').checkVisibility()")
            assert await page.run("document.getElementById('lesson').checkVisibility()") is False
            await page.until("document.getElementById('state').textContent === 'live'")
            await page.until("document.getElementById('source').textContent.includes('m.tflite')")
            await _shot(page, "used-phone")
            assert page.complaints == []

    classes = ("--class", "ok", "--class", "scratched", "--shots", 3)
    clip = (folder, "--camera", "demo", *classes, "--out", out, "--web", "0")
    waits = "ok: the source waits here"
    with serving("mobilenet_v2_1.0_224_int8", *clip, command="teach", ready=waits) as served:
        asyncio.run(visit(served))
        said, _ = served.stop()
        assert served.process.returncode == 0
    assert json.loads(said)["pictures"] == 8
    assert [one.pictures for one in versions(out)] == [6, 5, 8]


@pytest.mark.slow
def test_pictures_of_a_lesson_by_requests(tmp_path: Path) -> None:
    """Names lead nowhere but to the lesson's own pictures; without visitors a lesson ends by itself."""
    folder = tmp_path / "parts"
    (folder / "ok").mkdir(parents=True)
    Image.new("RGB", (64, 48), "red").save(folder / "ok" / "old.jpg")
    (folder / "secret.jpg").write_bytes(b"no")
    arguments = _lesson(folder, 1, "--web", "0")
    soon = {"edge_mnv2.app.lesson._LEFT_S": 0.1}
    with serving(
        "mobilenet_v2_1.0_224_int8", *arguments, command="teach", ready="ok: show it", deadlines=soon
    ) as served:
        with urllib.request.urlopen(served.url + "api/lesson/pictures") as answer:
            assert json.load(answer)["classes"][0] == {"label": "ok", "pictures": ["old.jpg"]}
        with urllib.request.urlopen(served.url + "api/lesson/picture.jpg?class=ok&file=old.jpg&small=1") as answer:
            assert answer.read(2) == b"\xff\xd8"
        for label, file in (("ok", "../secret.jpg"), ("..", "secret.jpg"), ("", "secret.jpg"), ("ok", "/etc/passwd")):
            assert _post(served, "api/lesson/delete", {"class": label, "file": file})[0] == 404
        assert _post(served, "api/lesson/delete", {"class": "ok"})[0] == 400
        for wish in ({"do": "use"}, {"do": "more", "class": "ok"}, {"do": "finish"}, {"do": "what"}):
            assert _post(served, document=wish)[0] == 409
        assert _post(served, document={"do": 3})[0] == 400
        for label in ("ok", "scratched"):
            deadline = time.monotonic() + 120
            while _post(served)[1].get("label") != label:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        said, _ = served.end(60)
        assert served.process.returncode == 0 and json.loads(said)["pictures"] == 3


@pytest.mark.slow
def test_a_lesson_that_nobody_sees_end_waits_for_a_visitor(tmp_path: Path) -> None:
    """A phone sleeps while it is learned; what came of it is there when the page is opened again."""

    def phase() -> object:
        with urllib.request.urlopen(served.url + "api/state") as answer:
            return json.load(answer)["lesson"]["phase"]

    arguments = _lesson(tmp_path / "parts", 1, "--web", "0")
    with serving("mobilenet_v2_1.0_224_int8", *arguments, command="teach", ready="ok: show it") as served:
        deadline = time.monotonic() + 60
        while phase() != "trying":
            _post(served)
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert _post(served, document={"do": "finish"})[0] == 200
        said, told = served.end(50)
        assert served.process.returncode == 0 and json.loads(said)["pictures"] == 2
        assert "60 s without a visitor" in told


def test_a_lesson_that_cannot_begin_waits_for_nobody(
    run: Callable[..., tuple[int, str, str]], stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lesson, "mend", lambda *_: pytest.fail("there is nothing to mend"))
    arguments = ("--class", "a", "--class", "b", "--web", "0", "--out", tmp_path / "t.tflite")
    code, _, err = run("teach", tmp_path / "parts", "--model", stub, "--camera", tmp_path / "none.mp4", *arguments)
    assert code == 4 and "none.mp4" in err and "without a visitor" not in err


@pytest.mark.parametrize("wish", [None, "use", "finish"])
def test_a_source_that_is_lost_while_a_model_is_tried_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: Optional[str]
) -> None:
    monkeypatch.setattr(lesson, "_LEFT_S", 0.0)
    guide, page = Guide(["ok"], 1, tmp_path), SimpleNamespace(live=Live(), viewers=1)
    offered = []

    def lost(request: RunRequest) -> RunOutcome:
        if wish is not None:
            assert guide.press(wish)
        page.viewers = 0
        return RunOutcome({}, 5, SourceError("the camera is gone"))

    def noted(lines: list[str], phase: str = "trying") -> None:
        offered.append((phase, lines))
        offer(lines, phase)

    offer = guide.offer
    monkeypatch.setattr(lesson, "run", lost)
    monkeypatch.setattr(guide, "offer", noted)
    arguments = (tmp_path / "m.tflite", ["m.tflite"], resolve("generic", {}), "test", OutputValues(), page, guide)
    if wish == "use":
        with pytest.raises(SourceError, match="the camera is gone"):
            lesson.try_model(*arguments)
        return
    assert lesson.try_model(*arguments) == ("finish", None)
    said = [("untried", ["the camera is gone", "m.tflite"])]
    assert offered == [("trying", ["m.tflite"]), *(said if wish is None else ())]


def test_a_signal_ends_the_wait_after_a_model_that_cannot_be_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide, page = Guide(["ok"], 1, tmp_path), SimpleNamespace(live=Live(), viewers=1)

    def lost(request: RunRequest) -> RunOutcome:
        return RunOutcome({}, 5, SourceError("the camera is gone"))

    def interrupted(_seconds: float) -> None:
        raise signals.Interrupted

    monkeypatch.setattr(lesson, "run", lost)
    monkeypatch.setattr(lesson, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupted))
    arguments = (tmp_path / "m.tflite", ["m.tflite"], resolve("generic", {}), "test", OutputValues(), page, guide)
    assert lesson.try_model(*arguments) == ("finish", None)


@pytest.mark.slow
def test_what_cannot_be_pressed_is_said(tmp_path: Path, stub: Path) -> None:
    with serving(stub, "--source", "test", "--web", "0") as run:
        assert _post(run) == (404, {"error": "nothing is taught here: `edge-mnv2 teach --camera --web` does"})
    folder = tmp_path / "parts"
    arguments = _lesson(folder, 500, "--web", "0")
    with serving("mobilenet_v2_1.0_224_int8", *arguments, command="teach", ready="ok: show it") as served:
        status, begun = _post(served)
        assert (status, begun["label"], begun["shots"]) == (200, "ok", 500)
        deadline = time.monotonic() + 120
        while len(list(folder.glob("ok/*.jpg"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert _post(served) == (409, {"error": "no class waits for its pictures now"})
        _, said = served.stop()
        assert served.process.returncode == 130
        assert f"pictures are in {folder}" in said and "Traceback" not in said


def test_who_may_see_a_lesson(run, tmp_path: Path) -> None:
    arguments = _lesson(tmp_path / "parts", 1)
    code, _, said = run("teach", *arguments, "--web", "0.0.0.0:0", "--web-token", "short")
    assert code == 2 and "--web-token" in said
    code, _, said = run("teach", tmp_path, "--web", "0")
    assert code == 2 and "teach --camera" in said
    code, _, said = run("teach", *arguments, "--web-open")
    assert code == 2 and "needs --web" in said
