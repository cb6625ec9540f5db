"""A stand-in for the packages picamera2 and libcamera, for boards' cameras that cannot be here.

`installed(monkeypatch, scene)` puts it where `import picamera2` and `import libcamera` find it; the real packages take
its place without a change. It does what was measured on the real library (0.3.3x): "RGB888" arrays are BGR and "BGR888"
arrays RGB, the default main format is XBGR8888, sizes are even, unknown controls are refused, callbacks run in the
camera's own thread under its lock and an exception ends that thread, `RuntimeError` for everything, causes in
`__cause__`, one owner at a time.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Optional

import cv2
import numpy as np
import pytest

SENSOR = "imx219"
ARRAY = (3280, 2464)
MODES = [
    {"size": (640, 480), "fps": 103.33, "crop_limits": (1000, 752, 1280, 960), "bit_depth": 10},
    {"size": (1640, 1232), "fps": 41.85, "crop_limits": (0, 0, 3280, 2464), "bit_depth": 10},
    {"size": (1920, 1080), "fps": 47.57, "crop_limits": (680, 692, 1920, 1080), "bit_depth": 10},
    {"size": (3280, 2464), "fps": 21.19, "crop_limits": (0, 0, 3280, 2464), "bit_depth": 10},
]


class Scene:
    """What the stand-in films, and its faults; one for all cameras of a test."""

    def __init__(self, rgb: np.ndarray, cameras: int = 1) -> None:
        self.rgb = rgb
        self.cameras = cameras
        self.in_use: set[int] = set()
        self.fail_acquire = False
        self.frozen = threading.Event()
        self.hang_in_stop = threading.Event()
        self.modes: list[dict[str, Any]] = MODES
        self.array = ARRAY
        self.autofocus = True
        self.grants: Optional[str] = None
        """Another format than the one that is asked for."""
        self.models: list[str] = [SENSOR] * cameras
        self.network: Optional[Callable[[np.ndarray], Optional[np.ndarray]]] = None
        """What the network in an IMX500 answers to the part of the scene that it sees; None: nothing."""
        self.device: Optional[IMX500] = None
        self.opened = 0
        self.last: Optional[Picamera2] = None


_scene = Scene(np.zeros((480, 640, 3), np.uint8))


class Transform:
    def __init__(self, hflip: int = 0, vflip: int = 0, transpose: int = 0) -> None:
        self.hflip, self.vflip, self.transpose = hflip, vflip, transpose


class AfModeEnum:
    Manual = 0
    Auto = 1
    Continuous = 2


class CompletedRequest:
    def __init__(self, config: dict, picture: np.ndarray, stamp: int) -> None:
        self._config, self._picture, self._stamp = config, picture, stamp

    def make_array(self, name: str) -> np.ndarray:
        if name != "main":
            raise RuntimeError(f"Stream {name!r} is not defined")
        return self._picture.copy()

    def make_buffer(self, name: str) -> np.ndarray:
        return self._picture.reshape(-1).copy()

    def get_metadata(self) -> dict[str, Any]:
        values = {"SensorTimestamp": self._stamp, "ExposureTime": 10000, "ScalerCrop": self._config["crop"]}
        if _scene.device is not None and _scene.network is not None:
            answer = _scene.network(_scene.device.seen())
            if answer is not None:
                values.update(CnnOutputTensor=answer.reshape(-1).tolist(), CnnKpiInfo=(17_100, 900))
        return values


class Picamera2:
    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        name = "/base/soc/i2c0mux/i2c@1/imx219@10"
        return [
            {
                "Model": model,
                "Location": 2,
                "Rotation": 180,
                "Id": f"{name[:-9]}{n}/{model}@1a" if n else name,
                "Num": n,
            }
            for n, model in enumerate(_scene.models)
        ]

    def __init__(self, camera_num: int = 0) -> None:
        if camera_num >= _scene.cameras:
            raise RuntimeError(
                f'No camera number {camera_num} found - use "rpicam-hello --list-cameras" to check connected cameras'
            )
        try:
            if _scene.fail_acquire or camera_num in _scene.in_use:
                raise RuntimeError("Failed to acquire camera: Device or resource busy")
        except RuntimeError as error:
            raise RuntimeError("Camera __init__ sequence did not complete.") from error
        _scene.in_use.add(camera_num)
        _scene.opened += 1
        _scene.last = self
        atexit.register(self.close)
        self._number = camera_num
        self._config: dict[str, Any] = {}
        self._thread: Optional[threading.Thread] = None
        self._halt = threading.Event()
        self._lock = threading.Lock()
        self.pre_callback: Optional[Callable[[CompletedRequest], None]] = None
        self.post_callback: Optional[Callable[[CompletedRequest], None]] = None
        self.camera_properties = {"Model": SENSOR, "PixelArraySize": _scene.array}
        self.camera_controls = {"ExposureTime": (10, 10**7, 0), "FrameDurationLimits": (1, 1, 1)}
        if _scene.autofocus:
            self.camera_controls["AfMode"] = (0, 2, 0)
        self.controls_set: dict[str, Any] = {}

    @property
    def sensor_modes(self) -> list[dict[str, Any]]:
        if not _scene.modes:
            raise AttributeError("'NoneType' object has no attribute 'at'")
        return [dict(mode) for mode in _scene.modes]

    def create_video_configuration(
        self,
        main: dict[str, Any] = {},  # noqa: B006
        lores: Optional[dict[str, Any]] = None,
        transform: Optional[Transform] = None,
        controls: dict[str, Any] = {},  # noqa: B006
        buffer_count: int = 6,
        sensor: dict[str, Any] = {},  # noqa: B006
    ) -> dict[str, Any]:
        return {
            "sensor": dict(sensor),
            "main": {"format": "XBGR8888", "size": (1280, 720), **main},
            "lores": lores,
            "transform": transform or Transform(),
            "controls": dict(controls),
            "buffer_count": buffer_count,
        }

    def configure(self, config: dict[str, Any]) -> None:
        if self._thread is not None:
            raise RuntimeError("Camera must be stopped before configuring")
        main = config["main"]
        main["format"] = _scene.grants or main["format"]
        if main["format"] not in LAYOUTS:
            raise RuntimeError(f"Bad format {main['format']} in stream main")
        if main["size"][0] % 2 or main["size"][1] % 2:
            raise RuntimeError("width and height should be even")
        for name in config["controls"]:
            if name not in self.camera_controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        # As libcamera does: the smallest mode that is large enough, where none is asked for.
        asked = config["sensor"].get("output_size")
        fitting = [m for m in _scene.modes if (m["size"] == asked if asked else m["size"] >= main["size"])]
        left, top, width, height = fitting[0]["crop_limits"] if fitting else (0, 0, *_scene.array)
        wide = min(width, round(height * main["size"][0] / main["size"][1]))
        high = min(height, round(width * main["size"][1] / main["size"][0]))
        config["crop"] = (left + (width - wide) // 2, top + (height - high) // 2, wide, high)
        main["stride"] = self._stride(main)
        self._config, self.controls_set = config, config["controls"]

    @staticmethod
    def _stride(main: dict[str, Any]) -> int:
        """Bytes of a line, which the image processor pads to 64."""
        width = main["size"][0] * LAYOUTS[main["format"]]
        return -(-width // 64) * 64

    def camera_configuration(self) -> dict[str, Any]:
        return self._config

    def start(self) -> None:
        if not self._config:
            raise RuntimeError("Camera has not been configured")
        self._halt.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        while _scene.hang_in_stop.is_set():
            time.sleep(0.05)
        self._halt.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def close(self) -> None:
        atexit.unregister(self.close)
        self.stop()
        _scene.in_use.discard(self._number)

    def _run(self) -> None:
        period_s = self._config["controls"].get("FrameDurationLimits", (33333, 33333))[0] / 1e6
        while not self._halt.wait(period_s):
            if _scene.frozen.is_set():
                continue
            request = CompletedRequest(self._config, self._developed(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            with self._lock:
                for callback in (self.pre_callback, self.post_callback):
                    if callback is not None:
                        callback(request)

    def _developed(self) -> np.ndarray:
        """The scene as the image processor writes it into memory."""
        main, transform = self._config["main"], self._config["transform"]
        picture = _scene.rgb
        if transform.hflip:
            picture = picture[:, ::-1]
        if transform.vflip:
            picture = picture[::-1]
        picture = cv2.resize(np.ascontiguousarray(picture), main["size"], interpolation=cv2.INTER_AREA)
        return written(picture, main["format"], main["stride"])


class IMX500:
    """picamera2.devices.IMX500 of 0.3.38: made before the camera is opened, by a camera's id or the first there is.

    A network file of the stand-in is "RPK WIDTHxHEIGHT".
    """

    def __init__(self, network_file: str, camera_id: str = "", tensor_injection: bool = False) -> None:
        rows = [one for one in Picamera2.global_camera_info() if one["Model"] == "imx500"]
        chosen = [one for one in rows if camera_id in one["Id"]]
        if not chosen:
            raise RuntimeError("IMX500: Requested camera dev-node not found")
        self.camera_num = int(chosen[0]["Num"])
        if self.camera_num in _scene.in_use:
            raise RuntimeError("the network is set before the camera is opened")
        with open(network_file, "rb") as content:
            head = content.read(4)
            if head != b"RPK ":
                raise RuntimeError(f"No matching footer found in firmware file {network_file}")
            width, height = content.read().split(b"x")
        self._size = int(width), int(height)
        self.roi = (0, 0, 4056, 3040)
        _scene.device = self

    def get_input_size(self) -> tuple[int, int]:
        return self._size

    def set_inference_roi_abs(self, roi: tuple[int, int, int, int]) -> None:
        self.roi = roi

    def get_outputs(self, metadata: dict[str, Any], add_batch: bool = False) -> Optional[list[np.ndarray]]:
        values = metadata.get("CnnOutputTensor")
        return None if not values else [np.array(values, np.float32)]

    @staticmethod
    def get_kpi_info(metadata: dict[str, Any]) -> Optional[tuple[float, float]]:
        info = metadata.get("CnnKpiInfo")
        return None if info is None else (info[0] / 1000, info[1] / 1000)

    def seen(self) -> np.ndarray:
        """The part of the scene inside the network's region of the sensor."""
        rows, columns = _scene.rgb.shape[:2]
        left, top, width, height = self.roi
        across, down = columns / _scene.array[0], rows / _scene.array[1]
        return _scene.rgb[
            int(top * down) : int((top + height) * down), int(left * across) : int((left + width) * across)
        ]


LAYOUTS = {
    **{"BGR888": 3, "RGB888": 3, "XBGR8888": 4, "XRGB8888": 4, "YUV420": 1, "YVU420": 1, "NV12": 1, "NV21": 1},
    **{"YUYV": 2, "YVYU": 2, "UYVY": 2, "R8": 1, "MJPEG": 1},
}
"""Formats and the bytes of a pixel in their first plane."""


def written(rgb: np.ndarray, name: str, stride: int) -> np.ndarray:
    """`rgb` in libcamera's format `name`: RGB and BGR as the array that picamera2 gives, others as a padded buffer."""
    height, width = rgb.shape[:2]
    alpha = np.full((height, width, 1), 255, np.uint8)

    def lines(rows: np.ndarray, step: int) -> np.ndarray:
        rows = rows.reshape(rows.shape[0], -1)
        padded = np.full((rows.shape[0], step), 0xAA, np.uint8)
        padded[:, : rows.shape[1]] = rows
        return padded.reshape(-1)

    if name in ("BGR888", "RGB888"):
        return rgb if name == "BGR888" else rgb[..., ::-1]
    if name in ("XBGR8888", "XRGB8888"):
        return lines(np.dstack([rgb if name == "XBGR8888" else rgb[..., ::-1], alpha]), stride)
    if name == "R8":
        return lines(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), stride)
    if name == "MJPEG":
        return cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]))[1].reshape(-1)
    planar = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    size = height * width
    y = planar[:size].reshape(height, width)
    u, v = planar[size:].reshape(2, height // 2, width // 2)
    if name in ("YUV420", "YVU420"):
        first, second = (u, v) if name == "YUV420" else (v, u)
        return np.concatenate([lines(y, stride), lines(first, stride // 2), lines(second, stride // 2)])
    if name in ("NV12", "NV21"):
        return np.concatenate([lines(y, stride), lines(np.dstack([u, v] if name == "NV12" else [v, u]), stride)])
    across, down = (np.repeat(plane, 2, axis=0) for plane in (u, v))
    packed = np.empty((height, width, 2), np.uint8)
    luma, first, second = {"YUYV": (0, across, down), "YVYU": (0, down, across), "UYVY": (1, across, down)}[name]
    packed[..., luma] = y
    packed[:, 0::2, 1 - luma], packed[:, 1::2, 1 - luma] = first, second
    return lines(packed, stride)


def installed(monkeypatch: pytest.MonkeyPatch, rgb: np.ndarray, cameras: int = 1) -> Scene:
    """Make `import picamera2` and `import libcamera` give the stand-ins, which film `rgb`."""
    global _scene
    _scene = Scene(rgb, cameras)
    picamera2, libcamera = ModuleType("picamera2"), ModuleType("libcamera")
    picamera2.Picamera2 = Picamera2  # type: ignore[attr-defined]
    libcamera.Transform = Transform  # type: ignore[attr-defined]
    libcamera.controls = ModuleType("controls")  # type: ignore[attr-defined]
    libcamera.controls.AfModeEnum = AfModeEnum  # type: ignore[attr-defined]
    devices = ModuleType("picamera2.devices")
    devices.IMX500 = IMX500  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "picamera2.devices", devices)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return _scene
