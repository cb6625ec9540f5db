"""What a source yields and what a source is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One captured picture.

    `pixels` is HxWx3 uint8 in the channel order `order` ("rgb" or "bgr"): a decoder that gives BGR is not converted
    here, because converting after the resize costs less. `image` is the same picture as RGB. Rotation and flip have
    been applied; the region of interest has not, so that a preview can show the whole: classify `region`, draw `roi`.
    `captured_at` is monotonic nanoseconds (`time.monotonic_ns`): the driver's time stamp where there is one, else when
    the read returned. `index` counts what the source captured, frames included that nobody read.
    `position_ns` is the presentation time inside a clip, None for live sources and stills.
    `name` is the file's name where a frame is one file of a folder.
    `roi` is the region of interest inside `pixels` as (left, top, width, height) in pixels, None for the whole picture.
    Pixels may be shared between frames and read-only: draw on a copy.
    """

    pixels: np.ndarray
    order: str
    captured_at: int
    index: int
    position_ns: Optional[int] = None
    name: Optional[str] = None
    roi: Optional[tuple[int, int, int, int]] = None

    @property
    def image(self) -> np.ndarray:
        """The picture as RGB uint8 HxWx3 (a view where no conversion is needed)."""
        if self.order == "rgb":
            return self.pixels
        import cv2

        return cv2.cvtColor(self.pixels, cv2.COLOR_BGR2RGB)

    @property
    def region(self) -> np.ndarray:
        """The part of `pixels` to classify (a view), in the channel order `order`."""
        if self.roi is None:
            return self.pixels
        left, top, width, height = self.roi
        return self.pixels[top : top + height, left : left + width]


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
    `state` is "ok", "stalled" (open, but no news comes) or "reconnecting"; `reconnects` counts how often a live source
    came back. `errors` has one line for each input that could not be read in full (a file of a folder, a clip cut
    short), the first thousand of them, and `error_count` how many there were: a command that sees any ends with exit
    code 8. `decode_errors` counts frames that came damaged.
    """

    live: bool
    description: str
    granted: Optional[Granted]
    state: str
    reconnects: int
    errors: list[str]
    error_count: int
    decode_errors: int

    def open(self) -> None:
        """Open the device or file. Raises SourceError."""

    def read(self) -> Optional[Frame]:
        """The next frame, or None at the end (or after `close`). Raises SourceLost where a live source stopped."""

    def close(self) -> None:
        """Release everything, within five seconds. Safe to call at any time, from another thread too."""

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, *exc: object) -> None: ...
