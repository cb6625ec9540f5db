"""OpenCV's capture: how it is imported, what it can do, a reader that keeps its buffers; and PyAV behind damage."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from edge_mnv2.camera.frame import Granted
from edge_mnv2.camera.live import Captured
from edge_mnv2.errors import SourceError, SourceLost
from edge_mnv2.installed import pip

# Read by OpenCV's own code at its first use of a backend; a user's values win.
_QUIET = {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OPENCV_LOG_LEVEL": "SILENT"}
_PLAUSIBLE_AGE_NS = 2_000_000_000
_MAX_BUFFERS = 8
"""A loop, its workers and its outputs never hold more frames than this; others get memory of their own."""


def import_cv2() -> Any:
    """The module `cv2`, with its native messages turned off: they name what we name better, passwords included.

    Raises SourceError where OpenCV is missing.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # OpenCV waits ten seconds for a frame of a V4L2 camera otherwise, whatever is asked of it.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "2")
    try:
        import cv2
    except ImportError as error:
        raise SourceError(
            f"OpenCV cannot be imported ({error})",
            hint=f"{pip()} opencv-python-headless, or on 32-bit Arm: apt install python3-opencv",
        ) from error
    with contextlib.suppress(AttributeError):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def built_with(feature: str) -> bool:
    """Whether this build of OpenCV names `feature` ("GStreamer", "FFMPEG", "v4l/v4l2") as YES."""
    for line in import_cv2().getBuildInformation().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == feature:
            return value.strip().startswith("YES")
    return False


def fourcc_text(code: float) -> Optional[str]:
    """The four letters of a FourCC number, None where there are none."""
    number = int(code) if math.isfinite(code) else 0
    letters = bytes(number >> shift & 0xFF for shift in (0, 8, 16, 24)) if number > 0 else b""
    return letters.decode("ascii").rstrip() if letters and all(32 <= letter < 127 for letter in letters) else None


def positive(value: float) -> Optional[float]:
    """`value` where it is a positive number; OpenCV answers 0, -1 or nonsense for what it does not know."""
    return float(value) if math.isfinite(value) and 0 < value < 1e9 else None


def granted_by(capture: Any, backend: str) -> Granted:
    """What an open capture says that it gives."""
    cv2 = import_cv2()
    return Granted(
        int(positive(capture.get(cv2.CAP_PROP_FRAME_WIDTH)) or 0) or None,
        int(positive(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) or 0) or None,
        positive(capture.get(cv2.CAP_PROP_FPS)),
        fourcc_text(capture.get(cv2.CAP_PROP_FOURCC)),
        backend,
    )


class FrameBuffers:
    """Hands out uint8 arrays of one shape, used again: a new one a frame costs its page faults, 700 for 720p.

    A buffer is free when nobody but this object refers to it; a view of it (a region, a flipped picture that shares its
    memory) keeps it alive as the picture itself does. One thread at a time.
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._shape: Optional[tuple[int, ...]] = None
        # What `sys.getrefcount` says about an array that only a list refers to, here and in this interpreter.
        self._alone = self._references([np.empty(0)], 0)

    def take(self) -> Optional[np.ndarray]:
        """A free buffer of the newest picture's shape, None before the first picture."""
        if self._shape is None:
            return None
        for position in range(len(self._buffers)):
            if self._references(self._buffers, position) == self._alone:
                return self._buffers[position]
        buffer = np.empty(self._shape, np.uint8)
        if len(self._buffers) < _MAX_BUFFERS:
            self._buffers.append(buffer)
        return buffer

    def learn(self, pixels: np.ndarray) -> None:
        """Take the shape of a picture that was read; another shape than before starts anew."""
        if pixels.shape != self._shape:
            self._shape = pixels.shape if pixels.dtype == np.uint8 else None
            # The picture itself is the first of them, where its memory is its own.
            own = self._shape is not None and pixels.flags.owndata and pixels.flags.c_contiguous
            self._buffers = [pixels] if own else []

    @staticmethod
    def _references(buffers: list[np.ndarray], position: int) -> int:
        return sys.getrefcount(buffers[position])


class CaptureReader:
    """Reads a live `cv2.VideoCapture`, in a thread of its own.

    `patience_s`: failed reads that take so long are a device that is slow or frozen, and are tried again; a shorter one
    means that the device is gone. `driver_clock`: the capture reports the buffer's time stamp. `decode` makes pixels of
    the JPEG files that a capture without conversion gives, None of a damaged one.
    """

    def __init__(
        self,
        capture: Any,
        name: str,
        *,
        driver_clock: bool = False,
        patience_s: float = 0.5,
        damaged: Optional[Callable[[], None]] = None,
        decode: Optional[Callable[[np.ndarray], Optional[np.ndarray]]] = None,
    ) -> None:
        self.capture = capture
        self._name = name
        self._cv2 = import_cv2()
        self._driver_clock = driver_clock
        self._patience_s = patience_s
        self._damaged = damaged or (lambda: None)
        self._decode = decode
        self._buffers = FrameBuffers()
        self._in_a_row = 0

    def read(self) -> Optional[Captured]:
        started = time.monotonic()
        if not self.capture.grab():
            if time.monotonic() - started < self._patience_s:
                raise SourceLost(f"{self._name} has gone away")
            return None
        now = time.monotonic_ns()
        ok, pixels = self.capture.retrieve(self._buffers.take() if self._decode is None else None)
        if ok and self._decode is not None and pixels is not None and (pixels.ndim < 3 or pixels.shape[2] == 1):
            pixels = self._decode(pixels)
        if not ok or pixels is None or pixels.size == 0:
            self._in_a_row += 1
            self._damaged()
            if self._in_a_row > 100:
                raise SourceLost(f"{self._name} gives only damaged frames")
            return None
        self._in_a_row = 0
        self._buffers.learn(pixels)
        if pixels.ndim == 2 or pixels.shape[2] != 3:
            pixels = self._cv2.cvtColor(
                pixels,
                self._cv2.COLOR_GRAY2BGR
                if pixels.size == pixels.shape[0] * pixels.shape[1]
                else self._cv2.COLOR_BGRA2BGR,
            )
        return pixels, self._captured_at(now)

    def release(self) -> None:
        self.capture.release()

    def interrupt(self) -> None:
        """OpenCV has no way to interrupt a read; its time limits end it."""

    def _captured_at(self, now: int) -> int:
        if not self._driver_clock:
            return now
        stamp = int(self.capture.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6)
        # Drivers stamp with the monotonic clock; a few use another or none, which shows as an impossible age.
        return stamp if 0 <= now - stamp < _PLAUSIBLE_AGE_NS else now


_KEY_FRAMES_NS = 10_000_000_000
"""Cameras and encoders write a key frame at least so often, nearly always."""
_MOST_BREAKS = 250


class ConcealingCapture:
    """H.265 through PyAV (extra `record`), behind what is damaged, with the calls of OpenCV's captures.

    Since FFmpeg 7.1 its H.265 decoder refuses every picture that builds on a lost one, up to the next key frame, unless
    it is asked for damaged ones; OpenCV has no way to ask. Begins after the picture at `last_ns` of the clip (-1: with
    the first one), whose time stamps begin at `first_ns`. Raises ImportError and PyAV's errors.
    """

    def __init__(self, path: Path, first_ns: int, last_ns: int) -> None:
        import av

        self._first_ns, self._last_ns = first_ns, last_ns
        self._container = av.open(str(path))
        stream = self._container.streams.video[0]
        stream.codec_context.flags |= av.codec.context.Flags.output_corrupt
        self._start, self._second = stream.start_time or 0, float(stream.time_base or 0)
        # A transport stream has no index of its key frames.
        before_ns = last_ns - (_KEY_FRAMES_NS if "mpegts" in self._container.format.name else 0)
        if before_ns > 0:
            self._container.seek(self._start + int(before_ns / 1e9 / self._second), stream=stream)
        self._pictures = self._decoded(av)
        self._now_ns = last_ns

    def _decoded(self, av: Any) -> Iterator[Optional[np.ndarray]]:
        behind = False
        for packet in _packets(av, self._container):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                if behind:
                    yield None
                continue
            for frame in frames:
                at = None if frame.pts is None else round((frame.pts - self._start) * self._second * 1e9)
                # Later on the clock may go back: a transport stream may be several recordings.
                behind = behind or at is None or at > self._last_ns + 1_000_000
                if behind:
                    self._now_ns = self._now_ns + 1 if at is None else at
                    yield frame.to_ndarray(format="bgr24")

    def read(self, _buffer: object = None) -> tuple[bool, Optional[np.ndarray]]:
        pixels = next(self._pictures, None)
        return pixels is not None, pixels

    def get(self, _which: int) -> float:
        """The time stamp of the last picture in milliseconds, which is all that is asked for."""
        return (self._first_ns + self._now_ns) / 1e6

    def release(self) -> None:
        self._container.close()


def _packets(av: Any, container: Any) -> Iterator[Any]:
    """Packets, behind damage of the file's structure too; another stream that such damage looks like is none."""
    for _ in range(_MOST_BREAKS):
        try:
            yield from container.demux(video=0)
            return
        except (av.FFmpegError, IndexError):
            continue


def coded_pictures(path: Path, jump_s: float) -> int:
    """How many pictures a transport stream of several recordings has, each from its first key frame on, for their clock
    does not tell how many OpenCV has passed over. Nothing is decoded. `jump_s`: where the clock goes on by more, or
    back, another recording begins. What is shown before that key frame is not counted: it may be made of pictures that
    are not there. 0 without PyAV."""
    count, begun, last_s, first = 0, False, 0.0, 0
    # PyAV has an error of its own for each of FFmpeg's.
    with contextlib.suppress(Exception):
        import av

        with av.open(str(path)) as container:
            for packet in _packets(av, container):
                now_s = last_s if packet.dts is None else float(packet.dts * packet.time_base)
                begun = begun and 0 <= now_s - last_s <= jump_s
                if packet.is_keyframe and not begun:
                    begun, first = True, packet.pts or 0
                shown = begun and packet.size > 0 and (packet.pts is None or packet.pts >= first)
                count, last_s = count + shown, now_s
    return count
