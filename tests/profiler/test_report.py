"""The page of a profile, as data and in a real browser."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edge_mnv2.html_report import write_page
from edge_mnv2.profiler.profiled import Profiled
from edge_mnv2.profiler.report import render
from edge_mnv2.profiler.session import Request, profile
from edge_mnv2.profiler.soak import Point, Soak
from edge_mnv2.settings.profile import resolve
from tests.outputs.web.browser import Tab, chromium, tab

_SIZES = [("desktop", 1280, 900, False, False), ("phone", 390, 844, True, True)]
_SECTIONS = (
    "Latency",
    "Settings compared",
    "Throughput against latency",
    "Capture sizes",
    "Operators",
    "Soak",
    "The board",
)
_CHARTS = (
    "Latency distribution",
    "Cost by setting",
    "Throughput against latency",
    "Time by operator",
    "Frame rate over time",
    "Temperature over time",
    "CPU clock over time",
    "Power over time",
)


@pytest.fixture
def found(stub: Path) -> Profiled:
    """A profile of everything; its soak is one of a board that throttles."""
    settings = resolve("generic", {"runtime.model": (str(stub), "command line")})
    result = profile(Request(settings, [str(stub)], sweep=True, operators=True, seconds=0.5))
    result.soak = Soak(
        [
            Point(float(second), 60 - second, 5.0, 60.0 + second, 1800 - 20 * second, words, 4.0 + second / 10)
            for second in range(1, 31)
            for words in ((("throttled",) if second > 20 else ()),)
        ],
        1200,
        30.0,
    )
    result.notes.append("<script>alert('a note')</script>")
    return result


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, object]]) -> None:
        self.tags.add(tag)
        wanted = ("src", "href", "xlink:href", "srcset", "action")
        self.found += [(tag, str(value)) for name, value in attrs if name in wanted]


def test_the_page_holds_everything_and_asks_for_nothing(found: Profiled, tmp_path: Path) -> None:
    write_page(tmp_path / "out.html", render(found))
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.glob("*.html")] == ["out.html"]
    assert all(f"<h2>{title}</h2>" in text for title in _SECTIONS)
    assert all(f'aria-label="{title}"' in text for title in _CHARTS)
    links = _Links()
    links.feed(text)
    assert "script" not in links.tags and "&lt;script&gt;alert" in text
    assert all(target.startswith("#") for _, target in links.found), links.found
    assert not re.search(r"url\(\s*['\"]?(?!#)|@import", text)
    assert "throttled after 0:21 at 81.0 °C" in text
    assert re.search(r"· \d{4}-\d\d-\d\d \d\d:\d\d UTC<", text), "a date as people write it"


def test_a_page_without_sweep_operators_and_soak(stub: Path) -> None:
    settings = resolve("generic", {"runtime.model": (str(stub), "command line")})
    text = render(profile(Request(settings, seconds=0.3)))
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == ["Latency", "The board"]


async def _shows_its_charts(page: Tab) -> None:
    titles = await page.run("[...document.querySelectorAll('svg')].map(one => one.getAttribute('aria-label'))")
    assert titles == list(_CHARTS)
    drawn = await page.run(
        "[...document.querySelectorAll('svg')].map(svg => [svg.getBoundingClientRect().width,"
        "[...svg.querySelectorAll('.series rect, .series path, .series circle')]"
        ".filter(one => one.getBoundingClientRect().width > 0).length])"
    )
    assert all(width > 300 and shapes >= 2 for width, shapes in drawn), drawn
    # Text that a person can read, in the colour of the page's own.
    heights = await page.run(
        "[...document.querySelectorAll('svg text')].filter(one => one.textContent.trim())"
        ".map(one => one.getBoundingClientRect().height).filter(height => height > 0)"
    )
    assert heights and min(heights) > 7, min(heights)
    # Everything wide scrolls in a box of its own, whose edge shows it.
    shade = await page.run("getComputedStyle(document.querySelector('.scroll')).backgroundAttachment")
    assert shade == "local, local, scroll, scroll"
    assert await page.run("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.slow
def test_in_a_browser(found: Profiled, tmp_path: Path) -> None:
    chromium()
    target = tmp_path / "out.html"
    write_page(target, render(found))

    async def look() -> None:
        async with tab(tmp_path / "browser") as page:
            for _, width, height, phone, dark in _SIZES:
                await page.open(target.as_uri(), width, height, dark=dark, phone=phone)
                await _shows_its_charts(page)
            assert set(page.requests) == {target.as_uri()}
            assert page.complaints == []

    (tmp_path / "browser").mkdir()
    asyncio.run(look())
