"""What a user or a profile asks of a source: its SPEC, size, rate, controls, rotation, flip and region of interest.

The grammar of a SPEC is read once, so that no other code guesses what a text means. Order: a picture is first rotated
clockwise, then flipped, and the region counts in what comes out, which is what a preview shows. Turning uses OpenCV's
copies, not numpy views: `cv2.resize` would first copy a turned view, element by element (measured at 1280x720, crop and
resize to 224 included: 0.8 ms against 4.8 ms for 90 degrees, 0.4 against 4.1 for 180).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Optional, Union
from urllib.parse import unquote

import numpy as np

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera import content
from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.settings.more_kinds import Region
from edge_mnv2.settings.schema import Camera

SCHEMES = ("rtsp", "rtsps", "http", "https")
MAX_SIDE, MAX_FPS = 8192, 100_000.0

_TEST = re.compile(r"test(?::(?:(\d{1,6})x(\d{1,6}))?(?:@(\d{1,9}(?:\.\d{1,9})?))?)?")
_FORMS = "a camera (0, /dev/video0, csi), rtsp://..., http://..., gst:PIPELINE, a file, a folder, demo, test:640x480@30"


@dataclass(frozen=True)
class Spec:
    """One source. `kind`: auto, device, csi, rtsp, http, gst, clip, still, folder, demo or test.

    `text` is what was given, for people, without credentials. `path` belongs to device (None where `number` is given),
    clip, still and folder; `number` to device and csi; `url` to rtsp and http; `pipeline` to gst; `size` and `fps` to
    test, where they were given.
    """

    kind: str
    text: str
    path: Optional[Path] = None
    number: int = 0
    url: Optional[StreamUrl] = None
    pipeline: str = ""
    size: Optional[tuple[int, int]] = None
    fps: Optional[float] = None


def parse(text: str) -> Spec:
    """What `text` means. Raises UsageError where it is malformed, SourceError where it names a file that is not there.

    A file called `demo`, `test`, `auto` or `0` is meant by `./demo` and so on.
    """
    text = text.strip()
    if not text:
        raise UsageError("an empty source", hint=_FORMS)
    if text in ("auto", "demo"):
        return Spec(text, text)
    if re.fullmatch(r"\d{1,4}", text):
        return Spec("device", text, number=int(text))
    if text == "test" or text.startswith("test:"):
        return _test(text)
    if text == "csi" or text.startswith("csi:"):
        if not re.fullmatch(r"csi(:\d{1,2})?", text):
            raise UsageError(f"'{text}' is not csi or csi:NUMBER", hint="for instance csi:1 for the second camera")
        return Spec("csi", text, number=int(text[4:] or 0))
    if text.startswith("gst:"):
        if not text[4:].strip():
            raise UsageError("gst: without a pipeline", hint="for instance gst:videotestsrc")
        _check_text(text)
        return Spec("gst", redact(text), pipeline=text[4:].strip())
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _address(text)
    return _path(text)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{redact(text)} is not UTF-8 text") from None


def _test(text: str) -> Spec:
    match = _TEST.fullmatch(text)
    if match is None or text == "test:":
        raise UsageError(f"'{text}' is not test:WIDTHxHEIGHT@FPS", hint="for instance test:1280x720@30")
    size = (int(match[1]), int(match[2])) if match[1] else None
    fps = float(match[3]) if match[3] else None
    if size is not None and not all(16 <= side <= MAX_SIDE for side in size):
        raise UsageError(f"'{text}': sides of a test pattern go from 16 to {MAX_SIDE} pixels")
    if fps is not None and not (0.01 <= fps <= MAX_FPS and math.isfinite(fps)):
        raise UsageError(f"'{text}': a test pattern's rate goes from 0.01 to {MAX_FPS:g} frames per second")
    return Spec("test", text, size=size, fps=fps)


def _address(text: str) -> Spec:
    if text.lower().startswith("file://"):
        place = text[len("file://") :]
        # RFC 8089: an empty host or localhost. A name that holds a bare % or is no address is taken as it stands.
        place = place[len("localhost") :] if place.startswith("localhost/") else place
        return _path(place if Path(place).exists() else unquote(place))
    _check_text(text)
    url = StreamUrl.parse(text)
    if url.scheme not in SCHEMES:
        raise UsageError(f"{url.shown}: {url.scheme}:// is not supported", hint="rtsp://, http:// or gst:PIPELINE")
    if url.port == 0:
        raise UsageError(f"{url.shown}: this is no port", hint="ports go from 1 to 65535")
    return Spec("rtsp" if url.scheme.startswith("rtsp") else "http", url.shown, url=url)


def _path(text: str) -> Spec:
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return Spec("folder", text, path=path)
        if text.startswith("/dev/"):
            return Spec("device", text, path=path)
        if path.is_char_device():
            return Spec("device", text, path=path)
        if not path.exists():
            raise SourceError(f"{text}: file not found", hint=_meant(text))
        if not path.is_file():
            raise SourceError(f"{text} is neither a file nor a camera")
        with path.open("rb") as file:
            kind = content.kind(file.read(content.HEAD_BYTES))
    except SourceError:
        raise
    except (OSError, ValueError) as error:
        raise SourceError(f"{text} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    motion_jpeg = path.suffix.lower() in (".mjpg", ".mjpeg")
    return Spec("still" if kind in ("picture", "heic") and not motion_jpeg else "clip", text, path=path)


def _meant(text: str) -> Optional[str]:
    if re.fullmatch(r"video\d+", text):
        return f"for the camera: /dev/{text}"
    if re.fullmatch(r"-\d+", text):
        return "cameras are numbered from 0"
    if "/" not in text and "." not in text:
        return f"a source is {_FORMS}"
    return None


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Roi:
    """A region of interest: in pixels, or as fractions of the picture where all four numbers are at most 1."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def parse(cls, value: Union[str, Sequence[float], Roi]) -> Roi:
        """`"X,Y,W,H"` or four numbers. Raises UsageError."""
        if isinstance(value, Roi):
            return value
        kind = Region()
        try:
            return cls(*(kind.parse(value) if isinstance(value, str) else kind.accept(value)))
        except ValueError:
            raise UsageError(f"region '{value}' is not {kind.expects}", hint="for instance 100,0,400,400") from None

    @property
    def fractional(self) -> bool:
        return max(self.x, self.y, self.width, self.height) <= 1

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) inside a picture of `width` x `height` pixels.

        What hangs over the edge is cut off. Raises UsageError where nothing is left.
        """
        across, down = (width, height) if self.fractional else (1, 1)
        left, top = round(self.x * across), round(self.y * down)
        right, bottom = round((self.x + self.width) * across), round((self.y + self.height) * down)
        right, bottom = min(right, width), min(bottom, height)
        if self.fractional and self.x < 1 and self.y < 1:
            # However small, it is a part of every picture.
            left, top = min(left, width - 1), min(top, height - 1)
            right, bottom = max(right, left + 1), max(bottom, top + 1)
        if right <= left or bottom <= top:
            raise UsageError(f"region {self} lies outside the {width}x{height} picture")
        return left, top, right - left, bottom - top

    def __str__(self) -> str:
        return f"{self.x:g},{self.y:g},{self.width:g},{self.height:g}"


class Geometry:
    """What turns a captured picture into what the user wants to see. One object for each source."""

    def __init__(self, rotate: int = 0, flip: Optional[str] = None, roi: Optional[Roi] = None) -> None:
        self.rotate, self.flip, self.roi = rotate, flip or "", roi
        self._boxes: dict[tuple[int, ...], tuple[int, int, int, int]] = {}

    @property
    def mirrored(self) -> tuple[bool, bool]:
        """(horizontal, vertical) flips that do the whole turning; only for rotations by 0 and 180 degrees."""
        half = self.rotate == 180
        return ("h" in self.flip) != half, ("v" in self.flip) != half

    def turn(self, pixels: np.ndarray) -> np.ndarray:
        """`pixels` (HxWx3 uint8) rotated and flipped; the same array where there is nothing to do."""
        if not (self.rotate or self.flip):
            return pixels
        if self.rotate in (0, 180):
            across, down = self.mirrored
        else:
            across, down = "h" in self.flip, "v" in self.flip
            pixels = _quarter(pixels, self.rotate)
        if not (across or down):
            return pixels
        import cv2

        return cv2.flip(pixels, -1 if across and down else int(across))

    def box(self, pixels: np.ndarray) -> Optional[tuple[int, int, int, int]]:
        """The region of interest in turned `pixels`, None for the whole. Raises UsageError where it lies outside."""
        if self.roi is None:
            return None
        size = pixels.shape[:2]
        box = self._boxes.get(size)
        if box is None:
            height, width = size
            box = self.roi.box(width, height)
            if not self.roi.fractional and box[2:] != (int(self.roi.width), int(self.roi.height)):
                log.warning("region %s hangs over the %dx%d picture: cut to %d,%d,%d,%d", self.roi, width, height, *box)
            self._boxes = {size: box}
        return box


def _quarter(pixels: np.ndarray, rotate: int) -> np.ndarray:
    import cv2

    return cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE if rotate == 90 else cv2.ROTATE_90_COUNTERCLOCKWISE)


@dataclass(frozen=True)
class CameraNetwork:
    """A network that runs inside the camera: its file, its input (width, height), `box`, the part (left, top, width,
    height) of a picture of some size that it shall see, and the policy (`--resize`) that is behind it."""

    path: Path
    size: tuple[int, int]
    box: Callable[[int, int], tuple[int, int, int, int]]
    resize: str = "crop"


@dataclass(frozen=True)
class CameraSettings(Camera):
    """Every field may stay out; None means that the source decides. Fields with their ranges: `settings.schema.Camera`.

    `width`, `height` (pixels), `fps` and `format` (a V4L2 FourCC such as "MJPG") are asked of a camera, which may grant
    something else. `rotate` is clockwise degrees, `flip` "h", "v" or "hv", `roi` a region as `Roi.parse` takes it.
    `warmup_frames` are thrown away after each opening of a live source. A live source is lost after `stall_s` seconds
    without a frame, or after `frozen_s` seconds of equal pictures (0: never). `backend` names one way to open a camera
    instead of the usual order. `controls` are the camera's own: V4L2 or libcamera names. `least_side`: whoever
    uses the pictures needs a shorter side of so many pixels only, so JPEGs may be decoded smaller than the camera sends
    them. `ca`: a PEM file with a private authority's certificate. `rtsp_transport`: "auto", "tcp" or "udp". `hurry`:
    the test pattern does not keep its rate.
    Raises UsageError for a value out of range.
    """

    least_side: Optional[int] = None
    hurry: bool = False
    network: Optional[CameraNetwork] = None

    def __post_init__(self) -> None:
        for item in fields(Camera):
            value, kind = getattr(self, item.name), item.metadata["kind"]
            if value is None or item.name in ("roi", "controls"):
                continue
            try:
                kind.accept(value)
            except ValueError:
                raise UsageError(f"{item.name} of {value}", hint=kind.expects) from None
        if (self.width is None) != (self.height is None):
            raise UsageError("width without height, or height without width", hint="give both")
        if self.roi is not None:
            object.__setattr__(self, "roi", Roi.parse(self.roi))

    def geometry(self) -> Geometry:
        """A `Geometry` of these settings, new for each source."""
        return Geometry(self.rotate, self.flip, None if self.roi is None else Roi.parse(self.roi))
