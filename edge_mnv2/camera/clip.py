"""Video files through OpenCV's FFmpeg.

Policy: frames carry their real time stamps (variable frame rates stay variable); a rotation tag is applied, so that a
phone's video stands upright, and a mirrored one is not; a frame that cannot be decoded is counted and passed over
(H.265: see `ConcealingCapture`); a clip that gives fewer frames than it promises is reported with both numbers.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.board.cpus import usable_cpus
from edge_mnv2.camera import content
from edge_mnv2.camera.content import Mp4Facts, empty_avi_frames, has_lost_packets, read_mp4, why_unreadable
from edge_mnv2.camera.frame import Frame, Granted, Source
from edge_mnv2.camera.live import CLOSE_S
from edge_mnv2.camera.opencv import ConcealingCapture, FrameBuffers, coded_pictures, fourcc_text, import_cv2, positive
from edge_mnv2.camera.settings import CameraSettings, Geometry, Spec
from edge_mnv2.errors import SourceError
from edge_mnv2.paths import utf8_named

log = logging.getLogger(__name__)

_RATES = (0.001, 1000.0)
"""Frames a second that are believed; with others time stamps are worth nothing."""
_JUMP_NS = 10 * 10**9
"""A transport stream whose clock goes on by more, or goes back, is several recordings."""
_TAIL_S = 1.0
"""Where the frame count is the container's duration times its rate, sound may last longer than the pictures."""
_MAX_DAMAGED = 250
"""After so many reads in a row without a picture it is the end: OpenCV does not tell an end from a damaged frame."""
_HEVC = ("hevc", "hvc1", "hev1", "h265")


class ClipSource(Source):
    """A video file, one frame after the other; pacing is the reader's business."""

    paced = True

    def __init__(self, path: Path, geometry: Optional[Geometry] = None, description: Optional[str] = None) -> None:
        super().__init__(description or str(path), geometry)
        self.path = path
        self._capture: Any = None
        self._first: Optional[np.ndarray] = None
        # A capture that is released while another thread reads from it crashes the process.
        self._in_use = threading.Lock()

    def open(self) -> None:
        self.close()
        cv2 = import_cv2()
        head = _head(self.path)
        with _readable_name(self.path) as name:
            capture = _opened(cv2, name)
        if not capture.isOpened():
            problem, hint = why_unreadable(self.path, head)
            raise SourceError(f"{self.path} {problem}", hint=hint)
        # Turned by us, because OpenCV's versions turn to different sides.
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        facts = read_mp4(self.path) if head[4:8] == b"ftyp" else Mp4Facts()
        self._first, self._opened_as = None, _state(self.path)
        self._head, self._upright = head, Geometry(facts.rotation, facts.flip)
        if facts.hdr:
            log.warning("%s is HDR video: its colours are not converted, so classes may be missed", self.path)
        self._cv2, self._capture, self._buffers = cv2, capture, FrameBuffers()
        self._count = self._regular = self._unreadable = 0
        self._first_ns = self._last_ns = 0
        fps = positive(capture.get(cv2.CAP_PROP_FPS))
        self._fps = fps if fps is not None and _RATES[0] <= fps <= _RATES[1] else None
        self._step_ns = int(1e9 / (self._fps or 25.0))
        promised = positive(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._promised = None if promised is None else int(promised)
        # MP4 and AVI count their frames; for the others OpenCV multiplies duration and rate.
        self._shown_s = facts.trimmed_s
        self._packets = head[:1] == b"\x47"
        # OpenCV 4.6 takes a transport stream's clock of 90 kHz for its frame rate.
        self._stamped, self._jumped = fps is None or self._fps is not None or self._packets, False
        self._chunks = head[:4] == b"RIFF"
        self._counted = (head[4:8] == b"ftyp" and self._shown_s is None) or self._chunks
        size = [int(capture.get(which)) or None for which in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        width, height = size[::-1] if facts.rotation in (90, 270) else size
        self.granted = Granted(
            width,
            height,
            self._fps,
            fourcc_text(capture.get(cv2.CAP_PROP_FOURCC)),
            "ffmpeg",
        )
        self._hevc = (self.granted.format or "").lower() in _HEVC

    def read(self) -> Optional[Frame]:
        with self._in_use:
            capture = self._capture
            if capture is None:
                return None
            pixels, self._first = self._first, None
            if pixels is None:
                pixels = self._next_picture(capture)
            if self._hevc and pixels is not None:
                pixels = self._without_gap(pixels)
            if self._capture is None:  # closed meanwhile: neither an end nor damage
                return None
            if pixels is None:
                self._ended()
                return None
            self._buffers.learn(pixels)
            position = self._position_ns()
        frame = self._frame(self._upright.turn(pixels), "bgr", time.monotonic_ns(), self._count, position)
        self._count += 1
        return frame

    def rewind(self) -> bool:
        """To the first picture, which takes half as long as opening. Only after a pass through every picture of a
        container that counts them, while the file is the same one, and where the first picture is there again."""
        with self._in_use:
            capture = self._capture
            indexed = self._chunks or self._head[4:8] == b"ftyp"
            if capture is None or not indexed or self._hevc or self.decode_errors or self._unreadable:
                return False
            if self._count != self._promised or _state(self.path) != self._opened_as:
                return False
            try:
                there = capture.set(self._cv2.CAP_PROP_POS_FRAMES, 0)
                ok, pixels = capture.read(self._buffers.take()) if there else (False, None)
            except self._cv2.error:
                return False
            if not ok or self._stamp_ns() != self._first_ns:
                return False
            self._first = pixels
            self._count = self._regular = self._last_ns = 0
            return True

    def _next_picture(self, capture: Any) -> Optional[np.ndarray]:
        for failures in range(_MAX_DAMAGED):
            if failures == 1 and (self._promised or 0) > self._count:
                capture = self._concealing(capture)
            try:
                ok, pixels = capture.read(self._buffers.take())
            except self._cv2.error:  # a damaged frame that changes its size, in OpenCV 4
                ok, pixels = False, None
            if self._capture is None:
                return None
            if ok:
                self._unreadable += failures
                return pixels
        return None

    def _without_gap(self, pixels: np.ndarray) -> Optional[np.ndarray]:
        """`pixels`, or the picture before it where OpenCV has passed over damaged ones by itself."""
        capture = self._capture
        gap_ns = self._stamp_ns() - self._first_ns - self._last_ns
        if capture is None or self._count == 0 or gap_ns < 1.5 * self._step_ns:
            return pixels
        other = self._concealing(capture)
        return pixels if other is capture else self._next_picture(other)

    def _concealing(self, capture: Any) -> Any:
        """A capture that goes on behind the last picture; the same one where it does already, PyAV is missing, or time
        does not tell which picture that is."""
        if not self._hevc or self._jumped or isinstance(capture, ConcealingCapture):
            return capture
        try:
            other = ConcealingCapture(self.path, self._first_ns, self._last_ns if self._count else -1)
        except Exception as error:
            log.debug("%s: no second decoder: %s", self.path, error)
            return capture
        capture.release()
        self._capture = other
        return other

    def close(self) -> None:
        capture, self._capture = self._capture, None
        # A reader that is stuck (a network drive that went away) keeps the capture.
        if capture is not None and self._in_use.acquire(timeout=CLOSE_S):
            try:
                capture.release()
                # A reader may have put a second decoder in its place meanwhile.
                capture, self._capture = self._capture, None
                if capture is not None:
                    capture.release()
            finally:
                self._in_use.release()

    def _stamp_ns(self) -> int:
        capture = self._capture
        return 0 if capture is None else int(capture.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6)

    def _position_ns(self) -> int:
        stamp, step = self._stamp_ns(), self._step_ns
        if self._count == 0:
            self._first_ns = stamp
            position = 0
        else:
            position = stamp - self._first_ns if self._stamped else 0
            if self._packets and not -step <= position - self._last_ns <= _JUMP_NS:
                self._first_ns, self._jumped, position = stamp - self._last_ns - step, True, 0
            # Frames without a time stamp of their own (some AVI files end so) follow at the nominal rate.
            if position <= self._last_ns:
                position = self._last_ns + step
            self._regular += abs(position - self._last_ns - step) <= step * 0.05
        self._last_ns = position
        return position

    def _ended(self) -> None:
        if self._count == 0:
            problem, hint = why_unreadable(self.path, self._head)
            raise SourceError(f"{self.path} {problem}: no picture can be decoded", hint=hint)
        expected = max(self._expected(), self._count + self._unreadable)
        if expected > self._count:
            self.decode_errors = expected - self._count
            self._report(f"{self.path} is damaged or cut short: {self._count} of {expected} frames could be read")

    def _expected(self) -> int:
        if self._promised is not None and self._counted:
            short = self._promised > self._count
            return self._promised - (empty_avi_frames(self.path) if short and self._chunks else 0)
        if self._jumped:
            least = self._count + has_lost_packets(self.path, joined=True)
            return max(least, coded_pictures(self.path, _JUMP_NS / 1e9) if self._hevc else 0)
        if self._promised is None or self._fps is None:
            return self._count
        reached_s = self._last_ns / 1e9 + 1 / self._fps
        duration_s = self._shown_s or self._promised / self._fps
        if reached_s + max(_TAIL_S, 2 / self._fps) < duration_s:
            return self._promised
        through = round(reached_s * self._fps)
        if self._packets and self._regular >= 0.7 * (self._count - 1) and through > self._count:
            # A gap may well be a picture that stood still; where packets are lost it is frames.
            return through if has_lost_packets(self.path) else self._count
        return self._count


def make(spec: Spec, settings: CameraSettings) -> ClipSource:
    """A video file."""
    assert spec.path is not None
    return ClipSource(spec.path, settings.geometry())


def make_demo(spec: Spec, settings: CameraSettings) -> ClipSource:
    """The demo clip, pulled once. Raises DownloadError."""
    from edge_mnv2.zoo.pull import fetch

    return ClipSource(fetch("demo", "the demo clip, once"), settings.geometry(), spec.text)


@contextlib.contextmanager
def _readable_name(path: Path) -> Iterator[str]:
    """What OpenCV, which crashes on names that are not UTF-8, can open `path` by. Raises SourceError."""
    path = path.absolute()
    if utf8_named(path):
        yield str(path)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        yield f"/proc/self/fd/{file.fileno()}"


def _opened(cv2: Any, path: str) -> Any:
    """A capture whose decoder leaves half of the CPUs to those who look at the pictures."""
    if hasattr(cv2, "CAP_PROP_N_THREADS"):
        threads = max(1, usable_cpus() // 2)
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
        if capture.isOpened():
            return capture
    return cv2.VideoCapture(path, cv2.CAP_FFMPEG)


def _state(path: Path) -> Optional[tuple[int, ...]]:
    """What tells a file from another one in its place, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(content.HEAD_BYTES)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    what = content.kind(head)
    if what == "empty":
        raise SourceError(f"{path} is empty (0 bytes)")
    if what in ("text", "html", "heic"):
        # FFmpeg would draw text as pictures, and follow the addresses in a playlist.
        raise SourceError(f"{path} is neither a picture nor a video that can be read")
    return head
