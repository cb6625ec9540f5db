"""A V4L2 camera (USB, virtual) through OpenCV.

Order of settings: pixel format, size, rate, number of buffers; OpenCV starts anew at each, and a size asked for before
MJPG is cut down to what the uncompressed format reaches. What was granted is read back, because `set` says yes to
formats that the camera does not have.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2.camera import ioctl, v4l2
from edge_mnv2.camera.jpeg import JpegDecoder, reduction
from edge_mnv2.camera.live import ThreadedSource
from edge_mnv2.camera.opencv import CaptureReader, granted_by, import_cv2
from edge_mnv2.camera.settings import CameraSettings, Spec
from edge_mnv2.errors import SourceError, SourceLost

log = logging.getLogger(__name__)

SIZE = (640, 480)
FPS = 30.0
OPEN_S = 8.0
STALL_S = 2.0


class V4l2Camera(ThreadedSource):
    """The camera at `path`: a node, an index, or a link below /dev/v4l."""

    def __init__(self, path: Union[str, int], settings: CameraSettings, root: Union[Path, str] = "/") -> None:
        path = str(Path(root) / f"dev/video{path}") if isinstance(path, int) else path
        # A camera that was asked for one frame in five seconds is not lost after two.
        stall_s = settings.stall_s or max(STALL_S, 0 if settings.fps is None else 3 / settings.fps)
        super().__init__(path, settings.geometry(), stall_s)
        self.settings = settings
        self._path = path
        self._root = root
        self._identity: Optional[v4l2.Identity] = None
        self._neighbours: frozenset[str] = frozenset()

    def open(self) -> None:
        self.close()
        path = self._located()
        info = v4l2.describe(path, self._root)
        if info is None:
            raise _problem(path, self._root)
        if info.csi:
            raise SourceError(
                f"{path} is a CSI camera ({info.name}), which gives no pictures by its number", hint="use --camera csi"
            )
        self.description = f"{path} ({info.name})"
        self._start(path, lambda: self._connect(path, info), OPEN_S)
        if self._identity is None:
            self._identity = info.identity
            here = None if info.identity is None else info.identity.place
            self._neighbours = v4l2.places(self._root) - {here}

    def _located(self) -> str:
        """Where the camera is now; after the first opening it is known by what it is, not by its index."""
        if self._identity is not None:
            path = v4l2.find_again(self._identity, self._root, self._neighbours)
            if path is None:
                raise SourceLost(f"{self.description} is not plugged in")
            if path != os.path.realpath(self._path):
                log.debug("%s is now %s", self.description, path)
            return path
        if not Path(self._path).exists():
            raise SourceError(f"there is no camera {self._path}", hint=_choices(self._root))
        return os.path.realpath(self._path)

    def _connect(self, path: str, info: v4l2.CameraInfo) -> CaptureReader:
        cv2 = import_cv2()
        capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise _problem(path, self._root)
        try:
            wanted = self.settings.format or next((f.fourcc for f in info.formats if f.fourcc == "MJPG"), None)
            width, height = self.settings.size or SIZE
            if wanted is not None:
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*wanted.upper()))
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
            capture.set(cv2.CAP_PROP_FPS, self.settings.fps or FPS)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            self._read_back(capture, path)
            _set_controls(path, self.settings)
        except BaseException:
            capture.release()
            raise
        return CaptureReader(
            capture,
            self.description,
            driver_clock=True,
            damaged=self._count_damage,
            decode=self._own_decoder(cv2, capture),
        )

    def _own_decoder(self, cv2: Any, capture: Any) -> Optional[JpegDecoder]:
        """A decoder for JPEGs that are larger than needed; OpenCV then hands them over as they came."""
        granted, least_side = self.granted, self.settings.least_side
        if granted is None or granted.format != "MJPG" or granted.width is None or granted.height is None:
            return None
        if reduction(granted.width, granted.height, least_side) == 1:
            return None
        return JpegDecoder(least_side) if capture.set(cv2.CAP_PROP_CONVERT_RGB, 0) else None

    def _read_back(self, capture: Any, path: str) -> None:
        granted = granted_by(capture, "v4l2")
        asked = self.settings
        differs = (
            (asked.size is not None and asked.size != (granted.width, granted.height))
            or (asked.fps is not None and granted.fps is not None and abs(granted.fps - asked.fps) > 0.5)
            or (asked.format is not None and asked.format.upper() != granted.format)
        )
        if granted != self.granted:
            log.log(
                logging.WARNING if differs else logging.INFO,
                "camera %s: %s %sx%s at %s fps%s",
                path,
                granted.format or "unknown format",
                granted.width,
                granted.height,
                "unknown" if granted.fps is None else f"{granted.fps:g}",
                " granted, not what was asked for" if differs else "",
            )
        self.granted = granted


def make(spec: Spec, settings: CameraSettings) -> V4l2Camera:
    """The camera of the table's rows."""
    return V4l2Camera(spec.number if spec.path is None else str(spec.path), settings)


def _problem(path: str, root: Union[Path, str]) -> SourceError:
    message, hint = v4l2.why_closed(path, root) or (f"{path} cannot be opened as a camera", None)
    return SourceError(message, hint=hint)


def _choices(root: Union[Path, str]) -> str:
    cameras = v4l2.list_cameras(root, formats=False)
    if not cameras:
        return "no V4L2 camera was found; for a camera on a ribbon cable use --camera csi"
    return "found: " + ", ".join(f"{camera.path} ({camera.name})" for camera in cameras)


def _set_controls(path: str, settings: CameraSettings) -> None:
    """Set the camera's own controls by name; one that it does not have is said and left out."""
    if not settings.controls:
        return
    with contextlib.suppress(OSError), ioctl.opened(path) as descriptor:
        known = {name: identifier for identifier, name, _, _ in ioctl.controls(descriptor)}
        for name, value in settings.controls.items():
            if name not in known:
                log.warning("camera %s has no control %s: left out", path, name)
                continue
            try:
                ioctl.set_control(descriptor, known[name], int(value))
            except (OSError, TypeError, ValueError) as error:
                log.warning("camera %s refuses %s=%s: %s", path, name, value, error)
