"""What a user or a profile asks of a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from edge_mnv2.camera.geometry import FLIPS, ROTATIONS, Geometry, Roi
from edge_mnv2.errors import UsageError


@dataclass(frozen=True)
class CameraSettings:
    """Every field may stay out; None means that the source decides.

    `width`, `height` (pixels), `fps` and `format` (a V4L2 FourCC such as "MJPG") are asked of a camera, which may grant
    something else. `rotate` is clockwise degrees, `flip` "h", "v" or "hv", `roi` a region as `Roi.parse` takes it.
    `warmup_frames` are thrown away after each opening of a live source. A live source is lost after `stall_s` seconds
    without a frame, or after `frozen_s` seconds of equal pictures (0: never). `backend` names one way to open a camera
    instead of the usual order. `controls` are the camera's own: V4L2 or libcamera names. `least_side`: whoever uses the
    pictures needs a shorter side of so many pixels only, so JPEGs may be decoded smaller than the camera sends them.
    Raises UsageError for a value out of range.
    """

    width: Optional[int] = None
    height: Optional[int] = None
    fps: Optional[float] = None
    format: Optional[str] = None
    rotate: int = 0
    flip: Optional[str] = None
    roi: Optional[Union[Roi, str, tuple[float, float, float, float]]] = None
    warmup_frames: Optional[int] = None
    stall_s: Optional[float] = None
    frozen_s: float = 5.0
    backend: Optional[str] = None
    controls: Mapping[str, Any] = field(default_factory=dict)
    least_side: Optional[int] = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("width", 16, 16384),
            ("height", 16, 16384),
            ("fps", 0.01, 100_000),
            ("warmup_frames", 0, 10_000),
            ("stall_s", 0.1, 3600),
            ("frozen_s", 0, 86_400),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} of {value}", hint=f"from {low:g} to {high:g}")
        if (self.width is None) != (self.height is None):
            raise UsageError("width without height, or height without width", hint="give both")
        if self.rotate not in ROTATIONS:
            raise UsageError(f"rotation by {self.rotate} degrees", hint="0, 90, 180 or 270, clockwise")
        if self.flip and "".join(sorted(self.flip)) not in FLIPS:
            raise UsageError(f"flip '{self.flip}'", hint="h, v or hv")
        if self.format is not None and len(self.format) != 4:
            raise UsageError(f"format '{self.format}'", hint="a FourCC of four letters, for instance MJPG or YUYV")
        if self.roi is not None:
            object.__setattr__(self, "roi", Roi.parse(self.roi))

    @property
    def size(self) -> Optional[tuple[int, int]]:
        """(width, height) where both are given."""
        return None if self.width is None or self.height is None else (self.width, self.height)

    def geometry(self) -> Geometry:
        """A `Geometry` of these settings, new for each source."""
        return Geometry(self.rotate, self.flip, None if self.roi is None else Roi.parse(self.roi))
