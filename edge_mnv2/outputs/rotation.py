"""When a log file is put aside, and under which name."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.disk import parse_bytes

DEFAULT_KEEP = 5
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


@dataclass(frozen=True)
class Rotation:
    """`FILE` becomes `FILE.1` before it grows past `most_bytes` or gets older than `most_s` seconds, `FILE.1` becomes
    `FILE.2` and so on; `keep` of them stay."""

    most_bytes: Optional[int] = None
    most_s: Optional[float] = None
    keep: int = DEFAULT_KEEP

    @classmethod
    def parse(cls, text: str, keep: int = DEFAULT_KEEP) -> Rotation:
        """`10MB`, `1d`, or both with a comma between. Raises UsageError."""
        sizes: list[int] = []
        ages: list[float] = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(s|min|h|d|w)\s*", part)
            if match is None:
                try:
                    sizes.append(parse_bytes("--log-rotate", part))
                except UsageError:
                    raise UsageError(
                        f"--log-rotate {text}", hint="a size (10MB), an age (12h, 1d) or both (10MB,1d)"
                    ) from None
            elif float(match[1]) > 0:
                ages.append(float(match[1]) * _SECONDS[match[2]])
            else:
                raise UsageError(f"--log-rotate {text}", hint="an age above 0")
        return cls(min(sizes, default=None), min(ages, default=None), keep)

    def due(self, size: int, more: int, began: float, now: float) -> bool:
        """A file of `size` bytes, begun at `began` (seconds since 1970), is put aside before `more` bytes come."""
        if self.most_bytes is not None and size and size + more > self.most_bytes:
            return True
        return self.most_s is not None and bool(size) and now - began >= self.most_s

    def put_aside(self, path: Path) -> None:
        """Rename. Raises OSError."""
        for number in range(self.keep, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                aside(path, number - 1).replace(aside(path, number))
        for number in _numbers(path):
            if number > self.keep:
                aside(path, number).unlink(missing_ok=True)

    def drop_oldest(self, path: Path) -> bool:
        """Delete the oldest file that was put aside, to make room. False where there is none."""
        numbers = _numbers(path)
        if not numbers:
            return False
        with contextlib.suppress(OSError):
            aside(path, max(numbers)).unlink()
            return True
        return False


def aside(path: Path, number: int) -> Path:
    """The name of the `number`th newest file put aside; 0 is the one that is written."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def began(head: bytes) -> float:
    """When a log that begins with the bytes `head` was begun: its first time stamp, else now."""
    if match := _STAMP.search(head):
        with contextlib.suppress(ValueError):
            text = match[0].decode().rstrip("Z").split(".")[0]
            return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return time.time()


def _numbers(path: Path) -> list[int]:
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,5})")
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []
    return [int(match[1]) for name in names if (match := pattern.fullmatch(name))]
