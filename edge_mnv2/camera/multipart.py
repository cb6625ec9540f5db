"""The body of a `multipart/x-mixed-replace` answer, which is what an MJPEG camera sends, into its parts.

Cameras break the format in every way: boundaries with and without the leading dashes, quoted or missing in the header,
lengths missing or wrong. So a length is believed only where a boundary follows it, and parts without one are ended by
the next boundary, or at once by a JPEG's end mark where nothing has come after it.
"""

from __future__ import annotations

import re
from typing import Optional

MAX_PART = 64 << 20
MAX_HEADER = 256 << 10
_END = b"\xff\xd9"


class Multipart:
    """Feed it bytes as they come; it gives back the payloads that are complete."""

    def __init__(self, content_type: str) -> None:
        match = re.search(r'boundary\s*=\s*"?([^";,\s]+)', content_type, re.IGNORECASE)
        self._token = (match[1] if match else "").lstrip("-").encode("latin-1", "replace")
        if self._token:
            line = rb"(?:\A|\n)-*" + re.escape(self._token) + rb"(?:--)?[ \t]*\r?\n"
        else:
            # Without a boundary in the answer's header, it is a line of dashes and a word, after a JPEG's end or
            # before a line of header.
            word = rb"--[!-~]{1,70}\r?\n"
            line = rb"(?<=\xff\xd9)\r?\n" + word + rb"|(?:\A|\n)" + word + rb"(?=[A-Za-z-]+ *:)"
        self._boundary = re.compile(line)
        self._buffer = bytearray()
        self._length: Optional[int] = None
        self._in_part = False

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes, oldest first. Raises ValueError where this is no multipart body."""
        self._buffer += data
        parts = []
        while (part := self._next()) is not None:
            if part:
                parts.append(part)
        if len(self._buffer) > MAX_PART:
            raise ValueError("a part without an end")
        return parts

    def _next(self) -> Optional[bytes]:
        """The next payload, empty for one to skip; None where more bytes are needed."""
        if not self._in_part:
            if not self._header():
                return None
            self._in_part = True
        buffer = self._buffer
        if self._length is not None:
            # Two more bytes tell whether a boundary follows, but a camera sends them only with its next frame.
            if len(buffer) < self._length:
                return None
            following = bytes(buffer[self._length : self._length + 4]).lstrip(b"\r\n")
            if not following or following[:1] == b"-" or self._token.startswith(following):
                return self._cut(self._length, self._length)
            self._length = None
        match = self._boundary.search(buffer)
        if match:
            end = match.start()
            while end > 0 and buffer[end - 1] in b"\r\n" and not buffer[:end].endswith(_END):
                end -= 1
            return self._cut(end, match.start())
        stripped = bytes(buffer[-8:]).rstrip(b"\r\n")
        if stripped.endswith(_END) and buffer[:2] == b"\xff\xd8":
            return self._cut(len(buffer), len(buffer))
        return None

    def _header(self) -> bool:
        match = self._boundary.search(self._buffer)
        if not match:
            if len(self._buffer) > MAX_HEADER:
                raise ValueError("no boundary where a part should begin")
            return False
        blank = re.compile(rb"\r?\n\r?\n").search(self._buffer, match.end() - 1)
        if not blank:
            return False
        lines = bytes(self._buffer[match.end() : blank.start()])
        length = re.search(rb"(?im)^content-length\s*:\s*(\d+)", lines)
        self._length = int(length[1]) if length and 0 < int(length[1]) <= MAX_PART else None
        del self._buffer[: blank.end()]
        return True

    def _cut(self, end: int, until: int) -> bytes:
        part = bytes(self._buffer[:end])
        del self._buffer[:until]
        self._in_part = False
        self._length = None
        return part
