"""The window under a real X server, and where there is none.

With `EDGE_MNV2_SCREENSHOTS=DIR` its picture of docs/ is made anew.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.processes import until

_SHOTS = os.environ.get("EDGE_MNV2_SCREENSHOTS")


@pytest.fixture
def display(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(DISPLAY of a fresh X server, the file that holds its picture)."""
    if shutil.which("Xvfb") is None:
        pytest.skip("no Xvfb here (apt-get install xvfb)")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x600x24", "-fbdir", str(tmp_path), "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        assert select.select([read], [], [], 20)[0]
        number = os.read(read, 20).decode().strip()
        yield f":{number}", tmp_path / "Xvfb_screen0"
    finally:
        os.close(read)
        server.terminate()
        server.wait(10)


def screen(path: Path) -> np.ndarray:
    """What the X server shows, as BGR: an XWD file with a header of its own size and 32 bits a pixel."""
    data = path.read_bytes()
    header = np.frombuffer(data[:100], ">u4")
    size, width, height, line, colours = header[0], header[4], header[5], header[12], header[19]
    start = size + 12 * colours
    pixels = np.frombuffer(data[start : start + line * height], np.uint8).reshape(height, line // 4, 4)
    return np.ascontiguousarray(pixels[:, :width, :3])


def started(stub: Path, *options: object, **environment: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "edge_mnv2", "run", "--model", stub, "--source", "test", "--window", *options]
    return subprocess.Popen(
        [str(one) for one in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_the_window_shows_the_picture_and_moves(display: tuple[str, Path], stub: Path) -> None:
    name, picture = display
    environment = {"DISPLAY": name, "SDL_VIDEODRIVER": "x11"}
    model: Any = "mobilenet_v2_1.0_224_int8" if _SHOTS else stub
    run = started(stub, *(["--model", model] if _SHOTS else []), "--roi", "100,60,400,360", **environment)
    until(lambda: screen(picture)[:500].max() > 200)

    def colours() -> set[tuple[int, ...]]:
        return {tuple(int(part) // 64 for part in pixel) for pixel in screen(picture)[200:400:10, ::10].reshape(-1, 3)}

    # The test pattern has many.
    until(lambda: len(colours()) > 6)
    first = screen(picture)
    until(lambda: (screen(picture) != first).mean() > 0.02)
    if _SHOTS:
        cv2.imwrite(str(Path(_SHOTS) / "window.png"), screen(picture)[30:570, 32:992])
    run.terminate()
    out, err = run.communicate(timeout=20)
    assert run.returncode == 0 and out == "" and "pygame" not in err and "Traceback" not in err


@pytest.mark.slow
def test_keys(stub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Real key events of SDL, without a screen."""
    import pygame

    from edge_mnv2.outputs.snapshots import SnapshotSink
    from edge_mnv2.outputs.window import Window
    from edge_mnv2.pipeline.frame_loop import FrameLoop
    from edge_mnv2.runtime.classifier import Classifier
    from tests.pipeline.test_frame_loop import Scripted

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.chdir(tmp_path)

    def press(key: int) -> None:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key, mod=0, unicode=""))

    for snapshots in (None, SnapshotSink(str(tmp_path / "kept"))):
        window = Window(snapshots)
        with Classifier.open(stub, ["red", "green", "blue"]) as model, Scripted(10**9, fps=50) as source:
            loop = FrameLoop(source, [model], [window])
            window.attach(loop)
            thread = threading.Thread(target=loop.run)
            thread.start()
            until(lambda loop=loop: loop.statistics.frames > 3)
            press(pygame.K_p)
            until(lambda loop=loop: loop.controls.paused)
            press(pygame.K_s)
            until(lambda window=window: window._message.startswith("saved"))
            press(pygame.K_f)
            press(pygame.K_p)
            until(lambda loop=loop: not loop.controls.paused)
            press(pygame.K_q)
            thread.join(10)
            assert not thread.is_alive()
        window.close()
    assert len(list(tmp_path.glob("edge-mnv2-*.jpg"))) == 1
    assert len(list((tmp_path / "kept").glob("*_snapshot.jpg"))) == 1
    picture = cv2.imread(str(next(tmp_path.glob("edge-mnv2-*.jpg"))))
    assert picture.shape == (48, 64, 3)


@pytest.mark.skipif(any(Path("/dev/dri").glob("card*")), reason="this machine has a screen")
def test_without_a_display_it_is_one_line(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = run("run", "--source", "test", "--max-frames", 1, "--window")
    assert code == 2 and out == "" and "--window" in err and "--web" in err and len(err.splitlines()) == 1


def test_a_display_that_is_not_there_is_one_line(stub: Path) -> None:
    run = started(stub, "--max-frames", 1, DISPLAY=":987", SDL_VIDEODRIVER="x11")
    out, err = run.communicate(timeout=30)
    assert run.returncode == 2 and out == "" and re.search(r"--window: .*cannot be used", err), err
    assert "Traceback" not in err


def test_without_the_extra_the_package_is_named(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    code, _, err = run("run", "--source", "test", "--max-frames", 1, "--window")
    assert code == 2 and "[window]" in err
