"""A file that grows by whole fragments of an MP4 stream (ISO/IEC 14496-12): what is in it always plays."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Optional

_SYNC_S = 2.0
"""How much a power cut may take, in seconds; more often would wear an SD card."""


class FragmentFile:
    """Takes the bytes of a fragmented MP4 as they come and appends each fragment when it is complete, in one write.

    A fragment that the disk has no room for is taken back whole and raises OSError; later ones may go again.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._waiting = bytearray()
        self._complete = 0
        self._synced_at = time.monotonic()

    def write(self, data: bytes) -> int:
        """Take more bytes (called by the multiplexer)."""
        self._waiting += data
        return len(data)

    def flush_fragments(self) -> None:
        """Append what is complete. Raises OSError."""
        while (size := self._next_box()) is not None:
            kind = bytes(self._waiting[self._complete + 4 : self._complete + 8])
            self._complete += size
            if kind in (b"mdat", b"moov", b"mfra"):
                self._append(bytes(self._waiting[: self._complete]))
                del self._waiting[: self._complete]
                self._complete = 0
        if time.monotonic() - self._synced_at > _SYNC_S:
            self._synced_at = time.monotonic()
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        try:
            self.flush_fragments()
            os.fdatasync(self._descriptor)
        finally:
            os.close(self._descriptor)

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
        size = os.fstat(self._descriptor).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            # The fragment is dropped whether or not it can be taken back.
            self._waiting.clear()
            self._complete = 0
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
                os.lseek(self._descriptor, size, os.SEEK_SET)
            raise
