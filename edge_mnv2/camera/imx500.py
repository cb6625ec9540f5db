"""The Raspberry Pi AI Camera (Sony IMX500): a CSI camera whose sensor runs a network; its answers come with the frames.

picamera2's own device class loads the network file (.rpk) and aims the network at a part of the sensor: the one that
`--roi` and `--resize` mean. Frames without answers are dropped, unless there are none for `lost_s` seconds: then they
are handed over as they are, for the CPU.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections import deque
from dataclasses import replace
from typing import Any, Optional

from edge_mnv2.camera.csi import CsiCamera, import_picamera2, list_csi, missing
from edge_mnv2.camera.frame import CameraAnswers, Frame, View
from edge_mnv2.camera.settings import CameraSettings, Roi, Spec
from edge_mnv2.errors import SourceError, UsageError

__all__ = ["Imx500Camera", "make", "missing"]

log = logging.getLogger(__name__)

MODEL = "imx500"
SENSOR = (4056, 3040)
UPLOAD_S = 300.0
"""A network goes to the camera over I2C on older boards: minutes, once."""
LOST_S = 3.0
_ZIP, _RECENT = b"PK", 8


class Imx500Camera(CsiCamera):
    """CSI camera number `number` with the network of `settings`."""

    open_s = UPLOAD_S

    def __init__(self, number: int, settings: CameraSettings) -> None:
        super().__init__(number, settings)
        assert settings.network is not None
        self._network = settings.network
        # Before a camera that hands over no frames counts as lost itself.
        self.lost_s = min(LOST_S, self.stall_s / 2)
        self._device: Any = None
        self._answers: deque[tuple[int, CameraAnswers]] = deque(maxlen=_RECENT)
        self._answered_at: Optional[float] = None
        self._began = 0.0

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        frame = super().take(limit_s)
        if frame is None:
            return None
        return replace(frame, answers=self._answer_at(frame.captured_at))

    def _answer_at(self, captured_at: int) -> Optional[CameraAnswers]:
        # A copy: the camera's thread adds to them.
        return dict(tuple(self._answers)).get(captured_at)

    def set_roi(self, roi: Optional[Roi]) -> None:
        super().set_roi(roi)
        self._aim()

    def close(self) -> None:
        super().close()
        self._device = None

    def _started(self, picamera2: Any, libcamera: Any, slot: Any) -> Any:
        self._began, self._answered_at = time.monotonic(), None
        self._device = self._loaded()
        log.info("camera %s: the network %s goes to the camera", self.description, self._network.path.name)
        return super()._started(picamera2, libcamera, slot)

    def _configure(self, camera: Any, libcamera: Any) -> None:
        super()._configure(camera, libcamera)
        # What is granted is known only now, and with it what a region in pixels means.
        self._aim()

    def _loaded(self) -> Any:
        """picamera2's device with the network, before picamera2 opens the camera. Raises SourceError."""
        path, size = self._network.path, self._network.size
        camera = next((one for one in list_csi() if one.number == self.number), None)
        if camera is not None and camera.model != MODEL:
            raise SourceError(
                f"{self.description} is an {camera.model}: no network runs in it",
                hint="a Raspberry Pi AI Camera (IMX500) can; without one leave out --delegate imx500",
            )
        try:
            device = importlib.import_module("picamera2.devices").IMX500(
                str(path), camera_id=camera.id if camera else ""
            )
            input_size = tuple(device.get_input_size())
        except ImportError as error:
            raise SourceError(
                f"picamera2 cannot use the IMX500 ({error})", hint="sudo apt install imx500-all"
            ) from error
        except Exception as error:
            if path.read_bytes()[:2] == _ZIP:
                hint = f"on the Raspberry Pi: imx500-package -i {path} -o FOLDER, and use FOLDER/network.rpk"
                raise SourceError(f"{path} is packed, and not yet a network file", hint=hint) from error
            if "not found" in str(error):
                raise SourceError(
                    f"there is no IMX500 as {self.description}", hint="rpicam-hello --list-cameras"
                ) from error
            raise SourceError(f"{path} is no network file of the IMX500 ({error})", hint="it ends in .rpk") from error
        if input_size != size:
            raise SourceError(
                f"the network {path} takes {input_size[0]}x{input_size[1]}, and the model {size[0]}x{size[1]}",
                hint="give the .rpk that was compiled from this model",
            )
        return device

    def _set_view(self, view: Optional[View]) -> None:
        before = self.view
        super()._set_view(view)
        if self.view != before:
            self._aim()

    def _aim(self) -> None:
        """Let the network see the part of the sensor that a picture would be cropped to here."""
        device, view = self._device, self.view or View(SENSOR, (0, 0, *SENSOR))
        if device is None:
            return
        left, top, width, height = view.crop
        if self.geometry.roi is not None and self.granted is not None and self.granted.width and self.granted.height:
            columns, rows = self.granted.width, self.granted.height
            x, y, wide, high = self.geometry.roi.box(columns, rows)
            across, down = self._mirrored
            x, y = columns - x - wide if across else x, rows - y - high if down else y
            left, top = left + round(x * width / columns), top + round(y * height / rows)
            width, height = round(wide * width / columns), round(high * height / rows)
        inner = self._network.box(width, height)
        device.set_inference_roi_abs((left + inner[0], top + inner[1], inner[2], inner[3]))

    def _completed(self, request: Any, slot: Any) -> None:
        device, now = self._device, time.monotonic()
        if device is None:
            return
        try:
            metadata = request.get_metadata()
            values, took = device.get_outputs(metadata), device.get_kpi_info(metadata)
        except Exception as error:
            log.debug("%s: %s", self.description, error)
            values = took = None
        if values is None:
            if self._answered_at is None or now - self._answered_at < self.lost_s:
                return
        else:
            if self._answered_at is None:
                said = "" if took is None else f"; it takes {took[0]:.1f} ms and {took[1]:.1f} ms around it"
                log.info("camera %s: the network answers after %.1f s%s", self.description, now - self._began, said)
            self._answered_at = now
        self._pending = (
            None if values is None else CameraAnswers(tuple(values), None if took is None else sum(took) * 1e6)
        )
        super()._completed(request, slot)

    def _stamped(self, captured_at: int) -> None:
        if self._pending is not None:
            self._answers.append((captured_at, self._pending))


def make(spec: Spec, settings: CameraSettings) -> Imx500Camera:
    """The camera that `spec` names; for `csi` alone, the first with such a sensor. Raises UsageError."""
    if settings.rotate in (90, 270):
        raise UsageError(
            f"--rotate {settings.rotate}: the network in the camera sees the picture unturned", hint="mount it upright"
        )
    assert settings.network is not None
    if settings.network.resize == "letterbox":
        raise UsageError(
            "--resize letterbox: the network in the camera sees no bars around the picture",
            hint="--resize crop, or stretch for the whole picture, distorted",
        )
    if any(settings.geometry().mirrored):
        # By the register for the sensor's readout; nothing public says whether the network's input comes after it.
        log.warning(
            "%s: the sensor mirrors the picture; whether its network sees it mirrored is not documented: compare the "
            "labels with those of --delegate none, or mount it upright",
            spec.text,
        )
    number = spec.number
    if spec.text == "csi":
        import_picamera2()
        number = next((one.number for one in list_csi() if one.model == MODEL), number)
    return Imx500Camera(number, settings)
