"""What kind of file this is, by its first bytes, and what video files say about themselves.

Names and extensions lie; content decides. What OpenCV hides or gets wrong is read from the file:

- MP4 and MOV (boxes of ISO/IEC 14496-12): OpenCV's versions turn a phone's video to different sides (4.6 with FFmpeg 5
  mistakes 90 for 270 degrees), and none says that a clip was trimmed.
- AVI (index `idx1` of Microsoft's AVI RIFF file reference): chunks without bytes, by which writers keep time at a
  constant rate, count as frames.
- Transport streams (ISO/IEC 13818-1): sync bytes and continuity counters show lost packets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

import numpy as np

HEAD_BYTES = 512
"""How many leading bytes `kind` wants to see."""

# fmt: off
PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".webp", ".avif", ".heic", ".heif", ".jp2", ".j2k", ".mpo", ".pbm", ".pgm", ".ppm", ".pnm",
})
CLIP_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts",
    ".flv", ".wmv", ".asf", ".ogv", ".3gp", ".mjpg", ".mjpeg", ".h264", ".264", ".hevc", ".265",
})
# fmt: on

_SIGNATURES = (
    (0, b"\xff\xd8\xff", "picture"),
    (0, b"\x89PNG\r\n\x1a\n", "picture"),
    (0, b"GIF87a", "picture"),
    (0, b"GIF89a", "picture"),
    (0, b"II*\0", "picture"),
    (0, b"MM\0*", "picture"),
    (0, b"II+\0", "picture"),
    (0, b"MM\0+", "picture"),
    (8, b"WEBP", "picture"),
    (0, b"\0\0\0\x0cjP  ", "picture"),
    (0, b"\xff\x4f\xff\x51", "picture"),
    (8, b"AVI ", "clip"),
    (0, b"\x1aE\xdf\xa3", "clip"),
    (0, b"\0\0\x01\xba", "clip"),
    (0, b"\0\0\x01\xb3", "clip"),
    (0, b"FLV\x01", "clip"),
    (0, b"OggS", "clip"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "clip"),
)
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def kind(head: bytes) -> Optional[str]:
    """ "picture", "heic", "clip", "empty", "html", "text", or None where `head` (the first bytes) says nothing."""
    if not head:
        return "empty"
    for offset, signature, what in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return what
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "picture"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in (b" ", b"\t", b"\n", b"\r"):
        return "picture"
    if head[4:8] == b"ftyp":
        brands = head[8:64]
        if b"avif" in brands or b"avis" in brands:
            return "picture"
        return "heic" if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"mif1")) else "clip"
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return "clip"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "html"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f\x1b" for byte in head):
        return "text"
    return None


# Video files

_MAX_PARTS = 1000
_MAX_INDEX = 64 << 20
_ENTRY = np.dtype([("name", "S4"), ("flags", "<u4"), ("place", "<u4"), ("size", "<u4")])
_PACKET = 188
_SYNC = 0x47
_NULL_PID = 0x1FFF
_BLOCK = _PACKET << 15
_TURNS = {
    (1, 0, 0, 1): (0, ""),
    (0, 1, -1, 0): (90, ""),
    (-1, 0, 0, -1): (180, ""),
    (0, -1, 1, 0): (270, ""),
    (-1, 0, 0, 1): (0, "h"),
    (1, 0, 0, -1): (0, "v"),
    (0, 1, 1, 0): (90, "h"),
    (0, -1, -1, 0): (270, "h"),
}
CODECS = {"av01": "AV1", "hvc1": "H.265", "hev1": "H.265", "avc1": "H.264", "vp09": "VP9", "apch": "ProRes"}
_HDR = (16, 18)
"""Transfer characteristics of ITU-T H.273: PQ and HLG."""


@dataclass(frozen=True)
class Mp4Facts:
    """`rotation` (degrees clockwise) and then `flip` make the picture upright. `trimmed_s`: how long it plays where an
    edit list says which part of the frames is shown; None without one. `codecs`: the pictures' codecs, as four letters;
    empty where there are other tracks only. `hdr`: brightness by another curve than a classifier was trained on."""

    rotation: int = 0
    flip: str = ""
    trimmed_s: Optional[float] = None
    codecs: tuple[str, ...] = ()
    hdr: bool = False


def read_mp4(path: Path) -> Mp4Facts:
    """The facts of the file at `path`; the defaults where it is damaged or no MP4."""
    try:
        with path.open("rb") as file:
            index = _movie_box(file)
        trimmed = None
        turn, codecs, hdr = (0, ""), [], False
        for kind, content in _boxes(index):
            if kind == b"mvhd" and b"elst" in index:
                trimmed = _duration_s(content)
            elif kind == b"trak" and _holds_pictures(content):
                turn = _turn(content)
                codecs += _codecs(content)
                at = content.find(b"colrnclx")
                hdr = hdr or (at >= 0 and int.from_bytes(content[at + 10 : at + 12], "big") in _HDR)
    except (OSError, struct.error):
        return Mp4Facts()
    return Mp4Facts(*turn, trimmed, tuple(codecs), hdr)


def _movie_box(file: IO[bytes]) -> bytes:
    """The content of the `moov` box, empty where there is none."""
    place = 0
    for _ in range(_MAX_PARTS):
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


def _turn(trak: bytes) -> tuple[int, str]:
    """8.3.2: the matrix of a track as (degrees, flip); upright for anything but quarter turns and mirrors."""
    for kind, content in _boxes(trak):
        if kind == b"tkhd":
            a, b, _, c, d = struct.unpack_from(">5i", content, 52 if content[:1] == b"\1" else 40)
            a, b, c, d = (round(value / 65536) for value in (a, b, c, d))
            return _TURNS.get((a, b, c, d), (0, ""))
    return 0, ""


def _inside(data: bytes, *path: bytes) -> bytes:
    """The content of the box at `path`, empty where there is none."""
    for name in path:
        data = next((content for kind, content in _boxes(data) if kind == name), b"")
    return data


def _holds_pictures(trak: bytes) -> bool:
    return _inside(trak, b"mdia", b"hdlr")[8:12] == b"vide"


def _codecs(trak: bytes) -> list[str]:
    """8.5.2: the sample entries of a track."""
    entries = _inside(trak, b"mdia", b"minf", b"stbl", b"stsd")[8:]
    return [kind.decode("latin-1") for kind, _ in _boxes(entries)]


def why_unreadable(path: Path, head: bytes) -> tuple[str, Optional[str]]:
    """(what is wrong, what to do) with a video that cannot be decoded; `head` is the first bytes of the file."""
    hint = "convert it to H.264: ffmpeg -i FILE -c:v libx264 OUT.mp4"
    if head[4:8] == b"ftyp":
        facts = read_mp4(path)
        with path.open("rb") as file:
            index = _movie_box(file)
        if facts.codecs:
            names = ", ".join(CODECS.get(codec, codec) for codec in facts.codecs)
            return f"is {names} video, which cannot be decoded here", hint
        if not index:
            return "has no index: the recording was not finished", "recover it, or record in another format"
        empty = all(kind != b"trak" for kind, _ in _boxes(index))
        return ("holds neither pictures nor sound" if empty else "has sound but no pictures"), None
    if head[:4] == b"\x1aE\xdf\xa3":
        with path.open("rb") as file:
            start = file.read(1 << 16)
        if b"V_" not in start and b"A_" in start:
            return "has sound but no pictures", None
        if b"V_AV1" in start:
            return "is AV1 video, which cannot be decoded here", hint
    return "cannot be read as a video", "it may be damaged, or cut short"


def empty_avi_frames(path: Path) -> int:
    """Entries without bytes of the pictures' stream; 0 where the file has no index or cannot be read."""
    try:
        with path.open("rb") as file:
            index = _avi_index(file)
    except OSError:
        return 0
    entries = np.frombuffer(index, _ENTRY, count=len(index) // _ENTRY.itemsize)
    pictures = np.char.endswith(entries["name"], b"dc") | np.char.endswith(entries["name"], b"db")
    return int(np.count_nonzero(pictures & (entries["size"] == 0)))


def _avi_index(file: IO[bytes]) -> bytes:
    place = 12
    for _ in range(_MAX_PARTS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"idx1":
            return file.read(min(size, _MAX_INDEX))
        place += 8 + size + size % 2
    return b""


def has_lost_packets(path: Path, joined: bool = False) -> bool:
    """False too where the file cannot be read, or has packets of another size than 188 bytes. Of files that were
    `joined` packets tell it alone: the counters begin anew."""
    last: dict[int, int] = {}
    try:
        with path.open("rb") as file:
            start = file.read(_PACKET + 1)
            if start[:1] != b"\x47" or start[_PACKET:] != b"\x47":
                return False
            file.seek(0)
            while block := file.read(_BLOCK):
                packets = np.frombuffer(block, np.uint8, len(block) // _PACKET * _PACKET).reshape(-1, _PACKET)
                if _unsound(packets) or (not joined and _breaks(packets, last)):
                    return True
    except OSError:
        pass
    return False


def _unsound(packets: np.ndarray) -> bool:
    return bool((packets[:, 0] != _SYNC).any() or (packets[:, 1] & 0x80).any())


def _breaks(packets: np.ndarray, last: dict[int, int]) -> bool:
    """Whether `packets` (uint8 Nx188) go on as they should; `last` has each stream's last counter, and is updated."""
    pids = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    field, payload = packets[:, 3] & 0x20 > 0, packets[:, 3] & 0x10 > 0
    # The stream's maker may say that a counter jumps here.
    announced = field & (packets[:, 4] > 0) & (packets[:, 5] & 0x80 > 0)
    for pid in np.unique(pids):
        rows = (pids == pid) & payload
        if pid == _NULL_PID or not rows.any():
            continue
        counters = (packets[rows, 3] & 0x0F).astype(int)
        steps = np.diff(counters, prepend=last.get(pid, counters[0])) % 16
        # A packet may be sent twice.
        if ((steps > 1) & ~announced[rows]).any():
            return True
        last[pid] = int(counters[-1])
    return False
