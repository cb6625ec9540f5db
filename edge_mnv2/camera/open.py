"""From a SPEC to a source: one table of what can be opened, and how.

`EDGE_MNV2_CAMERA_BACKEND`, else the profile's `camera.backend`, names one backend instead of the usual order; `test`
puts the test pattern in the place of any camera. A new backend is one file and one row of `KINDS`.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2.camera.frame import Source
from edge_mnv2.camera.pattern import loss_every
from edge_mnv2.camera.settings import CameraSettings, Spec, parse
from edge_mnv2.camera.watchdog import Watchdog
from edge_mnv2.errors import SourceError, UsageError

log = logging.getLogger(__name__)

BACKEND = "EDGE_MNV2_CAMERA_BACKEND"


def on_jetson(root: Union[Path, str] = "/") -> bool:
    """Whether this is an NVIDIA Jetson with its camera software."""
    return Path(root, "etc/nv_tegra_release").exists() or Path(root, "proc/device-tree/nvidia,dtsfilename").exists()


@dataclass(frozen=True)
class Backend:
    """One way to open a kind of source.

    `factory` is "module:function" below `edge_mnv2.camera`, imported when it is used, so that a start pays only for the
    backend that it needs; the function makes a `Source` of a `Spec` and `CameraSettings`. `missing` names a function
    of the same module that says what this board lacks for it, or None. `here`: whether it is meant for this board.
    """

    name: str
    factory: str
    missing: str = ""
    here: Callable[[], bool] = lambda: True

    def make(self, spec: Spec, settings: CameraSettings) -> Source:
        """The source, not yet opened. Raises SourceError."""
        source: Source = self._function(self.factory.partition(":")[2])(spec, settings)
        return source

    def unusable(self) -> Optional[str]:
        """What this board lacks for it, None where it can be used."""
        reason: Optional[str] = self._function(self.missing)() if self.missing else None
        return reason

    def _function(self, name: str) -> Any:
        return getattr(importlib.import_module(f"edge_mnv2.camera.{self.factory.partition(':')[0]}"), name)


@dataclass(frozen=True)
class Kind:
    """A kind of source: its backends in the order in which they are tried.

    `warmup_frames` are dropped after each opening, while exposure and white balance settle. `live`: a watchdog opens
    it again when it stops.
    """

    backends: tuple[Backend, ...]
    warmup_frames: int = 0
    live: bool = True


_GSTREAMER = "gstreamer_missing"
_TEST = Backend("test", "pattern:make")

KINDS: dict[str, Kind] = {
    "device": Kind(
        (Backend("opencv", "v4l2_camera:make"), Backend("gstreamer", "stream:make_v4l2src", _GSTREAMER)),
        warmup_frames=5,
    ),
    "csi": Kind(
        (
            Backend("gstreamer", "stream:make_jetson_csi", _GSTREAMER, on_jetson),
            Backend("picamera2", "csi:make", "missing", lambda: not on_jetson()),
        ),
        warmup_frames=10,
    ),
    "rtsp": Kind((Backend("opencv", "stream:make_ffmpeg"),)),
    "http": Kind((Backend("mjpeg", "http_camera:make"), Backend("opencv", "stream:make_ffmpeg"))),
    # What a pipeline lacks is said when it is opened.
    "gst": Kind((Backend("gstreamer", "stream:make_gstreamer"),)),
    "test": Kind((_TEST,), live=False),
    "clip": Kind((Backend("ffmpeg", "clip:make"),), live=False),
    "demo": Kind((Backend("ffmpeg", "clip:make_demo"),), live=False),
    "still": Kind((Backend("still", "pictures:make_still"),), live=False),
    "folder": Kind((Backend("folder", "pictures:make_folder"),), live=False),
}
"""Every kind of source that a SPEC can name."""

_WITH_NETWORK = Kind((Backend("picamera2", "imx500:make", "missing"),))
"""A CSI camera that runs the model itself."""


def open_source(
    spec: str,
    settings: Optional[CameraSettings] = None,
    *,
    give_up_s: Optional[float] = None,
    hurry: bool = False,
) -> Source:
    """The source that `spec` names, not yet opened; live cameras and streams under a watchdog.

    With `hurry` the test pattern does not keep its rate. Nothing is opened here, but `demo` is fetched. Raises
    UsageError for a malformed SPEC or backend, SourceError for what is not there or cannot work here, DownloadError
    where `demo` cannot be had.
    """
    settings = replace(settings or CameraSettings(), hurry=hurry)
    parsed = parse(spec)
    if parsed.kind == "auto":
        raise UsageError("'auto' stands for a choice that is made elsewhere", hint="name a source")
    kind = KINDS[parsed.kind]
    if settings.network is not None:
        if parsed.kind != "csi":
            raise UsageError(
                f"{settings.network.path}: the network runs in a CSI camera, not in {parsed.text}", hint="--camera csi"
            )
        kind = _WITH_NETWORK
    source = _chosen(parsed, kind, settings)
    if parsed.kind == "test" and loss_every():
        # Only a loss on purpose can take the pattern away.
        return Watchdog(source, frozen_s=0, give_up_s=give_up_s, backoff=(0.001, 0.01))
    if not kind.live:
        return source
    warmup = kind.warmup_frames if settings.warmup_frames is None else settings.warmup_frames
    return Watchdog(source, frozen_s=settings.frozen_s, give_up_s=give_up_s, warmup_frames=warmup)


def _chosen(spec: Spec, kind: Kind, settings: CameraSettings) -> Source:
    if not kind.live or (len(kind.backends) == 1 and spec.kind == "gst"):
        return kind.backends[0].make(spec, settings)
    candidates = [backend for backend in kind.backends if backend.here()]
    why = ""
    wanted, origin = _named_backend(settings)
    if wanted is not None:
        known = (*kind.backends, _TEST)
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
    return usable[0].make(spec, settings)


def _named_backend(settings: CameraSettings) -> tuple[Optional[str], str]:
    value = os.environ.get(BACKEND, "").strip()
    if value and value != "auto":
        return value, BACKEND
    return (settings.backend, "camera.backend") if settings.backend not in (None, "auto") else (None, "")
