"""How much room a file system keeps for others, and sizes as people write them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import UsageError

_MOST_FLOOR = 50_000_000
_FLOOR_SHARE = 0.02
_LOOK_S = 1.0
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_bytes(option: str, text: str) -> int:
    """`500kB`, `10MB`, `1.5G` as bytes (10^3 to a step, 1024 with `KiB` and so on). Raises UsageError."""
    match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(?:([kKMGT])(i?)B?)\s*", text)
    if match is None:
        raise UsageError(f"{option} {text}", hint="a size such as 10MB or 2GB")
    unit = match[2].replace("K", "k")
    steps = "kMGT".index(unit) + 1
    size = int(float(match[1]) * (1024**steps if match[3] else _UNITS[unit]))
    if size < 1000:
        raise UsageError(f"{option} {text}", hint="at least 1kB")
    return size


class Floor:
    """Free bytes below which nothing more is written to the file system of `path`.

    Without `least`: two percent of the file system, at most 50 MB, so that the rest of the board goes on working.
    The file system is asked once a second.
    """

    def __init__(self, path: Path, least: Optional[int] = None) -> None:
        self._path = path
        self._least = least
        self._looked_at = 0.0
        self._low: Optional[int] = None

    def low(self, *, now: bool = False) -> bool:
        """There is less room than that; `now` looks whatever was seen a moment ago."""
        if now or time.monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = time.monotonic()
            self._low = self._missing()
        return self._low is not None

    def check(self) -> None:
        """Raises OSError (ENOSPC) where there is less room than that."""
        if self.low():
            assert self._low is not None
            raise OSError(errno.ENOSPC, f"less than {_in_words(self._low)} free there")

    def _missing(self) -> Optional[int]:
        """The floor in bytes where it is reached, else None."""
        try:
            room = os.statvfs(self._path)
        except OSError:
            # What is wrong shows when something is written.
            return None
        least = self._least
        if least is None:
            least = min(_MOST_FLOOR, int(room.f_blocks * room.f_frsize * _FLOOR_SHARE))
        return least if room.f_bavail * room.f_frsize < least else None


def moved(descriptor: int, path: Path) -> bool:
    """`path` is no longer the file that `descriptor` writes to: it was deleted, renamed or replaced."""
    here = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)


def append_whole(descriptor: int, data: bytes) -> None:
    """Append to a regular file that is open at its end: everything, or nothing and OSError."""
    size = os.fstat(descriptor).st_size
    try:
        write_all(descriptor, data)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however often that takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _in_words(size: int) -> str:
    for unit, step in (("GB", 10**9), ("MB", 10**6)):
        if size >= step:
            return f"{size / step:.3g} {unit}"
    return f"{size / 1000:.3g} kB"
