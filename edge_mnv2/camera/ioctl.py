"""The few questions that we ask a V4L2 device, by ioctl: no tool's text is parsed, and nothing needs to be installed.

Structures and numbers are those of the kernel's `linux/videodev2.h`; none holds a pointer, so they are the same on 32
and 64 bits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_READ, _WRITE = 2, 1
_CAPTURE = 1
_MAX = 128
"""No driver has so many formats, sizes or rates; a broken one shall not keep us."""

_NEXT_CONTROL = 0x8000_0000
_CONTROL_CLASS = 6
_CONTROL_DISABLED = 1

CAP_VIDEO_CAPTURE = 0x0000_0001
CAP_VIDEO_CAPTURE_MPLANE = 0x0000_1000
CAP_VIDEO_M2M = 0x0000_8000
CAP_VIDEO_M2M_MPLANE = 0x0000_4000
CAP_STREAMING = 0x0400_0000
CAP_DEVICE_CAPS = 0x8000_0000


def _number(direction: int, which: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("V") << 8 | which


_QUERYCAP = _number(_READ, 0, 104)
_ENUM_FMT = _number(_READ | _WRITE, 2, 64)
_REQBUFS = _number(_READ | _WRITE, 8, 20)
_S_CTRL = _number(_READ | _WRITE, 28, 8)
_QUERYCTRL = _number(_READ | _WRITE, 36, 68)
_ENUM_FRAMESIZES = _number(_READ | _WRITE, 74, 44)
_ENUM_FRAMEINTERVALS = _number(_READ | _WRITE, 75, 52)


@dataclass(frozen=True)
class Capability:
    """What a device says it is; `flags` are the node's own capabilities."""

    driver: str
    card: str
    bus: str
    flags: int

    @property
    def captures(self) -> bool:
        """A camera's picture node: not its metadata node, no codec and no scaler."""
        capture = self.flags & (CAP_VIDEO_CAPTURE | CAP_VIDEO_CAPTURE_MPLANE)
        codec = self.flags & (CAP_VIDEO_M2M | CAP_VIDEO_M2M_MPLANE)
        return bool(capture and self.flags & CAP_STREAMING and not codec)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """The file descriptor of a device node, for questions only. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), path)
        yield descriptor
    finally:
        os.close(descriptor)


def capability(descriptor: int) -> Capability:
    """`VIDIOC_QUERYCAP`. Raises OSError."""
    answer = fcntl.ioctl(descriptor, _QUERYCAP, bytes(104))
    driver, card, bus, _, all_flags, own_flags = struct.unpack_from("<16s32s32sIII", answer)
    flags = own_flags if all_flags & CAP_DEVICE_CAPS else all_flags
    return Capability(_text(driver), _text(card), _text(bus), flags)


def formats(descriptor: int) -> Iterator[tuple[str, str]]:
    """(FourCC, description) of each picture format."""
    for index in range(_MAX):
        request = struct.pack("<II", index, _CAPTURE) + bytes(56)
        try:
            answer = fcntl.ioctl(descriptor, _ENUM_FMT, request)
        except OSError:
            return
        description, code = struct.unpack_from("<12x32s4s", answer)
        yield _fourcc(code), _text(description)


def sizes(descriptor: int, fourcc: str) -> Iterator[tuple[int, int]]:
    """(width, height) of each size of a format; smallest and largest where any size between them will do."""
    for index in range(_MAX):
        request = struct.pack("<I4s", index, _code(fourcc)) + bytes(36)
        try:
            answer = fcntl.ioctl(descriptor, _ENUM_FRAMESIZES, request)
        except OSError:
            return
        kind, a, b, _, d, e, _ = struct.unpack_from("<8x7I", answer)
        if kind == 1:
            yield a, b
        else:
            yield a, d
            yield b, e
            return


def rates(descriptor: int, fourcc: str, width: int, height: int) -> Iterator[float]:
    """Frames per second of each interval of a format and size; fastest and slowest where any between will do."""
    for index in range(_MAX):
        request = struct.pack("<I4sII", index, _code(fourcc), width, height) + bytes(36)
        try:
            answer = fcntl.ioctl(descriptor, _ENUM_FRAMEINTERVALS, request)
        except OSError:
            return
        kind, *fractions = struct.unpack_from("<16x7I", answer)
        for numerator, denominator in zip(fractions[0:4:2], fractions[1:4:2]):
            if numerator:
                yield denominator / numerator
            if kind == 1:
                break
        if kind != 1:
            return


def controls(descriptor: int) -> Iterator[tuple[int, str, int, int]]:
    """(id, name, least, most) of each control; names as `v4l2-ctl` has them: `exposure_time_absolute`."""
    identifier = 0
    for _ in range(4 * _MAX):
        request = struct.pack("<I", identifier | _NEXT_CONTROL) + bytes(64)
        try:
            answer = fcntl.ioctl(descriptor, _QUERYCTRL, request)
        except OSError:
            return
        identifier, kind, name, least, most, _, _, flags = struct.unpack_from("<II32siiiiI", answer)
        if kind != _CONTROL_CLASS and not flags & _CONTROL_DISABLED:
            yield identifier, re.sub(r"[^a-z0-9]+", "_", _text(name).lower()).strip("_"), least, most


def set_control(descriptor: int, identifier: int, value: int) -> None:
    """`VIDIOC_S_CTRL`. Raises OSError where the device refuses the value."""
    fcntl.ioctl(descriptor, _S_CTRL, struct.pack("<Ii", identifier, value))


def busy(descriptor: int) -> bool:
    """Whether another open file streams: giving back buffers that we do not have is refused only then."""
    try:
        fcntl.ioctl(descriptor, _REQBUFS, struct.pack("<III8x", 0, _CAPTURE, 1))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


_BIG_ENDIAN = "-BE"


def _fourcc(code: bytes) -> str:
    # The top bit marks the big-endian variant of a format.
    plain = bytes((*code[:3], code[3] & 0x7F)).decode("ascii", "replace").rstrip()
    return plain + _BIG_ENDIAN if code[3] & 0x80 else plain


def _code(fourcc: str) -> bytes:
    code = fourcc.replace(_BIG_ENDIAN, "").ljust(4).encode("ascii", "replace")[:4]
    return bytes((*code[:3], code[3] | 0x80)) if fourcc.endswith(_BIG_ENDIAN) else code


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
