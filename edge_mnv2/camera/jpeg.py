"""JPEG: decoded no larger than needed, and damage that no decoder reports.

A JPEG decoder can leave out the finest coefficients and give a picture of a half, a quarter or an eighth of the size
for a fraction of the time (libjpeg's scaled decoding): a model that looks at 224 pixels needs no 720 rows.

A photo whose second half was lost in a power cut still decodes: libjpeg takes zeros or noise for data, and what is
missing for grey, with warnings that neither Pillow nor OpenCV passes on. But the decoder then needs more or fewer
bytes than a scan has, and that can be seen from outside, because it gives back the bytes that it has not used yet.
Structure and markers are those of ITU-T T.81, annex B.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from edge_mnv2.camera.opencv import import_cv2

if TYPE_CHECKING:
    from PIL import ImageFile

_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_DHT, _EOI, _SOS, _DRI = 0xC4, 0xD9, 0xDA, 0xDD
_BASELINE = (0xC0, 0xC1)
_HUFFMAN = (*_BASELINE, 0xC2)
_FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_PADDING = b"\xff\0" * 12
"""Bits that are no code: the decoder reads up to eight bytes ahead of what it needs."""
_FILLER = bytes(32)
_BEGIN, _END = b"\xff\xd8\xff", b"\xff\xd9"
_NO_SEGMENT = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
"""Codes that no segment of a picture has: fillers, restarts, the beginning of another picture."""
_MAX_PICTURE = 64 << 20
_MAX_RUBBISH = 16 << 20
_MAX_TABLES = 4096
"""No segment is longer, but for those that hold what an application put there."""
_MAX_PARTS = 500
_PROBE = 12
_TAIL = 24


def reduction(width: int, height: int, least_side: Optional[int]) -> int:
    """1, 2, 4 or 8: by how much the sides may shrink so that the shorter one keeps `least_side` pixels (None: all)."""
    if least_side is None:
        return 1
    return next((by for by in (8, 4, 2) if min(width, height) // by >= least_side), 1)


class JpegDecoder:
    """Decodes to BGR uint8 HxWx3; the first picture of a size in full, and by that one's size chooses the reduction.

    `full_size` is (width, height) as the camera sends them, None before the first picture.
    """

    def __init__(self, least_side: Optional[int] = None) -> None:
        self._cv2 = import_cv2()
        self._least_side = least_side
        self._flags, self._by = self._cv2.IMREAD_COLOR, 1
        self.full_size: Optional[tuple[int, int]] = None

    def __call__(self, jpeg: Union[bytes, np.ndarray]) -> Optional[np.ndarray]:
        """The picture, None where it cannot be decoded."""
        cv2 = self._cv2
        data = jpeg.reshape(-1) if isinstance(jpeg, np.ndarray) else np.frombuffer(jpeg, np.uint8)
        pixels = self._decoded(data, self._flags)
        if pixels is None or self._as_before(pixels):
            return pixels
        # The first one, or a camera that was set to another size meanwhile.
        if self._by > 1:
            pixels = self._decoded(data, cv2.IMREAD_COLOR)
        if pixels is not None:
            height, width = pixels.shape[:2]
            self.full_size = width, height
            self._by = reduction(width, height, self._least_side)
            self._flags = cv2.IMREAD_COLOR if self._by == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{self._by}")
        return pixels

    def _decoded(self, data: np.ndarray, flags: int) -> Optional[np.ndarray]:
        # OpenCV raises for nothing at all, and for a header that asks for more than it makes.
        with contextlib.suppress(self._cv2.error):
            decoded: Optional[np.ndarray] = self._cv2.imdecode(data, flags)
            return decoded
        return None

    def _as_before(self, pixels: np.ndarray) -> bool:
        """Whether `pixels` are of a picture of `full_size`; a reduced side is rounded up or down."""
        sides = pixels.shape[1::-1]
        return self.full_size is not None and all(
            abs(side * self._by - full) < self._by for side, full in zip(sides, self.full_size)
        )


class Structure:
    """Where the scans of the JPEG file `data` are, and what its markers contradict.

    `scans` are (first byte, end) of entropy-coded data, taken apart at restart markers. `damage` says what is wrong,
    None for nothing. `checkable`: Huffman-coded, so that the length of each scan can be checked by decoding it.
    """

    def __init__(self, data: bytes) -> None:
        self.scans: list[tuple[int, int]] = []
        self.damage: Optional[str] = None
        self.checkable = False
        self._interval = 0
        self._size = (0, 0)
        self._factors: dict[int, tuple[int, int]] = {}
        # Symbols of the codes that are all zeros, of the AC tables.
        self._zero_codes: dict[int, int] = {}
        self._baseline = False
        try:
            self._walk(data)
        except (IndexError, KeyError, ValueError):
            self.damage = self.damage or "a segment is cut short"

    def _walk(self, data: bytes) -> None:
        place = 2
        while self.damage is None:
            place = data.index(b"\xff", place)
            while data[place] == 0xFF:
                place += 1
            code = data[place]
            place += 1
            if code == _EOI:
                return
            if code == 0 or 0xD0 <= code <= 0xD7 or code == 1:
                continue
            length = int.from_bytes(data[place : place + 2], "big")
            segment = data[place + 2 : place + length]
            place += length
            if code in _FRAMES:
                self._frame(code, segment)
            elif code == _DRI:
                self._interval = int.from_bytes(segment[:2], "big")
            elif code == _DHT:
                self._huffman_tables(segment)
            elif code == _SOS:
                match = _END_OF_SCAN.search(data, place)
                end = match.start() if match else len(data)
                self._check_scan(data, place, end, segment)
                if match is None:
                    self.damage = self.damage or "its end is missing"
                place = end

    def _frame(self, code: int, segment: bytes) -> None:
        self.checkable, self._baseline = code in _HUFFMAN, code in _BASELINE
        height, width = (int.from_bytes(segment[at : at + 2], "big") for at in (1, 3))
        self._size = width, height
        for at in range(6, 6 + 3 * segment[5], 3):
            self._factors[segment[at]] = segment[at + 1] >> 4, segment[at + 1] & 15

    def _huffman_tables(self, segment: bytes) -> None:
        at = 0
        while at < len(segment):
            if segment[at] & 0x10:
                self._zero_codes[segment[at] & 15] = segment[at + 17]
            at += 17 + sum(segment[at + 1 : at + 17])

    def _check_scan(self, data: bytes, start: int, end: int, header: bytes) -> None:
        # Where the code of zeros is no end of block, zeros fill blocks with coefficients that no picture has.
        if self._baseline and any(self._zero_codes.values()) and data.find(_FILLER, start, end) >= 0:
            self.damage = "a part of it was overwritten with zeros"
        restarts = list(_RESTART.finditer(data, start, end))
        if len(restarts) <= _MAX_PARTS:
            ends = [match.start() for match in restarts]
            self.scans += zip([start, *(at + 2 for at in ends)], [*ends, end])
        else:
            self.scans.append((start, end))
        codes = [match[1][0] - 0xD0 for match in restarts]
        if not self._interval:
            if codes:
                self.damage = "a marker stands where none belongs"
            return
        # Restart markers count from 0 to 7 and come once an interval: where data were lost, some are missing.
        if any(code != number % 8 for number, code in enumerate(codes)):
            self.damage = "restart markers are missing"
        elif len(codes) != (self._units([header[1 + 2 * number] for number in range(header[0])]) - 1) // self._interval:
            self.damage = "parts of it are missing"

    def _units(self, components: list[int]) -> int:
        """Minimum coded units of a scan; one component alone is not interleaved, and its unit is a block."""
        across, down = (max(sides) for sides in zip(*self._factors.values()))
        own_across, own_down = self._factors[components[0]] if len(components) == 1 else (1, 1)
        width, height = -(-self._size[0] * own_across // across), -(-self._size[1] * own_down // down)
        return -(-width // 8) * -(-height // 8)


def decode_checked(image: ImageFile.ImageFile, data: bytes) -> Optional[str]:
    """Decode `image`, which Pillow opened from the JPEG file `data`, and say what is damaged; None for a whole picture.

    `Image.draft` may have been called. Every scan is offered without its last bytes, which a whole one needs, and then
    with some bytes more, which a whole one does not need.
    """
    from PIL import Image

    structure = Structure(data)
    if structure.damage is not None or not structure.checkable:
        image.load()
        return structure.damage
    name, extents, _, arguments = image.tile[0]
    image.load_prepare()
    decoder = Image._getdecoder(image.mode, name, arguments, image.decoderconfig)
    decoder.setimage(image.im, extents)
    feed, damage = _Feed(decoder), None
    view, place = memoryview(data), 0
    for start, end in structure.scans:
        probe = end - _TAIL
        if probe > start:
            feed(view[place:probe])
            place = probe + _PROBE
            # Every byte has to be fed, so no short cut: a list.
            if max([feed(view[at : at + 1]) for at in range(probe, place)]) <= 1:
                damage = "data are left over"
        feed(view[place:end])
        feed(_PADDING)
        if max([feed(b"\0") for _ in range(_PROBE)]) > 0:
            damage = damage or "picture data are missing"
        place = end
    feed(view[place:])
    if feed.error:
        damage = damage or "it cannot be decoded"
    elif not feed.finished:
        damage = damage or "its end is missing"
    image.tile = []
    image.load_end()
    return damage


class _Feed:
    """Hands bytes to one of Pillow's decoders; each call gives back how many bytes wait to be used."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._waiting: Union[bytes, memoryview] = b""
        self.finished = False
        self.error = 0

    def __call__(self, data: Union[bytes, memoryview]) -> int:
        if self.finished:
            return 0
        waiting = b"".join((self._waiting, data)) if self._waiting else data
        used, error = self._decoder.decode(waiting)
        if used < 0:
            self.finished, self.error, self._waiting = True, error, b""
            return 0
        self._waiting = bytes(waiting[used:])
        return len(self._waiting)


class JpegFinder:
    """The JPEG files in what a camera sends, wherever they are.

    Nothing around them is believed: cameras announce one boundary and send another, or none, wrong lengths or none, put
    text between pictures, or send one file right after the other. A picture is complete with its end mark.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = -1  # of the picture in the buffer, -1 before one is found
        self._place = 0  # up to where it has been read
        self._in_scan = False
        self._rubbish = 0
        self.damaged = 0
        """Pictures that began and were not whole."""

    def feed(self, data: bytes) -> list[bytes]:
        """The pictures that `data` completes, oldest first. Raises ValueError where there are none in megabytes."""
        self._buffer += data
        pictures: list[bytes] = []
        while (end := self._advance()) is not None:
            if end and not self._swallows_another(end):
                pictures.append(bytes(self._buffer[self._start : end]))
                self._drop(end)
                self._rubbish = 0
            else:
                # Not a picture after all, or one that was cut short: the next one may begin inside.
                self.damaged += 1
                self._drop(self._start + 2)
        if len(self._buffer) > _MAX_PICTURE:
            self.damaged += 1
            self._drop(self._start + 2)
        if self._rubbish > _MAX_RUBBISH:
            raise ValueError(f"no picture in {self._rubbish >> 20} MB")
        return pictures

    def finish(self) -> list[bytes]:
        """The whole pictures in what is left when no more bytes come."""
        pictures: list[bytes] = []
        while self._start >= 0:
            self.damaged += 1
            self._drop(self._start + 2)
            pictures += self.feed(b"")
        return pictures

    def _swallows_another(self, end: int) -> bool:
        """Whether another picture ends where this one does, which then lacks its own end."""
        at = self._buffer.rfind(_BEGIN, self._start + 2, end)
        return at >= 0 and [len(one) for one in JpegFinder().feed(bytes(self._buffer[at:end]))] == [end - at]

    def _drop(self, count: int) -> None:
        self._rubbish += count
        del self._buffer[:count]
        self._start, self._place, self._in_scan = -1, 0, False

    def _advance(self) -> Optional[int]:
        """The end of the picture in the buffer; 0 where it cannot be one; None where more bytes are needed."""
        buffer = self._buffer
        if self._start < 0:
            self._start = buffer.find(_BEGIN)
            if self._start < 0:
                keep = min(2, len(buffer))
                self._drop(len(buffer) - keep)
                return None
            self._place = self._start + 2
        while True:
            if self._in_scan:
                match = _END_OF_SCAN.search(buffer, self._place)
                if match is None:
                    self._place = max(self._place, len(buffer) - 1)
                    return None
                self._place, self._in_scan = match.start(), False
            while buffer[self._place : self._place + 2] == b"\xff\xff":
                self._place += 1
            if len(buffer) < self._place + 4:
                return self._place + 2 if buffer[self._place : self._place + 2] == _END else None
            code = buffer[self._place + 1]
            if buffer[self._place] != 0xFF or code in _NO_SEGMENT:
                return 0
            if code == _EOI:
                return self._place + 2
            length = int.from_bytes(buffer[self._place + 2 : self._place + 4], "big")
            if length < 2 or (length > _MAX_TABLES and not 0xE0 <= code <= 0xFE):
                return 0
            if len(buffer) < self._place + 2 + length:
                return None
            self._place += 2 + length
            self._in_scan = code == _SOS
