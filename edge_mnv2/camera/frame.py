"""What a source yields and what a source is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One captured picture.

    `pixels` is HxWx3 uint8 in the channel order `order` ("rgb" or "bgr"): a decoder that gives BGR is not converted
    here, because converting after the resize costs less. `image` is the same picture as RGB.
    `captured_at` is monotonic nanoseconds (`time.monotonic_ns`): the driver's time stamp where there is one, else when
    the read returned. `position_ns` is the presentation time inside a clip, None for live sources and stills.
    `name` is the file's name where a frame is one file of a folder.
    """

    pixels: np.ndarray
    order: str
    captured_at: int
    index: int
    position_ns: Optional[int] = None
    name: Optional[str] = None

    @property
    def image(self) -> np.ndarray:
        """The picture as RGB uint8 HxWx3 (a view where no conversion is needed)."""
        if self.order == "rgb":
            return self.pixels
        import cv2

        return cv2.cvtColor(self.pixels, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class Granted:
    """What a source really delivers, as read back after opening it. Unknown values are None."""

    width: Optional[int] = None
    height: Optional[int] = None
    fps: Optional[float] = None
    format: Optional[str] = None
    backend: Optional[str] = None


class FrameSource(Protocol):
    """A camera, stream, clip, folder or test pattern.

    `live` sources are read as fast as they deliver and only their newest frame counts; others are paced by
    `Frame.position_ns`. `description` names the source to a person, without credentials. A source is a context manager:
    entering opens it, leaving closes it, and closing twice is allowed. Every call has a time limit.
    """

    live: bool
    description: str
    granted: Optional[Granted]

    def open(self) -> None:
        """Open the device or file. Raises SourceError."""

    def read(self) -> Optional[Frame]:
        """The next frame, or None at the end. Raises SourceLost where a live source stopped."""

    def close(self) -> None:
        """Release everything. Safe to call at any time, from another thread too."""

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, *exc: object) -> None: ...
