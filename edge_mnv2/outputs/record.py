"""An annotated video of a run that plays to its last second: fragments of MP4 (ISO/IEC 14496-12)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import UsageError
from edge_mnv2.files import Floor, append_whole, moved
from edge_mnv2.installed import extra_hint, need
from edge_mnv2.outputs.picture import annotated
from edge_mnv2.outputs.sink import Sink, give_way
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.result import Result

MOST_FPS = 30.0
MOST_PIXELS = 1280
"""Longer side of the video."""
_FRAGMENT_US = 400_000
_KEY_MS = 2000
_STILL_MS = 500
_MILLISECOND = Fraction(1, 1000)
_CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "25"}),
    ("mpeg4", {"qscale": "5"}),
)


class RecordSink(Sink):
    """Writes results as fragmented MP4 (H.264; MPEG-4 where the library has no encoder for it), each frame at the time
    it was captured, 30 a second at most.

    A file that is there already is kept: FILE-2.mp4, FILE-3.mp4 and so on follow.
    With `every_frame`, a clip's own times count, and pictures without any are shown for half a second each. The encoder
    is opened and tried before the first frame. Raises UsageError.
    """

    name = "recording"
    wants_pictures = True

    def __init__(self, path: str, *, every_frame: bool = False, least_free: Optional[int] = None) -> None:
        self._av: Any = need("av", "record", "--record")
        self._every_frame = every_frame
        wanted = Path(path)
        if wanted.suffix.lower() != ".mp4":
            raise UsageError(f"--record {path}", hint="choose a name that ends in .mp4")
        if not os.access(wanted.parent, os.W_OK | os.X_OK):
            reason = "cannot be written to" if wanted.parent.is_dir() else "is no folder"
            raise UsageError(
                f"--record {path}: {wanted.parent} {reason}", hint="choose a file in a folder that you can write to"
            )
        self.name = path
        self._codec, self._codec_options = _encoder(self._av)
        self._offered = 0
        self._floor = Floor(wanted.parent, least_free)
        self._file = FragmentFile(wanted)
        self._container: Any = None
        self._stream: Any = None
        self._first_ns: Optional[int] = None
        self._last_ms = -1
        self._key_ms = -_KEY_MS
        self._nice = False

    @property
    def counts(self) -> dict[str, int]:
        """For the summary: frames in the video, and those that came too fast or had no time or no room."""
        return {"recorded": self._file.frames, "skipped": self._offered - self._file.frames}

    def wants(self, _result: Result) -> bool:
        """Every result; what is not recorded has to be known at the end."""
        self._offered += 1
        return True

    def write(self, result: Result) -> None:
        milliseconds = self._time(result)
        # A millisecond of tolerance: a camera's thirty frames a second are not exactly so.
        if self._last_ms >= 0 and milliseconds - self._last_ms < 1000 / MOST_FPS - 2:
            return
        self._floor.check()
        if not self._nice:
            self._nice = True
            give_way()
        picture = annotated(result, MOST_PIXELS)
        if self._container is None:
            self._begin(picture)
        frame = self._av.VideoFrame.from_ndarray(self._fitted(picture), format="bgr24")
        frame.pts, frame.time_base = milliseconds, _MILLISECOND
        if milliseconds - self._key_ms >= _KEY_MS:
            self._key_ms = milliseconds
            frame.pict_type = self._av.video.frame.PictureType.I
        self._last_ms = milliseconds
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        try:
            self._file.flush_fragments()
        except OSError:
            # What comes after a hole plays from the next key frame on.
            self._key_ms = -_KEY_MS
            raise

    def close(self) -> None:
        """Raises OSError where frames came and there is no video."""
        if self._container is None:
            if self._offered:
                raise OSError(f"no video: there was no time for any of {self._offered} frames")
            return
        try:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()
        finally:
            self._file.close()

    def _time(self, result: Result) -> int:
        """Where this frame belongs, in milliseconds from the first."""
        frame = result.frame
        if self._every_frame and frame.position_ns is None:
            return frame.index * _STILL_MS
        at = frame.position_ns if self._every_frame and frame.position_ns is not None else frame.captured_at
        if self._first_ns is None:
            self._first_ns = at
        milliseconds = (at - self._first_ns) // 1_000_000
        if milliseconds <= self._last_ms - 1000:
            # A clip that began again goes on where it was.
            self._first_ns = at - (self._last_ms + round(1000 / MOST_FPS)) * 1_000_000
            milliseconds = (at - self._first_ns) // 1_000_000
        return int(milliseconds)

    def _begin(self, picture: np.ndarray) -> None:
        height, width = (max(2, side - side % 2) for side in picture.shape[:2])
        options = {"movflags": "empty_moov+default_base_moof", "frag_duration": str(_FRAGMENT_US), "flush_packets": "1"}
        container = self._av.open(self._file, "w", format="mp4", options=options)
        stream = container.add_stream(self._codec, rate=30, options=dict(self._codec_options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _MILLISECOND
        # One thread, so that the others stay with inference.
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 600
        self._container, self._stream = container, stream

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        """Of the video's size: a camera that came back may have another."""
        height, width = self._stream.height, self._stream.width
        if picture.shape[0] // 2 == height // 2 and picture.shape[1] // 2 == width // 2:
            return np.ascontiguousarray(picture[:height, :width])
        import cv2

        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


log = logging.getLogger(__name__)

_SYNC_S = 2.0
"""How much a power cut may take, in seconds; more often would wear an SD card."""


def _encoder(av: Any) -> tuple[str, dict[str, str]]:
    """The first encoder that encodes a picture here, and its options. Raises UsageError where there is none."""
    for name, options in _CODECS:
        with contextlib.suppress(ValueError, OSError, av.error.FFmpegError):
            codec = av.CodecContext.create(name, "w")
            codec.width = codec.height = 64
            codec.pix_fmt, codec.time_base, codec.options = "yuv420p", _MILLISECOND, options
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="bgr24")
            frame.pts, frame.time_base = 0, _MILLISECOND
            if [*codec.encode(frame), *codec.encode(None)]:
                return name, options
    raise UsageError("--record: this FFmpeg can encode neither H.264 nor MPEG-4", hint=extra_hint("record"))


class FragmentFile:
    """Takes the bytes of a fragmented MP4 as they come and appends each fragment when it is complete, in one write.

    The file appears with the first fragment. One of the name `wanted` that is there already is kept: NAME-2, NAME-3 and
    so on follow. A fragment that the disk has no room for is taken back whole and raises OSError; later ones may go
    again. Where the file was moved or deleted, OSError says so, and the next fragment begins a new one. `path` is None
    until the file is there; `frames` counts those in it, and in former ones that are not deleted.
    """

    def __init__(self, wanted: Path) -> None:
        self._wanted = wanted
        self._descriptor = -1
        self._waiting = bytearray()
        self._complete = 0
        self._head = self._beginning = b""
        self._synced_at = time.monotonic()
        self._in_this = self._in_former = 0
        self.path: Optional[Path] = None

    @property
    def frames(self) -> int:
        return self._in_this + self._in_former

    def write(self, data: bytes) -> int:
        """Take more bytes (called by the multiplexer)."""
        self._waiting += data
        return len(data)

    def flush_fragments(self) -> None:
        """Append what is complete. Raises OSError."""
        while (size := self._next_box()) is not None:
            kind = bytes(self._waiting[self._complete + 4 : self._complete + 8])
            self._complete += size
            if kind in (b"moov", b"mdat", b"mfra"):
                done = bytes(self._waiting[: self._complete])
                del self._waiting[: self._complete]
                self._complete = 0
                if kind == b"moov":
                    self._head = self._beginning = done
                else:
                    self._append(done)
        if self._descriptor >= 0 and time.monotonic() - self._synced_at > _SYNC_S:
            self._synced_at = time.monotonic()
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        try:
            self.flush_fragments()
        finally:
            if self._descriptor >= 0:
                descriptor, self._descriptor = self._descriptor, -1
                self._count_out(descriptor)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)

    def _next_box(self) -> Optional[int]:
        """Bytes of the next box where it is complete."""
        rest = len(self._waiting) - self._complete
        if rest < 8:
            return None
        size = int.from_bytes(self._waiting[self._complete : self._complete + 4], "big")
        if size == 1 and rest >= 16:
            size = int.from_bytes(self._waiting[self._complete + 8 : self._complete + 16], "big")
        return size if 8 <= size <= rest else None

    def _append(self, data: bytes) -> None:
        self._let_go_of_a_moved_file()
        if self._descriptor < 0:
            self._create()
        append_whole(self._descriptor, self._head + data)
        self._head = b""
        self._in_this += _samples(data)

    def _count_out(self, descriptor: int) -> None:
        """This file is done: its frames count where it was not deleted."""
        self._in_former += self._in_this if os.fstat(descriptor).st_nlink else 0
        self._in_this = 0

    def _let_go_of_a_moved_file(self) -> None:
        if self._descriptor < 0 or self.path is None or not moved(self._descriptor, self.path):
            return
        self._count_out(self._descriptor)
        os.close(self._descriptor)
        # Any fragment plays behind the head.
        self._descriptor, self._head = -1, self._beginning
        raise OSError(errno.ENOENT, "it is no longer there: it was moved or deleted")

    def _create(self) -> None:
        for number in itertools.count(1):
            name = f"{self._wanted.stem}-{number}{self._wanted.suffix}" if number > 1 else self._wanted.name
            path = self._wanted.with_name(name)
            with contextlib.suppress(FileExistsError):
                self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                self.path = path
                log.info("recording to %s", path)
                return


def _samples(boxes: bytes) -> int:
    """How many frames the fragments in `boxes` have: the counts of their `trun` (ISO/IEC 14496-12, 8.8.8)."""
    count, place = 0, 0
    while place + 8 <= len(boxes):
        size, kind = int.from_bytes(boxes[place : place + 4], "big"), boxes[place + 4 : place + 8]
        if kind in (b"moof", b"traf"):
            count += _samples(boxes[place + 8 : place + size])
        elif kind == b"trun":
            count += int.from_bytes(boxes[place + 12 : place + 16], "big")
        # An mdat of 4 GB and more has its size behind its name; nothing follows it.
        place += size if size >= 8 else len(boxes)
    return count


def open_output(values: OutputValues, _live: Any) -> RecordSink:
    return RecordSink(values["record"], every_frame=values.every_frame, least_free=values["min-free"])
