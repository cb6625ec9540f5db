"""What a source yields, what a source is, and what all sources have in common."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np

from edge_mnv2.camera.settings import Geometry, Roi

log = logging.getLogger(__name__)

MAX_ERRORS = 1000
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class CameraAnswers:
    """What a network inside the camera answered to a picture: real outputs float32, and what that took."""

    values: tuple[np.ndarray, ...]
    took_ns: Optional[float] = None


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
    `answers` are those of a network inside the camera.
    Pixels may be shared between frames and read-only: draw on a copy.
    """

    pixels: np.ndarray
    order: str
    captured_at: int
    index: int
    position_ns: Optional[int] = None
    name: Optional[str] = None
    roi: Optional[tuple[int, int, int, int]] = None
    answers: Optional[CameraAnswers] = None

    def at(self, captured_at: int, index: int) -> Frame:
        """The same frame with another time and number; `dataclasses.replace` takes ten times as long."""
        return Frame(self.pixels, self.order, captured_at, index, self.position_ns, self.name, self.roi, self.answers)

    def without_pixels(self) -> Frame:
        """The same frame with an empty picture, which takes no memory."""
        return Frame(
            _NO_PIXELS, self.order, self.captured_at, self.index, self.position_ns, self.name, self.roi, self.answers
        )

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


@dataclass(frozen=True)
class View:
    """What part of its sensor a camera shows: `sensor` (width, height) and `crop` (left, top, width, height) in the
    sensor's pixels."""

    sensor: tuple[int, int]
    crop: tuple[int, int, int, int]

    @property
    def cropped(self) -> bool:
        """More than a hundredth of the sensor's width or height is not seen."""
        return any(part < 0.99 * whole for part, whole in zip(self.crop[2:], self.sensor))

    def as_dict(self) -> dict[str, list[int]]:
        """For JSON output."""
        return {"sensor": list(self.sensor), "crop": list(self.crop)}

    def __str__(self) -> str:
        left, top, width, height = self.crop
        return f"{width}x{height} at {left},{top} of the sensor's {self.sensor[0]}x{self.sensor[1]}"


class FrameSource(Protocol):
    """A camera, stream, clip, folder or test pattern.

    `live` sources are read as fast as they deliver and only their newest frame counts. `paced` ones (clips) keep the
    time of `Frame.position_ns` and drop what nobody fetched, unless every frame is wanted. `view`: the part of its
    sensor that a camera shows, where it says that. `description` names the source to a person, without credentials.
    A source is a context manager: entering opens it, leaving closes it, and closing twice is allowed. Every call has a
    time limit. `state` is "ok", "stalled" (open, but no new frame comes) or "reconnecting"; `reconnects` counts how
    often a live source came back. `errors` has one line for each input that could not be read in full (a file of a
    folder, a clip cut short), the first thousand of them, and `error_count` how many there were: a command that sees
    any ends with exit code 8. `decode_errors` counts frames that came damaged.
    """

    live: bool
    description: str
    paced: bool
    granted: Optional[Granted]
    view: Optional[View]
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

    def set_roi(self, roi: Optional[Roi]) -> None:
        """Frames that are read from now on have this region of interest. Any thread may call it."""

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, *exc: object) -> None: ...


class Source:
    """Base of every frame source: its description, what went wrong, and frames turned as the user wants them."""

    live = False
    paced = False
    keeps_newest = False
    """Whether the source itself keeps its newest frame for `take`; others are to be read without a pause."""
    finished = False
    """It was a clip from an address, and its end was reached: opening it again is no help."""
    frozen_scale = 1.0
    """How many times longer than from a camera equal pictures are accepted."""
    backoff = (0.2, 1.0)
    """First and longest pause between attempts to open a lost source again, in seconds."""

    def __init__(self, description: str, geometry: Optional[Geometry] = None) -> None:
        self.description = description
        self.geometry = geometry or Geometry()
        self.granted: Optional[Granted] = None
        self.view: Optional[View] = None
        self.state = "ok"
        self.reconnects = 0
        self.errors: list[str] = []
        self.error_count = 0
        self.decode_errors = 0

    def open(self) -> None:
        raise NotImplementedError

    def read(self) -> Optional[Frame]:
        raise NotImplementedError

    def take(self, _limit_s: Optional[float] = None) -> Optional[Frame]:
        """`read` within so many seconds, where the source can do that: None when no frame came."""
        return self.read()

    def close(self) -> None:
        raise NotImplementedError

    def rewind(self) -> bool:
        """At its end: begin again without being opened anew. False where it cannot, and has to be opened."""
        return False

    def set_roi(self, roi: Optional[Roi]) -> None:
        self.geometry = Geometry(self.geometry.rotate, self.geometry.flip, roi)

    def __enter__(self) -> Source:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _frame(
        self,
        pixels: np.ndarray,
        order: str,
        captured_at: int,
        index: int,
        position_ns: Optional[int] = None,
        name: Optional[str] = None,
    ) -> Frame:
        pixels = self.geometry.turn(pixels)
        return Frame(pixels, order, captured_at, index, position_ns, name, self.geometry.box(pixels))

    def _report(self, problem: str) -> None:
        """Say once that an input could not be read in full; the list is bounded, a folder can be large."""
        if problem in self.errors:
            return
        log.warning("%s", problem)
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(problem)
