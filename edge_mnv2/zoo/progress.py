"""A transfer's rate and the time that is left, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Optional, TextIO

_WINDOW_S = 5.0
_REDRAW_S = 0.1


class Rate:
    """Bytes a second over the last few seconds, and from that the seconds left."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int, now: Optional[float] = None) -> None:
        now = time.monotonic() if now is None else now
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[0][0] < now - _WINDOW_S:
            self._seen.popleft()

    @property
    def bytes_per_s(self) -> Optional[float]:
        """None until there is something to measure."""
        if len(self._seen) < 2:
            return None
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start) if end > start and last > first else None

    def seconds_left(self, total: int) -> Optional[float]:
        rate = self.bytes_per_s
        return (total - self._seen[-1][1]) / rate if rate else None


class TerminalProgress:
    """A progress callback that draws `NAME 45 %  1.8/4.0 MB  512 kB/s  4 s left`; silent off a terminal."""

    def __init__(self, name: str, stream: Optional[TextIO] = None) -> None:
        self._name = name
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._rate = Rate()
        self._drawn_at = 0.0
        self._width = 0

    def __call__(self, done: int, total: int) -> None:
        if not self._shown:
            return
        now = time.monotonic()
        self._rate.update(done, now)
        if now - self._drawn_at >= _REDRAW_S or done == total:
            self._drawn_at = now
            self._draw(progress_line(self._name, done, total, self._rate))

    def close(self) -> None:
        """Clear the line."""
        if self._width:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()
            self._width = 0

    def _draw(self, line: str) -> None:
        self._stream.write(f"\r{line:<{self._width}}")
        self._stream.flush()
        self._width = len(line)


def progress_line(name: str, done: int, total: int, rate: Rate) -> str:
    """One line about a transfer of `total` bytes of which `done` are here."""
    parts = [f"{name} {100 * done // max(total, 1):3d} %", f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"]
    if (speed := rate.bytes_per_s) is not None:
        parts.append(readable_bytes(speed) + "/s")
    if (left := rate.seconds_left(total)) is not None and done < total:
        parts.append(f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left")
    return "  ".join(parts)


def readable_bytes(count: float) -> str:
    """`count` bytes as people say it: "525 kB", "3.6 MB"."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}" if count < 10 * step else f"{count / step:.0f} {unit}"
    return f"{count:.0f} B"
