"""A stand-in for the packages picamera2 and libcamera, for boards' cameras that cannot be here.

`installed(monkeypatch, scene)` puts it where `import picamera2` and `import libcamera` find it; the real packages take
its place without a change. It does what was measured on the real library (0.3.3x): "RGB888" arrays are BGR and "BGR888"
arrays RGB, the default main format is XBGR8888, sizes are even, unknown controls are refused, callbacks run in the
camera's own thread under its lock and an exception ends that thread, `RuntimeError` for everything, causes in
`__cause__`, one owner at a time.
"""

from __future__ import annotations

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


class Scene:
    """What the stand-in films, and its faults; one for all cameras of a test."""

    def __init__(self, rgb: np.ndarray, cameras: int = 1) -> None:
        self.rgb = rgb
        self.cameras = cameras
        self.in_use: set[int] = set()
        self.fail_acquire = False
        self.frozen = threading.Event()
        self.hang_in_stop = threading.Event()
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

    def get_metadata(self) -> dict[str, Any]:
        return {"SensorTimestamp": self._stamp, "ExposureTime": 10000}


class Picamera2:
    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        name = "/base/soc/i2c0mux/i2c@1/imx219@10"
        return [{"Model": SENSOR, "Location": 2, "Rotation": 180, "Id": name, "Num": n} for n in range(_scene.cameras)]

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
        self._number = camera_num
        self._config: dict[str, Any] = {}
        self._thread: Optional[threading.Thread] = None
        self._halt = threading.Event()
        self._lock = threading.Lock()
        self.pre_callback: Optional[Callable[[CompletedRequest], None]] = None
        self.post_callback: Optional[Callable[[CompletedRequest], None]] = None
        self.camera_properties = {"Model": SENSOR}
        self.camera_controls = {"AfMode": (0, 2, 0), "ExposureTime": (10, 10**7, 0), "FrameDurationLimits": (1, 1, 1)}
        self.controls_set: dict[str, Any] = {}

    def create_video_configuration(
        self,
        main: dict[str, Any] = {},  # noqa: B006
        lores: Optional[dict[str, Any]] = None,
        transform: Optional[Transform] = None,
        controls: dict[str, Any] = {},  # noqa: B006
        buffer_count: int = 6,
    ) -> dict[str, Any]:
        return {
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
        if main["format"] not in ("BGR888", "RGB888", "XBGR8888", "XRGB8888"):
            raise RuntimeError(f"Bad format {main['format']} in stream main")
        if main["size"][0] % 2 or main["size"][1] % 2:
            raise RuntimeError("width and height should be even")
        for name in config["controls"]:
            if name not in self.camera_controls:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        self._config, self.controls_set = config, config["controls"]

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
        alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
        return {
            "BGR888": lambda: picture,
            "RGB888": lambda: picture[..., ::-1],
            "XBGR8888": lambda: np.dstack([picture, alpha]),
            "XRGB8888": lambda: np.dstack([picture[..., ::-1], alpha]),
        }[main["format"]]()


def installed(monkeypatch: pytest.MonkeyPatch, rgb: np.ndarray, cameras: int = 1) -> Scene:
    """Make `import picamera2` and `import libcamera` give the stand-ins, which film `rgb`."""
    global _scene
    _scene = Scene(rgb, cameras)
    picamera2, libcamera = ModuleType("picamera2"), ModuleType("libcamera")
    picamera2.Picamera2 = Picamera2  # type: ignore[attr-defined]
    libcamera.Transform = Transform  # type: ignore[attr-defined]
    libcamera.controls = ModuleType("controls")  # type: ignore[attr-defined]
    libcamera.controls.AfModeEnum = AfModeEnum  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", picamera2)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)
    return _scene
