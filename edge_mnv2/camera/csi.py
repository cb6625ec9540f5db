"""A CSI (ribbon cable) camera through picamera2, which comes with Raspberry Pi OS.

- The main stream is asked for in the size that is wanted: the image processor scales, at no cost to the CPU. The
  sensor's mode is chosen so that the whole scene is seen; a crop is said.
- Where the camera has autofocus it is on; `camera.controls` overrides that, and everything else.
- A format that is granted instead of RGB is converted.
- Frames are taken in picamera2's own thread, once for each completed request, with the sensor's time stamp; nothing of
  ours ever waits inside picamera2.
- Rotation by 180 degrees and flips are done by the sensor and the image processor.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from edge_mnv2.camera import csi_sensor
from edge_mnv2.camera.frame import Frame, Granted, View
from edge_mnv2.camera.handover import NewestItem
from edge_mnv2.camera.live import Captured, LiveSource, NoFrames, call_within, done_within, in_thread
from edge_mnv2.camera.settings import CameraSettings, Geometry, Spec
from edge_mnv2.errors import EdgeMnv2Error, SourceError, SourceLost
from edge_mnv2.installed import pip
from edge_mnv2.messages import first_line

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

FPS = 30.0
OPEN_S = 20.0
"""A busy board takes its time, above all for the list of the sensor's modes."""
CLOSE_S = 4.0
STALL_S = 2.0
FORMAT = "BGR888"
ARRAYS = ("BGR888", "RGB888")
"""Formats that picamera2 itself hands over as arrays of pixels."""
_PLAUSIBLE_AGE_NS = 2_000_000_000
_closings: dict[int, Future[None]] = {}
"""Cameras that were closed last, by number: closing takes long on a busy board, and only then is a camera free."""
_SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")


class CsiCamera(LiveSource):
    """CSI camera number `number`, as `rpicam-hello --list-cameras` counts."""

    backoff = (0.3, 1.0)
    open_s = OPEN_S

    def __init__(self, number: int, settings: CameraSettings) -> None:
        geometry = settings.geometry()
        self._mirrored = (False, False)
        if geometry.rotate in (0, 180):
            self._mirrored = geometry.mirrored
            geometry = Geometry(roi=geometry.roi)
        super().__init__(f"csi:{number}", geometry)
        self.number = number
        self.settings = settings
        self.stall_s = settings.stall_s or max(STALL_S, 0 if settings.fps is None else 3 / settings.fps)
        self._camera: Any = None
        self._order = "rgb"
        self._pixels: Optional[Callable[[np.ndarray], np.ndarray]] = None
        self._sensor: Optional[tuple[int, int]] = None
        self._slot: Optional[NewestItem[Captured]] = None

    def open(self) -> None:
        self.close()
        picamera2, libcamera = import_picamera2()
        closing = _closings.get(self.number)
        if closing is not None and not done_within(closing, OPEN_S):
            raise SourceError(f"{self.description} is stuck: it was closed, and is not free yet")
        slot = self._slot = NewestItem(self.description)
        try:
            self._camera = call_within(
                self.open_s, f"opening {self.description}", lambda: self._started(picamera2, libcamera, slot), _shut
            )
            if slot.closed:
                raise SourceError(f"{self.description} was closed while it was being opened")
            if not slot.ready(self.open_s):
                raise NoFrames(
                    f"{self.description} opens but gives no frames", hint="check the ribbon cable at both ends"
                )
        except EdgeMnv2Error:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise _explained(self.description, error) from error

    @property
    def closed(self) -> bool:
        return self._slot is None

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        slot = self._slot
        return None if slot is None else self._numbered(slot.take_within(self.stall_s, limit_s), self._order)

    def close(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.close()
        camera, self._camera = self._camera, None
        if camera is not None:
            closing = _closings[self.number] = in_thread(f"closing {self.description}", lambda: _shut(camera))
            done_within(closing, CLOSE_S)

    def _started(self, picamera2: Any, libcamera: Any, slot: NewestItem[Captured]) -> Any:
        camera = picamera2.Picamera2(self.number)
        # picamera2 closes what is open when Python ends, and would then wait for a stuck camera for ever. `close` of
        # ours waits no longer than CLOSE_S.
        atexit.unregister(camera.close)
        try:
            self._configure(camera, libcamera)
            camera.pre_callback = lambda request: self._completed(request, slot)
            camera.start()
        except BaseException:
            _shut(camera)
            raise
        return camera

    def _configure(self, camera: Any, libcamera: Any) -> None:
        fps = self.settings.fps or FPS
        frame_us = round(1e6 / fps)
        across, down = self._mirrored
        offered = camera.camera_controls
        modes = csi_sensor.read_modes(camera)
        mode = csi_sensor.choose(modes, fps, self.settings.size)
        width, height = csi_sensor.picture_size(mode, self.settings.size)
        controls: dict[str, Any] = {}
        if "FrameDurationLimits" in offered:
            controls["FrameDurationLimits"] = (frame_us, frame_us)
        if "AfMode" in offered:
            controls["AfMode"] = getattr(libcamera.controls.AfModeEnum, "Continuous")  # noqa: B009
        controls.update(csi_sensor.controls(self.settings.controls, offered, libcamera, self.description))
        options: dict[str, Any] = {} if mode is None else csi_sensor.mode_options(camera, mode)
        camera.configure(
            camera.create_video_configuration(
                main={"size": (width, height), "format": FORMAT},
                transform=libcamera.Transform(hflip=int(across), vflip=int(down)),
                controls=controls,
                buffer_count=4,
                **options,
            )
        )
        main = camera.camera_configuration()["main"]
        converter = csi_sensor.converter(str(main["format"]))
        if converter is None:
            raise SourceError(f"{self.description} gives {main['format']}, which cannot be converted")
        convert, self._order = converter
        width, height = main["size"]
        stride = int(main.get("stride") or 0)
        self._pixels = None if main["format"] in ARRAYS else (lambda data: convert(data, width, height, stride))
        model = str(camera.camera_properties.get("Model", "camera"))
        self.description = f"csi:{self.number} ({model})"
        self._sensor = csi_sensor.sensor_size(camera.camera_properties, modes)
        self._set_view(csi_sensor.expected_view(mode, self._sensor, (width, height)))
        granted = Granted(width, height, min(fps, mode.fps) if mode else fps, str(main["format"]), "picamera2")
        if granted != self.granted:
            asked = self.settings.size
            differs = asked is not None and asked != (granted.width, granted.height)
            log.log(
                logging.WARNING if differs else logging.INFO,
                "camera %s: %sx%s at %g fps%s",
                self.description,
                granted.width,
                granted.height,
                granted.fps,
                " granted, not what was asked for" if differs else "",
            )
        self.granted = granted

    def _set_view(self, view: Optional[View]) -> None:
        """What is seen of the sensor; said where it is not the whole."""
        if view is None or view == self.view:
            return
        cropped_before = self.view is not None and self.view.cropped
        self.view = view
        name = self.description.partition(": sees ")[0]
        self.description = f"{name}: sees {view}" if view.cropped else name
        if view.cropped and not cropped_before:
            log.warning("camera %s sees a part of the scene: %s", name, view)

    def _completed(self, request: Any, slot: NewestItem[Captured]) -> None:
        # An exception would end picamera2's thread, and the camera with it.
        try:
            if slot.closed:
                return
            metadata = request.get_metadata()
            crop = metadata.get("ScalerCrop")
            if crop is not None and self._sensor is not None:
                left, top, width, height = (int(number) for number in crop)
                across, down = self._sensor
                if 0 < width <= across - left and 0 < height <= down - top:
                    self._set_view(View(self._sensor, (left, top, width, height)))
            pixels = request.make_array("main") if self._pixels is None else self._pixels(request.make_buffer("main"))
            captured_at = _monotonic(metadata.get("SensorTimestamp"))
            self._stamped(captured_at)
            slot.add((pixels, captured_at))
        except Exception as error:
            slot.finish(SourceLost(f"{self.description}: a frame cannot be read: {error}"))

    def _stamped(self, captured_at: int) -> None:
        """A frame of this time is about to be handed over."""


def make(spec: Spec, settings: CameraSettings) -> CsiCamera:
    """The camera of the table's rows."""
    return CsiCamera(spec.number, settings)


def import_picamera2() -> tuple[Any, Any]:
    """The modules picamera2 and libcamera. Raises SourceError that says how to get them."""
    try:
        return importlib.import_module("picamera2"), importlib.import_module("libcamera")
    except ImportError as error:
        raise SourceError("a CSI camera needs picamera2, which cannot be imported here", hint=_how(error)) from error
    except Exception as error:
        # A package built for another numpy raises ValueError, a missing native library OSError.
        raise SourceError(
            f"picamera2 is installed but does not work ({first_line(error)})",
            hint=f"in a virtual environment remove pip's numpy, or {pip()} 'numpy<2'"
            if "numpy" in str(error) or "_ARRAY_API" in str(error)
            else "sudo apt install --reinstall python3-picamera2",
        ) from error


def missing() -> Optional[str]:
    """Why picamera2 cannot be used here; None where it can be imported."""
    try:
        import_picamera2()
    except SourceError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class CsiInfo:
    """A CSI camera as picamera2 counts it; its sensor's modes, and what `run` would see where no size is asked for."""

    number: int
    model: str
    id: str
    modes: tuple[csi_sensor.SensorMode, ...] = ()
    view: Optional[View] = None
    problem: Optional[str] = None


def list_csi(modes: bool = False) -> list[CsiInfo]:
    """The CSI cameras; none where picamera2 is missing. With `modes` each one that is free is opened and asked."""
    try:
        picamera2, _ = import_picamera2()
        rows = call_within(OPEN_S, "listing CSI cameras", picamera2.Picamera2.global_camera_info, lambda _: None)
    except Exception as error:
        log.debug("no CSI cameras: %s", error)
        return []
    # libcamera lists USB cameras as well; those are opened as V4L2 devices.
    cameras = [
        CsiInfo(number, str(row.get("Model", "unknown")), str(row.get("Id", "")))
        for number, row in enumerate(rows)
        if "/usb" not in str(row.get("Id", ""))
    ]
    return [_asked(picamera2, camera) for camera in cameras] if modes else cameras


def _asked(picamera2: Any, camera: CsiInfo) -> CsiInfo:
    name = f"csi:{camera.number}"

    def ask() -> CsiInfo:
        device = picamera2.Picamera2(camera.number)
        try:
            modes = csi_sensor.read_modes(device)
            mode = csi_sensor.choose(modes, FPS)
            sensor = csi_sensor.sensor_size(device.camera_properties, modes)
            view = csi_sensor.expected_view(mode, sensor, csi_sensor.picture_size(mode, None))
            return replace(camera, modes=tuple(modes), view=view)
        finally:
            _shut(device)

    try:
        return call_within(OPEN_S, f"opening {name}", ask, lambda _: None)
    except SourceError as error:
        return replace(camera, problem=error.message)
    except Exception as error:
        return replace(camera, problem=_explained(name, error).message)


def _how(error: ImportError) -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    in_venv = sys.prefix != sys.base_prefix
    if (_SYSTEM_PACKAGES / "picamera2").is_dir():
        if in_venv and str(_SYSTEM_PACKAGES) not in sys.path:
            return f"it is installed for the system: set include-system-site-packages = true in {sys.prefix}/pyvenv.cfg"
        return f"it is installed, but Python {version} cannot load it ({first_line(error)}); use /usr/bin/python3"
    install = "sudo apt install -y python3-picamera2 (Raspberry Pi OS)"
    if in_venv and str(_SYSTEM_PACKAGES) not in sys.path:
        return f"{install}, then set include-system-site-packages = true in {sys.prefix}/pyvenv.cfg"
    return install


def _monotonic(stamp: Optional[int]) -> int:
    """A sensor's time stamp as monotonic nanoseconds; now, where there is none that makes sense.

    libcamera documents the clock that goes on in suspend (CLOCK_BOOTTIME); kernels' drivers stamp with the monotonic.
    """
    now = time.monotonic_ns()
    if stamp is None:
        return now
    for clock in (now, time.clock_gettime_ns(time.CLOCK_BOOTTIME)):
        if 0 <= clock - stamp < _PLAUSIBLE_AGE_NS:
            return now - (clock - stamp)
    return now


def _shut(camera: Any) -> None:
    for step in (camera.stop, camera.close):
        with contextlib.suppress(Exception):
            step()


def _explained(name: str, error: BaseException) -> SourceError:
    """picamera2 raises RuntimeError for everything; what happened is in the chain of causes."""
    chain: list[str] = []
    link: Optional[BaseException] = error
    while link is not None and len(chain) < 8:
        chain.append(first_line(link))
        link = link.__cause__
    text = " <- ".join(dict.fromkeys(chain))
    lowered = text.lower()
    if "no camera number" in lowered or "camera(s) not found" in lowered or "index out of range" in lowered:
        return SourceError(f"there is no CSI camera {name}", hint="check the ribbon cable; rpicam-hello --list-cameras")
    if "busy" in lowered or "acquire" in lowered or "in use" in lowered:
        return SourceError(f"{name} is in use by another process ({text})", hint="stop it, for instance rpicam-vid")
    return SourceError(f"{name} cannot be opened: {text}")
