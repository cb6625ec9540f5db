"""MP4 files changed where OpenCV's writer has no option for it: box by box (ISO/IEC 14496-12)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
Edit = Callable[[bytes], bytes]


def write_clip(path: Path, pictures: list[np.ndarray], fourcc: str, fps: float = 20) -> bytes:
    """`pictures` (RGB) as a video file; its bytes."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*fourcc), fps, (width, height))
    assert writer.isOpened()
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path.read_bytes()


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, body) of each box in `data`."""
    found, offset = [], 0
    while offset + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, offset + 8)[0], 16
        found.append((kind, data[offset + head : offset + (size or len(data) - offset)]))
        offset += size or len(data)
    return found


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def edited(data: bytes, edits: dict[bytes, Edit], extra: Optional[dict[bytes, bytes]] = None) -> bytes:
    """`data` with the bodies of the boxes named in `edits` changed, and whole boxes of `extra` added to a parent.

    The index has to lie behind the pictures, as OpenCV writes it, because places in the file are not adapted.
    """
    out = b""
    for kind, body in boxes(data):
        if kind in edits:
            body = edits[kind](body)
        if kind in _PARENTS:
            body = edited(body, edits, extra) + (extra or {}).get(kind, b"")
        out += box(kind, body)
    return out


def rotated(data: bytes, degrees: int) -> bytes:
    """With a rotation tag: a player turns the pictures clockwise by `degrees`."""
    return with_matrix(data, {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees])


def with_matrix(data: bytes, matrix: tuple[int, ...]) -> bytes:
    """With the matrix (a, b, c, d) of ISO/IEC 14496-12, 8.3.2, which turns and mirrors."""
    a, b, c, d = matrix

    def tag(body: bytes) -> bytes:
        matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        return body[:40] + matrix + body[76:]

    return edited(data, {b"tkhd": tag})


def variable_rate(data: bytes, fast: int, slow: int, factor: int) -> bytes:
    """The first `fast` frames at the file's rate, the other `slow` ones `factor` times as long."""

    def durations(body: bytes) -> bytes:
        _, count, frames, delta = struct.unpack(">IIII", body[:16])
        assert count == 1 and frames == fast + slow
        return struct.pack(">IIIIII", 0, 2, fast, delta, slow, delta * factor)

    return edited(data, {b"stts": durations})


def without_edit_list(data: bytes) -> bytes:
    """With the edit list (what of the track is shown) turned into padding."""
    return data.replace(b"edts", b"free")


def index_first(data: bytes) -> bytes:
    """With the index in front of the pictures, so that a file cut short can still be opened."""
    parts = dict(boxes(data))
    shift = len(parts[b"moov"]) + 8

    def places(body: bytes) -> bytes:
        count = int.from_bytes(body[4:8], "big")
        old = struct.unpack_from(f">{count}I", body, 8)
        return body[:8] + struct.pack(f">{count}I", *(place + shift for place in old))

    moov = boxes(edited(box(b"moov", parts[b"moov"]), {b"stco": places}))[0][1]
    ordered = [(kind, body) for kind, body in boxes(data) if kind != b"moov"]
    ordered.insert(1, (b"moov", moov))
    return b"".join(box(kind, body) for kind, body in ordered)
