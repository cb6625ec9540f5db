"""The pictures of README and docs, taken of the product at work: `python -m tests.pictures` writes them to `docs/`.

Needs Chromium and tmux. The terminal's picture is what tmux shows, drawn by the browser.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from html import escape
from pathlib import Path

from PIL import Image

from edge_mnv2.runtime.contest import SWITCH as CONTEST
from tests.outputs.web.browser import tab
from tests.processes import until

DOCS = Path(__file__).parent.parent / "docs"
COLUMNS, LINES = 100, 26
_COLUMN, _MARGIN = 9.04, 18
"""Pixels of a letter of the terminal's picture, and beside its lines."""
_ANSI = {"1": "font-weight:bold", "31": "color:#ff7b72", "32": "color:#7ee787", "33": "color:#e3b341",
         "36": "color:#76e3ea"}  # fmt: skip
_STYLE = (
    f"body{{margin:0;background:#0d1117}}pre{{margin:0;padding:14px {_MARGIN}px;width:max-content;color:#e6edf3;"
    "font:15px/20px 'DejaVu Sans Mono',monospace}"
)
_CAT = "document.querySelector('.bars, main, body').innerText.match(/Recognized\\s+Egyptian cat/)"
"""The page and the picture show the same for some seconds, in the middle of the clip."""


def program(folder: Path) -> dict[str, str]:
    """The environment in which `edge-mnv2` is this tree, with a home of its own."""
    (folder / "bin").mkdir()
    command = folder / "bin/edge-mnv2"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m edge_mnv2 "$@"\n')
    command.chmod(0o755)
    names = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_MNV2_")}
    path = f"{command.parent}:{os.environ['PATH']}"
    ours = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(DOCS.parent), "PATH": path}
    # The default install has no other runtime to compare LiteRT with.
    return {**names, **ours, CONTEST: "off"}


def terminal(command: str, ready: str, environment: dict[str, str]) -> str:
    """What a terminal shows a second after `ready` is to be read there, once `command` was typed, as HTML."""
    tmux = ["tmux", "-L", "edge-mnv2-pictures", "-f", "/dev/null"]
    shell = f"printf '$ {command}\\n'; {command}; sleep 60"
    size = ["-x", str(COLUMNS), "-y", str(LINES)]
    subprocess.run([*tmux, "new-session", "-d", *size, "sh", "-c", shell], env=environment, check=True)
    try:
        capture = [*tmux, "capture-pane", "-p", "-e"]
        until(lambda: ready in subprocess.check_output(capture, text=True))
        time.sleep(1)
        shown = subprocess.check_output(capture, text=True)
    finally:
        subprocess.run([*tmux, "kill-session"], check=False)
    return f"<style>{_STYLE}</style><pre>{coloured(shown.rstrip())}</pre>"


def coloured(text: str) -> str:
    """ANSI colours as spans."""
    parts, styles = [], []
    for piece in re.split(r"(\x1b\[[\d;]*m)", text):
        match = re.fullmatch(r"\x1b\[([\d;]*)m", piece)
        if match is None:
            span = f'<span style="{";".join(styles)}">' if styles else ""
            parts.append(f"{span}{escape(piece)}{'</span>' if styles else ''}")
        elif match[1] in ("", "0", "39", "49", "39;49"):
            styles = []
        elif match[1].startswith("38;5;"):
            styles = [*styles, "color:#484f58"]
        else:
            styles += [_ANSI[code] for code in match[1].split(";") if code in _ANSI]
    return "".join(parts)


async def take(folder: Path, url: str, target: Path, width: int, height: int, ready: str = "true", **how: bool) -> None:
    async with tab(folder / f"profile-{target.stem}") as page:
        await page.open(url, width, height, **how)
        await page.until(ready)
        await asyncio.sleep(1)
        shot = await page.screenshot()
    keep(shot, target)


def keep(shot: bytes, target: Path) -> None:
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(128).save(target, optimize=True)
    print(f"{target}: {target.stat().st_size} bytes")


async def pictures(folder: Path) -> None:
    environment = program(folder)
    page = folder / "terminal.html"
    shown = terminal("edge-mnv2 run --source demo", "Egyptian cat", environment)
    page.write_text(shown, encoding="utf-8")
    width = round(COLUMNS * _COLUMN) + 2 * _MARGIN
    await take(folder, page.as_uri(), DOCS / "terminal.png", width, 30 + 20 * (shown.count("\n") + 1))

    run = subprocess.Popen(
        ["edge-mnv2", "run", "--source", "demo", "--loop", "--web", "8087"],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await asyncio.sleep(6)
        for name, width, height, phone in (("web-desktop", 1280, 800, False), ("web-phone", 390, 780, True)):
            target = DOCS / f"{name}.png"
            await take(folder, "http://127.0.0.1:8087/", target, width, height, _CAT, dark=phone, phone=phone)
    finally:
        run.terminate()
        run.wait(20)

    await lesson(folder, environment)

    report = folder / "report.html"
    command = ["edge-mnv2", "profile", "--sweep", "--duration", "20", "--report", str(report)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    await take(folder, report.as_uri(), DOCS / "profile-report.png", 1100, 1000)


async def lesson(folder: Path, environment: dict[str, str]) -> None:
    """The page of `teach` on a phone, with the answers of the new model."""
    classes = ["--class", "cup", "--class", "cat", "--shots", "7"]
    command = ["edge-mnv2", "teach", "--camera", "demo", *classes, "--web", "8088"]
    teach = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    go, label = "document.getElementById('lesson-go')", "document.getElementById('lesson-label').textContent"
    try:
        async with tab(folder / "profile-lesson") as page:
            await asyncio.sleep(6)
            await page.open("http://127.0.0.1:8088/", 390, 844, phone=True)
            for name in classes[1:4:2]:
                await page.until(f"{label} === '{name}'")
                await page.run(f"{go}.click()")
            trying = f"{label} === 'Try it' && document.querySelector('#bars .name')?.textContent === 'cat'"
            await page.until(trying, timeout=90)
            # The last picture of the cup shows the cat already.
            await page.run("document.querySelector('#lesson-taken li:last-child button').click()")
            await page.until("document.querySelectorAll('#lesson-taken img').length === 13")
            await page.until("document.getElementById('lesson-again').checkVisibility()")
            await page.run("document.getElementById('lesson-again').click()")
            await page.until(f"{label} !== 'Try it'")
            await page.until(trying, timeout=90)
            height = await page.run("document.documentElement.scrollHeight")
            size = {"width": 390, "height": height, "deviceScaleFactor": 1, "mobile": True}
            await page.call("Emulation.setDeviceMetricsOverride", **size)
            await asyncio.sleep(1)
            keep(await page.screenshot(), DOCS / "teach-phone.png")
    finally:
        teach.terminate()
        teach.wait(20)


def main() -> None:
    for needed in ("tmux", "chromium"):
        if shutil.which(needed) is None:
            sys.exit(f"{needed} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(pictures(Path(folder)))


if __name__ == "__main__":
    main()
