"""The grammar of a source's SPEC, read once, so that no other code guesses what a text means."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from urllib.parse import unquote

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera import content
from edge_mnv2.errors import SourceError, UsageError

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
