"""How many of an AVI file's frames are none: chunks of no bytes, by which writers keep time at a constant rate.

The index `idx1` is that of Microsoft's AVI RIFF file reference: chunk name, flags, place, size.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

_MAX_CHUNKS = 1000
_MAX_INDEX = 64 << 20
_ENTRY = np.dtype([("name", "S4"), ("flags", "<u4"), ("place", "<u4"), ("size", "<u4")])


def empty_frames(path: Path) -> int:
    """Entries without bytes of the pictures' stream; 0 where the file has no index or cannot be read."""
    try:
        with path.open("rb") as file:
            index = _index(file)
    except OSError:
        return 0
    entries = np.frombuffer(index, _ENTRY, count=len(index) // _ENTRY.itemsize)
    pictures = np.char.endswith(entries["name"], b"dc") | np.char.endswith(entries["name"], b"db")
    return int(np.count_nonzero(pictures & (entries["size"] == 0)))


def _index(file: IO[bytes]) -> bytes:
    place = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            break
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"idx1":
            return file.read(min(size, _MAX_INDEX))
        place += 8 + size + size % 2
    return b""
