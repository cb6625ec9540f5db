from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.camera import csi
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.errors import SourceError, SourceLost
from tests.camera import picamera2_standin
from tests.processes import until


def scene(width: int = 640, height: int = 480) -> np.ndarray:
    """Red, with a blue top left corner."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = 255
    picture[: height // 4, : width // 4] = (0, 0, 255)
    return picture


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= 4)


def test_red_is_red_at_the_size_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    with open_source("csi", CameraSettings(width=321, height=241, fps=100)) as source:
        frame = source.read()
        assert frame is not None and frame.order == "rgb" and frame.pixels.shape == (240, 320, 3)
        assert near(frame.image[200, 200], (255, 0, 0)) and near(frame.image[5, 5], (0, 0, 255))
        assert source.granted.backend == "picamera2" and source.granted.width == 320
        assert "imx219" in source.description
        assert 0 <= time.monotonic_ns() - frame.captured_at < 2_000_000_000
        assert stage.last is not None and stage.last.controls_set["FrameDurationLimits"] == (10000, 10000)
    assert not stage.in_use


@pytest.mark.parametrize(
    ("rotate", "flip", "corner"),
    [
        (0, None, (0, 0)),
        (90, None, (0, -1)),
        (180, None, (-1, -1)),
        (270, None, (-1, 0)),
        (0, "h", (0, -1)),
        (180, "v", (0, -1)),
        (90, "h", (0, 0)),
    ],
)
def test_turned_by_the_sensor_or_by_us(
    monkeypatch: pytest.MonkeyPatch, rotate: int, flip: str, corner: tuple[int, int]
) -> None:
    picamera2_standin.installed(monkeypatch, scene())
    with open_source("csi", CameraSettings(rotate=rotate, flip=flip, fps=100)) as source:
        frame = source.read()
    assert frame is not None
    assert frame.pixels.shape == ((640, 480, 3) if rotate in (90, 270) else (480, 640, 3))
    assert near(frame.image[corner], (0, 0, 255))
    assert sum(near(frame.image[y, x], (0, 0, 255)) for y in (0, -1) for x in (0, -1)) == 1


def test_controls_by_name_and_word(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    wanted = {"AfMode": "continuous", "ExposureTime": 20000, "Sharpness": 2.0}
    with open_source("csi", CameraSettings(controls=wanted, fps=100)) as source:
        assert source.read() is not None
    assert stage.last is not None
    assert stage.last.controls_set["AfMode"] == 2 and stage.last.controls_set["ExposureTime"] == 20000
    assert "Sharpness" in caplog.text


def test_no_camera_and_busy_camera_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    with pytest.raises(SourceError, match="no CSI camera csi:1"):
        open_source("csi:1").open()
    stage.fail_acquire = True
    with pytest.raises(SourceError, match="in use by another process"):
        open_source("csi").open()


@pytest.mark.slow
def test_a_frozen_camera_is_lost_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    with open_source("csi", CameraSettings(fps=100, stall_s=0.3, warmup_frames=0)) as source:
        assert source.read() is not None
        stage.frozen.set()

        def thaw() -> None:
            """Once it is known to be lost, however long that takes; a loss that nobody sees ends too."""
            with contextlib.suppress(AssertionError):
                until(lambda: source.state != "ok")
            stage.frozen.clear()

        threading.Thread(target=thaw).start()
        frames = [source.read() for _ in range(5)]
        assert all(frames) and source.reconnects == 1 and source.state == "ok"
        numbers = [frame.index for frame in frames if frame is not None]
        assert numbers == sorted(set(numbers))
    assert stage.opened >= 2 and not stage.in_use


def test_a_camera_whose_stop_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    monkeypatch.setattr(csi, "CLOSE_S", 0.3)
    camera = csi.CsiCamera(0, CameraSettings(fps=100))
    unregistered = []
    monkeypatch.setattr(csi.atexit, "unregister", unregistered.append)
    camera.open()
    assert stage.last is not None
    assert unregistered == [stage.last.close], "the end of Python would wait for it"
    stage.hang_in_stop.set()
    began = time.monotonic()
    camera.close()
    assert time.monotonic() - began < 3
    monkeypatch.setattr(csi, "OPEN_S", 0.2)
    with pytest.raises(SourceError, match="not free yet"):
        camera.open()
    monkeypatch.setattr(csi, "OPEN_S", 5.0)
    threading.Timer(0.3, stage.hang_in_stop.clear).start()
    with camera:
        assert camera.read() is not None


def test_read_after_a_stall_and_after_close(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    camera = csi.CsiCamera(0, CameraSettings(fps=100, stall_s=0.2))
    with camera:
        stage.frozen.set()
        with pytest.raises(SourceLost):
            for _ in range(5):
                camera.read()
    assert camera.read() is None


def test_without_picamera2_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match="python3-picamera2") as caught:
        open_source("csi")
    assert ("pyvenv.cfg" in str(caught.value)) == (sys.prefix != sys.base_prefix)
    assert csi.list_csi() == []


def test_inside_a_virtual_environment_that_does_not_see_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    (tmp_path / "picamera2").mkdir()
    monkeypatch.setattr(csi, "_SYSTEM_PACKAGES", tmp_path)
    monkeypatch.setattr(sys, "prefix", "/home/pi/venv")
    with pytest.raises(SourceError, match=r"include-system-site-packages = true in /home/pi/venv/pyvenv.cfg"):
        open_source("csi")


def test_built_for_another_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str) -> object:
        if name == "picamera2":
            raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")
        return real(name)

    monkeypatch.setattr(csi.importlib, "import_module", broken)
    with pytest.raises(SourceError, match="numpy<2"):
        open_source("csi")


def test_list(monkeypatch: pytest.MonkeyPatch) -> None:
    picamera2_standin.installed(monkeypatch, scene(), cameras=2)
    assert [(camera.number, camera.model) for camera in csi.list_csi()] == [(0, "imx219"), (1, "imx219")]


def test_the_line_that_says_what_was_granted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    picamera2_standin.installed(monkeypatch, scene())
    with open_source("csi", CameraSettings(width=641, height=480, fps=100)) as source:
        source.read()
    assert "through picamera2" in caplog.text and "640x480" in caplog.text and "not what was asked for" in caplog.text
