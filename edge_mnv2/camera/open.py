"""From a SPEC to a source: one table of backends, tried in order.

`EDGE_MNV2_CAMERA_BACKEND`, else the profile's `camera.backend`, names one instead; `test` puts the test pattern in the
place of any camera. Each kind of source is imported where it is made: a start pays for the one that it uses.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.camera.frame import Frame
from edge_mnv2.camera.pattern import FPS, SIZE, TestPattern
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.camera.source import Source
from edge_mnv2.camera.spec import Spec, parse
from edge_mnv2.camera.watchdog import Watchdog
from edge_mnv2.errors import SourceError, UsageError

log = logging.getLogger(__name__)

BACKEND = "EDGE_MNV2_CAMERA_BACKEND"
LOSS = "EDGE_MNV2_SIMULATE_LOSS_EVERY"

Make = Callable[[Spec, CameraSettings], Source]


@dataclass(frozen=True)
class Backend:
    """One way to open a kind of source.

    `here` says whether it is meant for this board at all, `unusable` what is missing for it, None where nothing is.
    """

    name: str
    make: Make
    unusable: Callable[[], Optional[str]] = lambda: None
    here: Callable[[], bool] = lambda: True


def _device(spec: Spec, settings: CameraSettings) -> Source:
    from edge_mnv2.camera.v4l2_camera import V4l2Camera

    return V4l2Camera(spec.number if spec.path is None else str(spec.path), settings)


def _device_pipeline(spec: Spec, settings: CameraSettings) -> Source:
    from edge_mnv2.camera import stream

    path = spec.path or Path(f"/dev/video{spec.number}")
    if not path.exists():
        raise SourceError(f"there is no camera {path}")
    width, height = settings.size or SIZE
    pipeline = f"v4l2src device={path} ! decodebin ! videoscale ! video/x-raw,width={width},height={height}"
    return stream.GStreamerStream(pipeline, settings, str(path))


def _jetson(spec: Spec, settings: CameraSettings) -> Source:
    from edge_mnv2.camera import stream

    return stream.GStreamerStream(stream.jetson_csi_pipeline(spec.number, settings), settings, f"csi:{spec.number}")


def on_jetson(root: Union[Path, str] = "/") -> bool:
    """Whether this is an NVIDIA Jetson with its camera software."""
    return Path(root, "etc/nv_tegra_release").exists() or Path(root, "proc/device-tree/nvidia,dtsfilename").exists()


def _no_gstreamer() -> Optional[str]:
    from edge_mnv2.camera import stream

    reason = stream.gstreamer_missing()
    return None if reason is None else f"{reason[0]}: {reason[1]}"


def _no_picamera2() -> Optional[str]:
    from edge_mnv2.camera import csi

    return csi.missing()


def _picamera2(spec: Spec, settings: CameraSettings) -> Source:
    from edge_mnv2.camera import csi

    return csi.CsiCamera(spec.number, settings)


def _address(spec: Spec, settings: CameraSettings) -> Source:
    assert spec.url is not None
    from edge_mnv2.camera import stream

    return stream.FfmpegStream(spec.url, settings)


def _mjpeg(spec: Spec, settings: CameraSettings) -> Source:
    from edge_mnv2.camera.mjpeg import MjpegStream

    assert spec.url is not None
    return MjpegStream(spec.url, settings)


def _pattern(spec: Spec, settings: CameraSettings, hurry: bool = False) -> Source:
    width, height = spec.size or settings.size or SIZE
    return TestPattern(width, height, spec.fps or settings.fps or FPS, settings.geometry(), _loss_every(), hurry)


_TEST = Backend("test", _pattern)

BACKENDS: dict[str, tuple[Backend, ...]] = {
    "device": (
        Backend("opencv", _device),
        Backend("gstreamer", _device_pipeline, _no_gstreamer),
    ),
    "csi": (
        Backend("gstreamer", _jetson, _no_gstreamer, on_jetson),
        Backend("picamera2", _picamera2, _no_picamera2, lambda: not on_jetson()),
    ),
    "rtsp": (Backend("opencv", _address),),
    "http": (Backend("mjpeg", _mjpeg), Backend("opencv", _address)),
}
"""Kind of source → the ways to open it, in the order in which they are tried."""


def open_source(
    spec: str,
    settings: Optional[CameraSettings] = None,
    *,
    give_up_s: Optional[float] = None,
    hurry: bool = False,
) -> Union[Source, Watchdog]:
    """The source that `spec` names, not yet opened; live cameras and streams under a watchdog.

    With `hurry` the test pattern does not keep its rate. Nothing is opened here, but `demo` is fetched. Raises
    UsageError for a malformed SPEC or backend, SourceError for what is not there or cannot work here, DownloadError
    where `demo` cannot be had.
    """
    settings = settings or CameraSettings()
    parsed = parse(spec)
    if parsed.kind == "auto":
        raise UsageError("'auto' stands for a choice that is made elsewhere", hint="name a source")
    if parsed.kind in ("still", "folder", "clip", "demo"):
        return _file(parsed, settings)
    if parsed.kind == "test":
        pattern = _pattern(parsed, settings, hurry)
        # Only a loss on purpose can take the pattern away.
        return Watchdog(pattern, frozen_s=0, give_up_s=give_up_s, backoff=(0.001, 0.01)) if _loss_every() else pattern
    if parsed.kind == "gst":
        from edge_mnv2.camera import stream

        source: Source = stream.GStreamerStream(parsed.pipeline, settings)
    else:
        source = _chosen(parsed, settings)
    return Watchdog(
        source, frozen_s=settings.frozen_s, give_up_s=give_up_s, warmup_frames=_warmup(parsed.kind, settings)
    )


def _file(spec: Spec, settings: CameraSettings) -> Source:
    geometry = settings.geometry()
    if spec.kind == "demo":
        from edge_mnv2.camera.clip import ClipSource
        from edge_mnv2.zoo.pull import fetch

        return ClipSource(fetch("demo"), geometry, "demo")
    assert spec.path is not None
    if spec.kind == "clip":
        from edge_mnv2.camera.clip import ClipSource

        return ClipSource(spec.path, geometry)
    from edge_mnv2.camera.pictures import FolderSource, StillSource

    return StillSource(spec.path, geometry) if spec.kind == "still" else FolderSource(spec.path, geometry)


def _warmup(kind: str, settings: CameraSettings) -> int:
    if settings.warmup_frames is not None:
        return settings.warmup_frames
    # Exposure and white balance of a camera that has just been started; a stream's camera has been running for long.
    return {"device": 5, "csi": 10}.get(kind, 0)


def _chosen(spec: Spec, settings: CameraSettings) -> Source:
    candidates = [backend for backend in BACKENDS[spec.kind] if backend.here()]
    why = ""
    wanted, origin = _named_backend(settings)
    if wanted is not None:
        known = (*BACKENDS[spec.kind], _TEST)
        named = [backend for backend in known if backend.name == wanted]
        if named:
            candidates, why = named, f", as {origin} says"
        elif origin == BACKEND or spec.kind in ("device", "csi"):
            names = ", ".join(backend.name for backend in known)
            raise UsageError(f"{origin} is '{wanted}', which cannot open {spec.text}", hint=f"one of {names}")
    missing = [(backend.name, backend.unusable()) for backend in candidates]
    usable = [backend for backend, (_, reason) in zip(candidates, missing) if reason is None]
    reasons = [reason for _, reason in missing if reason is not None]
    if not usable:
        raise SourceError(f"{spec.text} cannot be opened: {'; '.join(reasons)}")
    if missing[0][1] is not None:
        why = f", because {missing[0][0]} is missing: {missing[0][1]}"
    log.info("camera %s: through %s%s", spec.text, usable[0].name, why)
    # Only behind an HTTP address it shows at opening which backend is the right one.
    return (
        FirstThatFits(spec, settings, usable)
        if len(usable) > 1 and spec.kind == "http"
        else usable[0].make(spec, settings)
    )


def _named_backend(settings: CameraSettings) -> tuple[Optional[str], str]:
    value = os.environ.get(BACKEND, "").strip()
    if value and value != "auto":
        return value, BACKEND
    return (settings.backend, "camera.backend") if settings.backend not in (None, "auto") else (None, "")


class FirstThatFits(Source):
    """Opens with the first backend that finds what it can read behind the address, and stays with that one."""

    live = True
    backoff = (0.5, 15.0)

    def __init__(self, spec: Spec, settings: CameraSettings, backends: list[Backend]) -> None:
        super().__init__(spec.text)
        self._waiting = [(backend.name, backend.make(spec, settings)) for backend in backends]
        self._source = self._waiting[0][1]
        self._closed = False

    def open(self) -> None:
        from edge_mnv2.camera.mjpeg import NotMjpeg

        self._closed = False
        while True:
            name, self._source = self._waiting[0]
            try:
                self._source.open()
            except NotMjpeg as error:
                if len(self._waiting) == 1 or self._closed:
                    raise
                self._waiting = self._waiting[1:]
                log.info("%s: trying %s instead of %s", error.message, self._waiting[0][0], name)
                continue
            self._waiting = self._waiting[:1]
            return

    def read(self) -> Optional[Frame]:
        frame = self._source.read()
        self.granted, self.decode_errors = self._source.granted, self._source.decode_errors
        return frame

    def close(self) -> None:
        self._closed = True
        self._source.close()


def _loss_every() -> int:
    text = os.environ.get(LOSS, "").strip()
    if not text:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 10**9:
        raise UsageError(f"{LOSS}={text}", hint="a whole number of frames")
    return int(text)
