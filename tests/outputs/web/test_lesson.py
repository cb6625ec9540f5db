"""Pictures for a lesson, taken from the page: in a real browser, and by requests alone."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.outputs.web.browser import Tab, chromium, tab
from tests.outputs.web.conftest import Served, serving

_SHOTS = os.environ.get("EDGE_MNV2_SCREENSHOTS")


def _lesson(folder: Path, shots: int, *more: object) -> tuple[object, ...]:
    classes = ("--class", "ok", "--class", "scratched", "--shots", shots)
    return (folder, "--camera", "test:320x240@30", *classes, "--out", folder.parent / "m.tflite", *more)


def _post(served: Served, path: str = "api/lesson") -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        served.url + path, b"{}", {"Content-Type": "application/json", "Origin": served.url.rstrip("/")}
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
        said, _ = served.process.communicate(timeout=60)
        assert served.process.returncode == 0
    assert [one["label"] for one in json.loads(said)["classes"]] == ["ok", "scratched"]
    assert len(list(folder.rglob("*.jpg"))) == 6 and (tmp_path / "m.tflite").exists()


async def _taught(page: Tab, folder: Path, name: str) -> None:
    await page.until("document.getElementById('lesson-label').textContent === 'ok'")
    await page.until("!document.getElementById('view').hidden && document.querySelectorAll('#bars li').length > 0")
    assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert await page.run("document.getElementById('controls').checkVisibility()") is False
    assert not folder.exists()
    if _SHOTS:
        await page.screenshot(Path(_SHOTS) / f"teach-{name}.png")
    await page.run("document.getElementById('lesson-go').click()")
    await page.until("document.getElementById('lesson-label').textContent === 'scratched'")
    assert len(list((folder / "ok").glob("*.jpg"))) == 3 and not (folder / "scratched").exists()
    assert "3 of 3" in await page.run("document.getElementById('lesson-taken').textContent")
    await page.run("document.getElementById('lesson-go').focus()")
    await page.press("Enter", 13)
    await page.until("document.getElementById('lesson-label').textContent === 'Done'", timeout=60)
    assert "m.tflite" in await page.run("document.getElementById('lesson-lines').textContent")
    assert await page.run("document.getElementById('state').textContent") == "ended"
    if _SHOTS:
        await page.screenshot(Path(_SHOTS) / f"taught-{name}.png")


@pytest.mark.slow
def test_what_cannot_be_pressed_is_said(tmp_path: Path, stub: Path) -> None:
    with serving(stub, "--source", "test", "--web", "0") as run:
        assert _post(run) == (404, {"error": "nothing is taught here: edge-mnv2 teach --camera --web does"})
    folder = tmp_path / "parts"
    arguments = _lesson(folder, 500, "--web", "0")
    with serving("mobilenet_v2_1.0_224_int8", *arguments, command="teach", ready="ok: show it") as served:
        status, begun = _post(served)
        assert (status, begun["label"], begun["shots"]) == (200, "ok", 500)
        deadline = time.monotonic() + 30
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
