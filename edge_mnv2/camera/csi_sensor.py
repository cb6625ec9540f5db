"""What a CSI sensor offers and what picamera2 hands over: sensor modes, the part of the sensor that is seen, formats.

A sensor has a few modes; some read only its middle. Asked for 640x480, libcamera takes the smallest mode that is large
enough, which on a Camera Module 2 sees a seventh of the scene. So the mode is chosen here: the smallest that covers the
whole sensor and reaches the frame rate.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

import numpy as np

from edge_mnv2.camera.frame import View

log = logging.getLogger(__name__)

Size = tuple[int, int]
Box = tuple[int, int, int, int]

_WHOLE = 0.98
"""A mode that sees so much of the sensor's width and height sees the whole: some leave out a few edge pixels."""
_UNSAID = 65535
"""What libcamera gives for each number of a crop that the sensor's driver does not say."""
_RATE_SLACK = 0.5
_FACTOR = 0.97


@dataclass(frozen=True)
class SensorMode:
    """`size` in pixels as read out, `crop` (left, top, width, height) in the sensor's pixels, highest `fps`."""

    size: Size
    crop: Box
    fps: float
    bit_depth: int = 10


def read_modes(camera: Any) -> list[SensorMode]:
    """The modes of an open picamera2 camera; empty where it does not say them, or not what they see.

    The camera is configured for each.
    """
    try:
        rows = camera.sensor_modes
        modes = [
            SensorMode(tuple(row["size"]), tuple(row["crop_limits"]), float(row["fps"]), int(row.get("bit_depth", 10)))
            for row in rows
        ]
    except Exception as error:  # cameras without raw streams fail in many ways
        log.debug("no sensor modes: %s", error)
        return []
    sensor = sensor_size(camera.camera_properties)
    return [
        _inside(mode, sensor)
        for mode in modes
        if min(mode.size) > 0 and min(mode.crop[2:]) > 0 and max(mode.crop) < _UNSAID
    ]


def _inside(mode: SensorMode, sensor: Optional[Size]) -> SensorMode:
    """A crop that goes beyond the sensor (imx477's 4056x2160 of 3040 rows from row 440) has the rows of its picture."""
    left, top, width, height = mode.crop
    if sensor is None or top + height <= sensor[1]:
        return mode
    rows = min(height, sensor[1] - top, round(mode.size[1] * width / mode.size[0]))
    return replace(mode, crop=(left, top, width, rows))


def sensor_size(properties: Mapping[str, Any], modes: Sequence[SensorMode] = ()) -> Optional[Size]:
    """(width, height) of the sensor in its own pixels, None where nothing says it."""
    size = properties.get("PixelArraySize")
    if size is not None:
        width, height = size
        return int(width), int(height)
    if modes:
        return max(mode.crop[0] + mode.crop[2] for mode in modes), max(mode.crop[1] + mode.crop[3] for mode in modes)
    areas = properties.get("PixelArrayActiveAreas")
    return None if not areas else (int(areas[0][2]), int(areas[0][3]))


def choose(modes: Sequence[SensorMode], fps: float, least: Optional[Size] = None) -> Optional[SensorMode]:
    """The smallest mode that sees all that any mode sees, reaches `fps`, and is no smaller than `least`.

    What cannot be had is given up in this order: the size, the whole view (then the mode that sees most is taken), the
    rate (then the fastest).
    """
    if not modes:
        return None
    widest = max(mode.crop[2] for mode in modes), max(mode.crop[3] for mode in modes)

    def sees_all(mode: SensorMode) -> bool:
        return all(part >= _WHOLE * whole for part, whole in zip(mode.crop[2:], widest))

    fast = [mode for mode in modes if mode.fps >= _FACTOR * fps - _RATE_SLACK]
    if not fast:
        fastest = max(mode.fps for mode in modes)
        fast = [mode for mode in modes if mode.fps >= _FACTOR * fastest]
    whole = [mode for mode in fast if sees_all(mode)]
    if not whole:
        most = max(mode.crop[2] * mode.crop[3] for mode in fast)
        whole = [mode for mode in fast if mode.crop[2] * mode.crop[3] >= _WHOLE * most]
    large = [mode for mode in whole if least is None or (mode.size[0] >= least[0] and mode.size[1] >= least[1])]
    if not large:
        return max(whole, key=lambda mode: (mode.size[0] * mode.size[1], mode.bit_depth))
    return min(large, key=lambda mode: (mode.size[0] * mode.size[1], -mode.bit_depth))


def picture_size(mode: Optional[SensorMode], asked: Optional[Size], rows: int = 480) -> Size:
    """The even size to ask for: `asked`, else `rows` rows in the shape of what the mode sees, in steps of 16 pixels."""
    if asked is None:
        across, down = (4, 3) if mode is None else mode.crop[2:]
        asked = round(rows * across / down / 16) * 16, rows
    return asked[0] - asked[0] % 2, asked[1] - asked[1] % 2


def expected_view(mode: Optional[SensorMode], sensor: Optional[Size], size: Size) -> Optional[View]:
    """What pictures of `size` show of the sensor: the mode's part, cut to their shape at its middle."""
    if mode is None or sensor is None:
        return None
    left, top, width, height = mode.crop
    wide, high = min(width, round(height * size[0] / size[1])), min(height, round(width * size[1] / size[0]))
    return View(sensor, (left + (width - wide) // 2, top + (height - high) // 2, wide, high))


def mode_options(camera: Any, mode: SensorMode) -> dict[str, Any]:
    """How `create_video_configuration` is asked for a sensor mode, in this version of picamera2."""
    names = inspect.signature(camera.create_video_configuration).parameters
    if "sensor" in names:
        return {"sensor": {"output_size": mode.size, "bit_depth": mode.bit_depth}}
    return {"raw": {"size": mode.size}} if "raw" in names else {}


def controls(wanted: Mapping[str, Any], offered: Mapping[str, Any], libcamera: Any, name: str) -> dict[str, Any]:
    """`wanted` without what this camera does not offer; names of enumeration values become the values."""
    chosen = {}
    for control, value in wanted.items():
        if control not in offered and control != "FrameRate":
            log.warning("camera %s has no control %s: left out", name, control)
            continue
        if isinstance(value, str):
            values = getattr(getattr(libcamera, "controls", None), f"{control}Enum", None)
            word = next((word for word in dir(values) if word.casefold() == value.casefold()), None)
            if values is None or word is None:
                log.warning("camera %s: %s cannot be '%s': left out", name, control, value)
                continue
            value = getattr(values, word)
        chosen[control] = tuple(value) if isinstance(value, list) else value
    return chosen


# Formats


def _planes(data: np.ndarray, width: int, height: int, stride: int, swapped: bool) -> np.ndarray:
    """Three planes (I420) without the padding of their lines, (height * 3/2) x width."""
    half = stride // 2
    rows = data[: stride * height].reshape(height, stride)[:, :width]
    first, second = (
        data[start : start + half * (height // 2)].reshape(height // 2, half)[:, : width // 2]
        for start in (stride * height, stride * height + half * (height // 2))
    )
    if swapped:
        first, second = second, first
    packed = np.empty((height * 3 // 2, width), np.uint8)
    packed[:height] = rows
    packed[height:].reshape(-1)[: first.size] = first.reshape(-1)
    packed[height:].reshape(-1)[first.size :] = second.reshape(-1)
    return packed


def _lines(data: np.ndarray, width: int, height: int, stride: int, channels: int) -> np.ndarray:
    """Lines without their padding, height x width x channels (height x width for one)."""
    picture = data[: stride * height].reshape(height, stride)[:, : width * channels]
    return picture if channels == 1 else picture.reshape(height, width, channels)


def _interleaved(data: np.ndarray, width: int, height: int, stride: int) -> np.ndarray:
    """A plane of brightness and one of colour (NV12) without padding, (height * 3/2) x width."""
    return np.ascontiguousarray(data[: stride * height * 3 // 2].reshape(height * 3 // 2, stride)[:, :width])


Convert = Callable[[np.ndarray, int, int, int], np.ndarray]


def converter(name: str) -> Optional[tuple[Convert, str]]:
    """(function, colour order) that makes pixels HxWx3 of a buffer in libcamera's format `name`; None: it is unknown.

    The function takes the buffer (uint8, one dimension), width, height and the bytes of a line. libcamera names formats
    in memory order: "RGB888" is the one whose arrays are BGR.
    """
    import cv2

    def decode(data: np.ndarray, _width: int, _height: int, _stride: int) -> np.ndarray:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError("a damaged JPEG")
        return np.asarray(pixels)

    channels = {"BGR888": (3, "rgb"), "RGB888": (3, "bgr"), "XBGR8888": (4, "rgb"), "XRGB8888": (4, "bgr")}
    colours: dict[str, tuple[int, Callable[..., np.ndarray], tuple[Any, ...]]] = {
        "YUV420": (cv2.COLOR_YUV2RGB_I420, _planes, (False,)),
        "YVU420": (cv2.COLOR_YUV2RGB_I420, _planes, (True,)),
        "NV12": (cv2.COLOR_YUV2RGB_NV12, _interleaved, ()),
        "NV21": (cv2.COLOR_YUV2RGB_NV21, _interleaved, ()),
        "YUYV": (cv2.COLOR_YUV2RGB_YUY2, _lines, (2,)),
        "YVYU": (cv2.COLOR_YUV2RGB_YVYU, _lines, (2,)),
        "UYVY": (cv2.COLOR_YUV2RGB_UYVY, _lines, (2,)),
        "R8": (cv2.COLOR_GRAY2RGB, _lines, (1,)),
    }
    if name in channels:
        count, order = channels[name]
        lines = functools.partial(_lines, channels=count)
        return lambda *buffer: np.ascontiguousarray(lines(*buffer)[..., :3]), order
    if name in colours:
        code, take, more = colours[name]
        return lambda *buffer: cv2.cvtColor(take(*buffer, *more), code), "rgb"
    return (decode, "bgr") if name == "MJPEG" else None
