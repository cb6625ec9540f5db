"""The page in a real browser: as a visitor's phone and a desktop show it.

With `EDGE_MNV2_SCREENSHOTS=DIR` the pictures of docs/ are made anew.
"""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request
from pathlib import Path

import pytest

from tests.outputs.web.browser import Tab, chromium, tab
from tests.outputs.web.conftest import Served, serving

_SHOTS = os.environ.get("EDGE_MNV2_SCREENSHOTS")
_SHOWN = "!document.getElementById('view').hidden && document.querySelectorAll('#bars li').length > 0"
_FRAME = """(() => {
  const canvas = document.createElement('canvas');
  canvas.width = 80; canvas.height = 60;
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.drawImage(document.getElementById('view'), 0, 0, 80, 60);
  return Array.from(pen.getImageData(0, 0, 80, 60).data).join(' ');
})()"""
_SIZES = [("desktop", 1280, 900, False, False), ("phone", 390, 844, True, True)]


async def _moves(page: Tab) -> None:
    """Picture, bars and charts change by themselves."""
    await page.until(_SHOWN)
    pictures, scores, curves = set(), set(), set()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pictures.add(await page.run(_FRAME))
        scores.add(await page.run("document.getElementById('bars').textContent"))
        curves.add(await page.run("document.querySelector('#fps .curve').getAttribute('d')"))
        if len(pictures) > 2 and len(scores) > 2 and len(curves) > 1:
            return
        await asyncio.sleep(0.2)
    raise AssertionError((len(pictures), len(scores), len(curves)))


async def _fits(page: Tab) -> None:
    """Nothing sticks out sideways, and fingers find the controls."""
    assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert await page.run(
        "[...document.querySelectorAll('button:not([hidden]), .button, input')]"
        ".every(one => one.getBoundingClientRect().height >= 24)"
    )


async def _threshold_acts(page: Tab) -> None:
    """Moved by keys alone, the slider changes what is reported."""
    before = await page.run("document.querySelectorAll('#bars li').length")
    assert before == 3
    await page.run("document.getElementById('threshold').focus()")
    await page.press("End", 35)
    await page.until("document.getElementById('threshold-value').textContent === '100 %'")
    await page.until("document.querySelectorAll('#bars li').length === 0 && !document.getElementById('unsure').hidden")
    answer = await page.run("fetch('api/state').then(a => a.json())")
    assert answer["controls"]["threshold"] == 1 and answer["top"] == [] and answer["unsure"] is True
    await page.press("Home", 36)
    await page.until("document.querySelectorAll('#bars li').length === 3")


async def _pause_acts(page: Tab) -> None:
    await page.run("document.getElementById('pause').focus()")
    await page.press(" ", 32)
    await page.until("document.getElementById('state').textContent === 'paused'")
    # The frame that was being classified is counted still.
    frames = [-1]
    while len(frames) < 2 or frames[-1] != frames[-2]:
        assert len(frames) < 5, frames
        frames.append(await page.run("fetch('api/state').then(a => a.json()).then(s => s.frames)"))
        await asyncio.sleep(0.5)
    assert await page.run("document.getElementById('pause').textContent") == "Resume"
    await page.press(" ", 32)
    await page.until("document.getElementById('state').textContent === 'live'")


async def _hidden_tab_costs_nothing(page: Tab, served: Served) -> None:
    """A tab that nobody sees asks for no pictures."""
    other = await page.call("Target.createTarget", url="about:blank")
    await page.call("Target.activateTarget", targetId=other["targetId"])
    for _ in range(300):
        with urllib.request.urlopen(f"{served.url}api/state") as answer:
            if b'"viewers":0' in answer.read():
                return
        await asyncio.sleep(0.1)
    raise AssertionError("the hidden tab still gets pictures")


@pytest.mark.slow
def test_phone_and_desktop(stub: Path, tmp_path: Path) -> None:
    chromium()

    async def visit(served: Served) -> None:
        async with tab(tmp_path / "browser") as page:
            for name, width, height, dark, phone in _SIZES:
                await page.open(served.url, width, height, dark=dark, phone=phone)
                await _moves(page)
                await _fits(page)
                await _threshold_acts(page)
                await _pause_acts(page)
                await page.until("document.querySelectorAll('#events li').length > 0")
                if _SHOTS:
                    await page.screenshot(Path(_SHOTS) / f"web-{name}.png")
            assert await page.run("document.getElementById('spoken').textContent")
            assert page.complaints == []
            assert page.hosts() == {f"127.0.0.1:{served.port}"}
            await _hidden_tab_costs_nothing(page, served)

    # For docs/: a run that has been going on for some minutes, by the default model.
    model = "mobilenet_v2_1.0_224_int8" if _SHOTS else stub
    with serving(model, "--source", "test:640x360@30", "--web", "0", "--top-k", "3", "--appear", "0.25") as served:
        time.sleep(120 if _SHOTS else 0)
        asyncio.run(visit(served))


async def _drag(page: Tab, start: tuple[float, float], end: tuple[float, float], touch: bool) -> None:
    """From one place to another, in shares of the picture."""
    left, top, width, height = await page.run(
        "(b => [b.left, b.top, b.width, b.height])(document.getElementById('region').getBoundingClientRect())"
    )
    places = [(left + x * width, top + y * height) for x, y in (start, ((start[0] + end[0]) / 2, end[1]), end)]
    for place, (x, y) in enumerate(places):
        if touch:
            kind = "touchMove" if place else "touchStart"
            await page.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        else:
            kind = "mouseMoved" if place else "mousePressed"
            await page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    x, y = places[-1]
    if touch:
        await page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    else:
        await page.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)


async def _press_button(page: Tab, name: str) -> None:
    await page.until(f"!document.getElementById('{name}').hidden && !document.getElementById('{name}').disabled")
    await page.run(f"document.getElementById('{name}').click()")


async def _region(page: Tab) -> list[float]:
    """What the board classifies, after the newest change."""
    return list(await page.run("fetch('api/state').then(a => a.json()).then(s => s.roi)"))


@pytest.mark.slow
def test_a_region_is_drawn_on_the_picture(stub: Path, tmp_path: Path) -> None:
    """With a finger at phone size, with a mouse, with keys; used, seen, taken back; each time a line in the log."""
    chromium()

    async def visit(served: Served) -> None:
        async with tab(tmp_path / "browser") as page:
            for name, width, height, dark, phone in _SIZES:
                await page.open(f"{served.url}?token=open-sesame-now", width, height, dark=dark, phone=phone)
                await page.call("Emulation.setTouchEmulationEnabled", enabled=phone)
                await page.until(_SHOWN)
                assert await _region(page) == [0, 0, 1, 1]
                await page.run("window.scrollTo(0, 0)")
                await _press_button(page, "region-draw")
                assert await page.run("document.getElementById('region-use').disabled")
                await _drag(page, (0.2, 0.25), (0.7, 0.75), phone)
                # A tap changes nothing.
                await _drag(page, (0.9, 0.9), (0.9, 0.9), phone)
                await _fits(page)
                if _SHOTS:
                    await page.screenshot(Path(_SHOTS) / f"region-drawn-{name}.png")
                await _press_button(page, "region-use")
                await page.until("document.getElementById('region').hidden")
                await page.until("fetch('api/state').then(a => a.json()).then(s => s.roi[0] > 0)")
                assert await _region(page) == pytest.approx([0.2, 0.25, 0.5, 0.5], abs=0.02)
                await page.until("!document.getElementById('region-whole').hidden")
                if _SHOTS:
                    await asyncio.sleep(0.5)
                    await page.screenshot(Path(_SHOTS) / f"region-used-{name}.png")
                # With keys: to the right and wider, then left alone.
                await _press_button(page, "region-draw")
                for key, code in (("ArrowRight", 39), ("Escape", 27)):
                    await page.press(key, code)
                assert await _region(page) == pytest.approx([0.2, 0.25, 0.5, 0.5], abs=0.02)
                await _press_button(page, "region-draw")
                for key, code in (("ArrowRight", 39), ("ArrowUp", 38), ("Enter", 13)):
                    await page.press(key, code)
                await page.until("fetch('api/state').then(a => a.json()).then(s => s.roi[0] > 0.215)")
                assert await _region(page) == pytest.approx([0.22, 0.23, 0.5, 0.5], abs=0.02)
                await _press_button(page, "region-whole")
                await page.until("fetch('api/state').then(a => a.json()).then(s => s.roi[2] === 1)")
                await page.until("document.getElementById('region-whole').hidden")
            assert [one for one in page.complaints if "401" not in one] == []

    source = ("--source", "test:320x240@30")
    with serving(stub, *source, "--web", "0", "--web-token", "open-sesame-now") as served:
        asyncio.run(visit(served))
        _, said = served.stop()
    lines = [line for line in said.splitlines() if "set the region to" in line]
    assert len(lines) == 6 and all("127.0.0.1" in line for line in lines)
    assert "the whole picture" in lines[-1]


@pytest.mark.slow
def test_the_token_page_lets_in(stub: Path, tmp_path: Path) -> None:
    chromium()

    async def visit(served: Served) -> None:
        async with tab(tmp_path / "browser") as page:
            await page.open(served.url, 390, 844)
            await page.until("document.activeElement.id === 'token'")
            await page.call("Input.insertText", text="wrong")
            await page.press("Enter", 13)
            await page.until("document.querySelector('[role=alert]').textContent.includes('not the token')")
            await page.run("document.getElementById('token').focus()")
            await page.call("Input.insertText", text="open sesame")
            await page.press("Enter", 13)
            await page.until(f"document.getElementById('view') && {_SHOWN}")
            # Only the answers 401 to what had no token yet may be complained about.
            assert [one for one in page.complaints if "401" not in one] == []

    with serving(stub, "--source", "test:320x240@30", "--web", "0", "--web-token", "open sesame") as served:
        asyncio.run(visit(served))


@pytest.mark.parametrize(
    "name", ["index.html", "login.html", "app.js", "charts.js", "region.js", "app.css", "icon.svg"]
)
def test_nothing_of_the_page_points_elsewhere(name: str) -> None:
    folder = Path(__file__).parents[3] / "edge_mnv2" / "outputs" / "web" / "page"
    text = (folder / name).read_text().replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text and "https://" not in text and "//cdn" not in text
