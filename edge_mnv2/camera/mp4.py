"""What an MP4 or MOV file says about itself that OpenCV hides or tells wrongly.

Its versions turn a phone's video to different sides (4.6 with FFmpeg 5 mistakes 90 for 270 degrees), and none says that
a clip was trimmed. Boxes are those of ISO/IEC 14496-12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

_MAX_BOXES = 1000
_MAX_INDEX = 64 << 20
_TURNS = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}


@dataclass(frozen=True)
class Mp4Facts:
    """`rotation`: degrees clockwise that make the picture upright. `trimmed_s`: how long it plays where an edit list
    says which part of the frames is shown; None without one."""

    rotation: int = 0
    trimmed_s: Optional[float] = None


def read_facts(path: Path) -> Mp4Facts:
    """The facts of the file at `path`; the defaults where it is damaged or no MP4."""
    try:
        with path.open("rb") as file:
            index = _index(file)
        trimmed = None
        rotation = 0
        for kind, body in _boxes(index):
            if kind == b"mvhd" and b"elst" in index:
                trimmed = _duration_s(body)
            elif kind == b"trak":
                rotation = _rotation(body) or rotation
    except (OSError, struct.error):
        return Mp4Facts()
    return Mp4Facts(rotation, trimmed)


def _index(file: IO[bytes]) -> bytes:
    """The body of the `moov` box, empty where there is none."""
    place = 0
    for _ in range(_MAX_BOXES):
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4], "big")
        if head[4:8] == b"moov":
            file.seek(place + 8)
            return file.read(min(max(size - 8, 0), _MAX_INDEX))
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8:
            break
        place += size
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if size < 8:
            return
        yield kind, data[place + 8 : place + size]
        place += size


def _duration_s(mvhd: bytes) -> Optional[float]:
    """8.2.2: time scale and duration."""
    scale, duration = struct.unpack_from(">IQ" if mvhd[:1] == b"\1" else ">II", mvhd, 20 if mvhd[:1] == b"\1" else 12)
    return duration / scale if scale else None


def _rotation(trak: bytes) -> int:
    """8.3.2: the matrix of a picture track, in degrees; 0 for other tracks and for anything but quarter turns."""
    matrix, pictures = (1, 0, 0, 1), False
    for kind, body in _boxes(trak):
        if kind == b"tkhd":
            a, b, _, c, d = struct.unpack_from(">5i", body, 52 if body[:1] == b"\1" else 40)
            matrix = tuple(round(value / 65536) for value in (a, b, c, d))
        elif kind == b"mdia":
            pictures = any(inner == b"hdlr" and what[8:12] == b"vide" for inner, what in _boxes(body))
    return _TURNS.get(matrix, 0) if pictures else 0
