"""What kind of file this is, by its first bytes. Names and extensions lie; content decides."""

from __future__ import annotations

from typing import Optional

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
