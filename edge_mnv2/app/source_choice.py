"""Which source a run reads, by the order that the command line promises."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Optional

from edge_mnv2.camera.frame import FrameSource
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraNetwork, CameraSettings, parse
from edge_mnv2.errors import DownloadError, EdgeMnv2Error, SourceError, UsageError
from edge_mnv2.settings.schema import Camera

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenSource:
    """A source, not yet opened. `fallback` is true where neither a source was named nor a camera found."""

    source: FrameSource
    fallback: bool = False
    notes: list[str] = field(default_factory=list)


def choose_source(
    source: Optional[str],
    camera: Optional[str],
    settings: Camera,
    *,
    give_up_s: Optional[float] = None,
    hurry: bool = False,
    least_side: Optional[int] = None,
    network: Optional[CameraNetwork] = None,
) -> ChosenSource:
    """The source that was asked for; else the profile's, the first camera, the demo clip, the test pattern.

    `camera` is "first" or a camera's SPEC. With `hurry` the test pattern does not keep its rate. `least_side` is the
    shorter side, in pixels, that pictures must have (None: as large as they come), `network` runs inside the camera.
    Raises UsageError (both given), SourceError (no camera, no such file).
    """
    if source is not None and camera is not None:
        raise UsageError("--camera and --source exclude each other", hint="give one of them")
    wanted = CameraSettings(**settings.asked(), least_side=least_side, network=network)

    def opened(spec: str) -> FrameSource:
        return open_source(spec, wanted, give_up_s=give_up_s, hurry=hurry)

    if camera == "first":
        first = _first_camera()
        if first is None:
            raise SourceError(
                "no camera found: looked for V4L2 devices (/dev/video*) and a CSI camera (picamera2)",
                hint="plug one in and see `edge-mnv2 devices cameras`, or use --camera demo",
            )
        return ChosenSource(opened(first))
    if camera is not None:
        return ChosenSource(opened(camera))
    if source not in (None, "auto"):
        return ChosenSource(opened(str(source)))
    if settings.source not in (None, "auto"):
        return ChosenSource(opened(str(settings.source)))
    first = _first_camera()
    if first is not None:
        return ChosenSource(opened(first), notes=[f"source: the first camera, {first}"])
    try:
        return ChosenSource(opened("demo"), True, ["no camera found: classifying the demo clip instead"])
    except DownloadError as error:
        log.debug("demo: %s", error)
        said = f"no camera found and the demo clip is not at hand ({error.message}): showing the test pattern"
        return ChosenSource(opened("test"), True, [said])


def reads_file(source: Optional[str], camera: Optional[str], settings: Camera) -> bool:
    """Whether a source is asked for that is a file of many pictures, or as good as one; nothing is opened."""
    named = settings.source if source in (None, "auto") else source
    if camera is not None or named is None:
        return False
    try:
        return parse(named).kind in ("clip", "demo", "folder", "test")
    except EdgeMnv2Error:
        # It is told when the source is opened.
        return False


def _first_camera() -> Optional[str]:
    from edge_mnv2.camera.v4l2 import first_camera

    return first_camera()
