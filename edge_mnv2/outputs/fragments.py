"""A file that grows by whole fragments of an MP4 stream (ISO/IEC 14496-12): what is in it always plays."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import time
from pathlib import Path
from typing import Optional

from edge_mnv2.outputs.disk import append_whole, moved

log = logging.getLogger(__name__)

_SYNC_S = 2.0
"""How much a power cut may take, in seconds; more often would wear an SD card."""


class FragmentFile:
    """Takes the bytes of a fragmented MP4 as they come and appends each fragment when it is complete, in one write.

    The file appears with the first fragment. One of the name `wanted` that is there already is kept: NAME-2, NAME-3 and
    so on follow. A fragment that the disk has no room for is taken back whole and raises OSError; later ones may go
    again. Where the file was moved or deleted, OSError says so, and the next fragment begins a new one. `path` is None
    until the file is there.
    """

    def __init__(self, wanted: Path) -> None:
        self._wanted = wanted
        self._descriptor = -1
        self._waiting = bytearray()
        self._complete = 0
        self._head = self._beginning = b""
        self._synced_at = time.monotonic()
        self.path: Optional[Path] = None

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

    def _let_go_of_a_moved_file(self) -> None:
        if self._descriptor < 0 or self.path is None or not moved(self._descriptor, self.path):
            return
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
