"""Which mode a sensor is asked for, and what is made of the formats that are granted."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2.camera import csi_sensor
from edge_mnv2.camera.csi_sensor import SensorMode
from edge_mnv2.camera.frame import View
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from tests.camera import picamera2_standin

# Modes as people's boards list them (`rpicam-hello --list-cameras`): size, crop, frames a second, bits. Where from:
# v1: github.com/raspberrypi/rpicam-apps/issues/427; with faster clocks the same modes reach 62.5, 46.34, 32.81 fps.
# v2: github.com/raspberrypi/documentation/pull/2587; slower: raspberrypi/linux/issues/5438; faster: .../issues/7013.
# v3: Raspberry Pi's documentation of the Compute Module's cameras; raspberrypi/linux, drivers/media/i2c/imx708.c.
# HQ: github.com/raspberrypi/picamera2/issues/301; faster: github.com/raspberrypi/linux/pull/6208.
# GS: github.com/AllskyTeam/allsky/issues/3632.


def imx219(smallest: float, binned: float) -> list[SensorMode]:
    return [
        mode
        for bits in (10, 8)
        for mode in (
            SensorMode((640, 480), (1000, 752, 1280, 960), smallest, bits),
            SensorMode((1640, 1232), (0, 0, 3280, 2464), binned, bits),
            SensorMode((1920, 1080), (680, 692, 1920, 1080), 47.57, bits),
            SensorMode((3280, 2464), (0, 0, 3280, 2464), 21.19, bits),
        )
    ]


SENSORS: dict[str, tuple[tuple[int, int], list[SensorMode]]] = {
    "v1 (ov5647)": (
        (2592, 1944),
        [
            SensorMode((640, 480), (16, 0, 2560, 1920), 58.92),
            SensorMode((1296, 972), (0, 0, 2592, 1944), 43.25),
            SensorMode((1920, 1080), (348, 434, 1928, 1080), 30.62),
            SensorMode((2592, 1944), (0, 0, 2592, 1944), 15.63),
        ],
    ),
    "v2 (imx219)": ((3280, 2464), imx219(206.65, 41.85)),
    "v2, slower": ((3280, 2464), imx219(103.33, 41.85)),
    "v2, faster": ((3280, 2464), imx219(206.65, 83.70)),
    "v3 (imx708)": (
        (4608, 2592),
        [
            SensorMode((1536, 864), (768, 432, 3072, 1728), 120.13),
            SensorMode((2304, 1296), (0, 0, 4608, 2592), 56.03),
            SensorMode((4608, 2592), (0, 0, 4608, 2592), 14.35),
        ],
    ),
    "HQ (imx477)": (
        (4056, 3040),
        [
            SensorMode((1332, 990), (696, 528, 2664, 1980), 120.05),
            SensorMode((2028, 1080), (0, 440, 4056, 2160), 50.03, 12),
            SensorMode((2028, 1520), (0, 0, 4056, 3040), 40.01, 12),
            SensorMode((4056, 3040), (0, 0, 4056, 3040), 10.00, 12),
        ],
    ),
    "HQ, faster": (
        (4056, 3040),
        [
            SensorMode((1332, 990), (696, 528, 2664, 1980), 169.87),
            SensorMode((2028, 1080), (0, 440, 4056, 2160), 105.95, 12),
            SensorMode((2028, 1520), (0, 0, 4056, 3040), 75.36, 12),
            SensorMode((4056, 2160), (0, 440, 4056, 3040), 27.48, 12),
            SensorMode((4056, 3040), (0, 0, 4056, 3040), 19.53, 12),
        ],
    ),
    "GS (imx296)": ((1456, 1088), [SensorMode((1456, 1088), (0, 0, 1456, 1088), 60.38)]),
}


@pytest.mark.parametrize(
    ("sensor", "fps", "size", "mode"),
    [
        ("v1 (ov5647)", 30, None, (640, 480)),
        ("v1 (ov5647)", 30, (1280, 960), (1296, 972)),
        ("v2 (imx219)", 30, None, (1640, 1232)),
        ("v2 (imx219)", 30, (640, 480), (1640, 1232)),
        ("v2 (imx219)", 15, (1920, 1080), (3280, 2464)),
        ("v2 (imx219)", 30, (1920, 1080), (1640, 1232)),
        ("v2 (imx219)", 41.85, None, (1640, 1232)),
        ("v2 (imx219)", 47, None, (1920, 1080)),
        ("v2 (imx219)", 90, None, (640, 480)),
        ("v2, slower", 30, None, (1640, 1232)),
        ("v2, faster", 80, None, (1640, 1232)),
        ("v2, faster", 200, None, (640, 480)),
        ("v2 (imx219)", 1000, None, (640, 480)),
        ("v3 (imx708)", 30, None, (2304, 1296)),
        ("v3 (imx708)", 56, None, (2304, 1296)),
        ("v3 (imx708)", 10, (4608, 2592), (4608, 2592)),
        ("v3 (imx708)", 100, None, (1536, 864)),
        ("HQ (imx477)", 30, None, (2028, 1520)),
        ("HQ (imx477)", 40, (1280, 720), (2028, 1520)),
        ("HQ (imx477)", 50, None, (2028, 1080)),
        ("HQ (imx477)", 8, (3840, 2160), (4056, 3040)),
        ("HQ, faster", 60, None, (2028, 1520)),
        ("HQ, faster", 15, (3840, 2160), (4056, 3040)),
        ("HQ, faster", 25, (3840, 2160), (2028, 1520)),
        ("GS (imx296)", 30, None, (1456, 1088)),
    ],
)
def test_the_mode_that_is_asked_for(sensor: str, fps: float, size: Optional[tuple[int, int]], mode: tuple) -> None:
    array, rows = SENSORS[sensor]
    camera = SimpleNamespace(
        sensor_modes=[
            {"size": row.size, "crop_limits": row.crop, "fps": row.fps, "bit_depth": row.bit_depth} for row in rows
        ],
        camera_properties={"PixelArraySize": array},
    )
    chosen = csi_sensor.choose(csi_sensor.read_modes(camera), fps, size)
    assert chosen is not None and chosen.size == mode
    if mode == (1640, 1232):
        assert chosen.bit_depth == 10


@pytest.mark.parametrize(("sensor", "size"), [("v2 (imx219)", (640, 480)), ("v3 (imx708)", (848, 480))])
def test_without_a_size_the_whole_sensor_is_seen(sensor: str, size: tuple[int, int]) -> None:
    array, modes = SENSORS[sensor]
    mode = csi_sensor.choose(modes, 30)
    assert csi_sensor.picture_size(mode, None) == size
    view = csi_sensor.expected_view(mode, array, size)
    assert view is not None and not view.cropped
    narrow = csi_sensor.expected_view(mode, array, (480, 480))
    assert narrow is not None and narrow.cropped and narrow.crop[2] == array[1] and narrow.crop[3] == array[1]


def test_no_modes_no_wishes() -> None:
    assert csi_sensor.choose([], 30) is None and csi_sensor.picture_size(None, None) == (640, 480)
    assert csi_sensor.picture_size(None, (321, 241)) == (320, 240)
    assert csi_sensor.sensor_size({"PixelArrayActiveAreas": [(0, 0, 640, 480)]}) == (640, 480)
    assert csi_sensor.sensor_size({}) is None and csi_sensor.sensor_size({}, SENSORS["v2 (imx219)"][1]) == (3280, 2464)
    assert View((100, 100), (0, 0, 100, 100)).as_dict() == {"sensor": [100, 100], "crop": [0, 0, 100, 100]}


# With a camera


def scene() -> np.ndarray:
    """Red, with a blue top left corner."""
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[..., 0] = 255
    picture[:120, :160] = (0, 0, 255)
    return picture


def test_a_camera_is_asked_for_the_whole_view(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    with open_source("csi") as source:
        assert source.read() is not None
        assert source.view == View((3280, 2464), (0, 2, 3280, 2460)) and not source.view.cropped
        assert "sees" not in source.description
    assert stage.last is not None
    assert stage.last.camera_configuration()["sensor"] == {"output_size": (1640, 1232), "bit_depth": 10}
    assert "part of the scene" not in caplog.text


def test_a_crop_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    picamera2_standin.installed(monkeypatch, scene())
    with open_source("csi", CameraSettings(fps=100)) as source:
        assert source.read() is not None
        assert source.view == View((3280, 2464), (1000, 752, 1280, 960))
        assert "sees 1280x960 at 1000,752 of the sensor's 3280x2464" in source.description
    assert caplog.text.count("sees a part of the scene") == 1


def test_a_camera_that_does_not_say_its_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    stage.modes = []
    with open_source("csi") as source:
        assert source.read() is not None and source.granted.width == 640
    assert stage.last is not None and stage.last.camera_configuration()["sensor"] == {}


def test_crops_that_the_driver_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old drivers have 65535 for each number (github.com/prusa3d/Prusa-Link/issues/987)."""
    stage = picamera2_standin.installed(monkeypatch, scene())
    stage.modes = [{**mode, "fps": 30.0, "crop_limits": (65535,) * 4} for mode in picamera2_standin.MODES]
    with open_source("csi") as source:
        assert source.read() is not None
        assert source.view is None and "sees" not in source.description
    assert stage.last is not None and stage.last.camera_configuration()["sensor"] == {}


@pytest.mark.parametrize(
    ("autofocus", "wanted", "mode"),
    [(True, {}, 2), (True, {"AfMode": "manual"}, 0), (True, {"AfMode": 1}, 1), (False, {}, None)],
)
def test_autofocus_where_it_is_offered(
    monkeypatch: pytest.MonkeyPatch, autofocus: bool, wanted: dict[str, Any], mode: Optional[int]
) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    stage.autofocus = autofocus
    with open_source("csi", CameraSettings(controls=wanted)) as source:
        assert source.read() is not None
    assert stage.last is not None and stage.last.controls_set.get("AfMode") == mode


@pytest.mark.parametrize("name", picamera2_standin.LAYOUTS)
@pytest.mark.parametrize("size", [(640, 480), (328, 246)])
def test_every_format_that_is_granted(monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]) -> None:
    stage = picamera2_standin.installed(monkeypatch, scene())
    stage.grants = name
    with open_source("csi", CameraSettings(width=size[0], height=size[1])) as source:
        frame = source.read()
        assert frame is not None and frame.image.shape == (size[1], size[0], 3) and source.granted.format == name
    grey = name == "R8"
    assert np.abs(frame.image[-10, -10].astype(int) - ((76,) * 3 if grey else (255, 0, 0))).max() <= 8
    assert np.abs(frame.image[10, 10].astype(int) - ((29,) * 3 if grey else (0, 0, 255))).max() <= 8


def test_a_format_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_mnv2.errors import SourceError

    stage = picamera2_standin.installed(monkeypatch, scene())
    monkeypatch.setitem(picamera2_standin.LAYOUTS, "SRGGB10", 2)
    stage.grants = "SRGGB10"
    with pytest.raises(SourceError, match="gives SRGGB10, which cannot be converted"):
        open_source("csi").open()


def test_cameras_are_listed_with_their_words(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from edge_mnv2.camera.csi import list_csi

    stage = picamera2_standin.installed(monkeypatch, scene(), cameras=2)
    caplog.set_level(logging.DEBUG)
    stage.in_use.add(1)
    first, second = list_csi(modes=True)
    assert (first.number, first.model, first.problem) == (0, "imx219", None)
    assert len(first.modes) == 4 and first.view is not None and not first.view.cropped
    assert second.problem is not None and "in use" in second.problem and second.modes == ()
    assert stage.in_use == {1}
