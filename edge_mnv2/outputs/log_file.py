"""Results as JSON Lines or CSV, to a file or to stdout; when that file is put aside, and under which name."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.files import Floor, append_whole, moved, write_all
from edge_mnv2.outputs.records import CSV_COLUMNS, as_csv_line, as_json_line
from edge_mnv2.outputs.sink import Sink
from edge_mnv2.outputs.table import OutputValues, default
from edge_mnv2.pipeline.result import Result
from edge_mnv2.settings.kinds import Bytes

_SYNC_S = 5.0
"""How much a power cut may take, in seconds; more often would wear an SD card."""
_LOOK_S = 1.0


class Every:
    """Which results are logged: every Nth, or one every S seconds. `parse` reads `10` and `5s`."""

    def __init__(self, results: int = 1, seconds: float = 0.0) -> None:
        self._results, self._seconds = results, seconds
        self._count = 0
        self._next = 0.0

    @classmethod
    def parse(cls, text: Optional[str]) -> Every:
        if text is None:
            return cls()
        with contextlib.suppress(ValueError):
            if text.endswith("s"):
                seconds = float(text[:-1])
                if 0 < seconds < 1e7:
                    return cls(seconds=seconds)
            elif int(text) >= 1:
                return cls(results=int(text))
        raise UsageError(f"--log-every {text}", hint="a number of results (10) or of seconds (5s)")

    def __call__(self, result: Result) -> bool:
        if self._seconds:
            now = result.finished_at / 1e9
            if now < self._next:
                return False
            due = self._next + self._seconds
            # After a pause the beat begins anew.
            self._next = due if due > now else now + self._seconds
            return True
        self._count += 1
        return (self._count - 1) % self._results == 0


class LogFile(Sink):
    """Appends one line a result to `path` (`-` is stdout): JSON Lines, or CSV where the name ends in `.csv`.

    A line is written whole or taken back, so that a full disk leaves no torn line; a torn last line from a power cut
    is closed before the first new one. Every few seconds the lines go to the disk for good. A file that was removed,
    renamed or unmounted is opened anew. Nothing is written while the file system has less room than `floor` asks for.
    Raises UsageError where the path cannot be opened.
    """

    def __init__(
        self,
        path: str,
        every: Optional[Every] = None,
        rotation: Optional[Rotation] = None,
        least_free: Optional[int] = None,
    ) -> None:
        self.name = path
        self._path = Path(path)
        self._every = every or Every()
        self._rotation = rotation
        self._csv = path.lower().endswith(".csv")
        self._format = as_csv_line if self._csv else as_json_line
        self._descriptor = -1
        self._floor: Optional[Floor] = None
        self._began: Optional[float] = None
        self._age_then = 0.0
        self._opened_at: Optional[float] = None
        self._pending = b""
        self._looked_at = self._synced_at = time.monotonic()
        if path == "-":
            self.name = "stdout"
            self._descriptor = os.dup(sys.stdout.fileno())
            self._regular = False
            return
        special = self._path.is_fifo() or self._path.is_char_device()
        try:
            if special:
                self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            else:
                self._open()
        except OSError as error:
            hint = None if special else "choose a file in a folder that you can write to"
            raise UsageError(f"--log {path}: {error.strerror or error}", hint=hint) from None
        self._regular = not special
        if self._regular:
            self._floor = Floor(self._path.parent, least_free)

    def write(self, result: Result) -> None:
        if not self._every(result):
            return
        data = self._format(result)
        if self._regular:
            self._make_ready(len(data), result)
        self._append(self._pending + data)
        self._pending = b""
        if self._regular and time.monotonic() - self._synced_at > _SYNC_S:
            os.fdatasync(self._descriptor)
            self._synced_at = time.monotonic()

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                if self._regular:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def _open(self) -> None:
        """Open a regular file and find out how it has to go on. Raises OSError."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        size = os.fstat(self._descriptor).st_size
        self._opened_at = None
        self._began = began(os.pread(self._descriptor, 4096, 0)) if size else None
        if not size:
            self._pending = (",".join(CSV_COLUMNS) + "\n").encode() if self._csv else b""
        else:
            self._pending = b"" if os.pread(self._descriptor, 1, size - 1) == b"\n" else b"\n"

    def _make_ready(self, more: int, result: Result) -> None:
        """A file that is open, in its place, young and small enough, on a disk with room. Raises OSError."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            self._let_go_of_a_moved_file()
        if self._descriptor < 0:
            self._open()
        size = os.fstat(self._descriptor).st_size
        if self._rotation is not None and self._rotation.due(size, more, self._age(result)):
            self.close()
            self._rotation.put_aside(self._path)
            self._open()
        assert self._floor is not None
        while self._floor.low() and self._rotation is not None and self._rotation.drop_oldest(self._path):
            self._floor.low(now=True)
        self._floor.check()

    def _age(self, result: Result) -> float:
        """Seconds since the file was begun: what it had behind it when it was opened, and since then by a clock that
        nobody sets."""
        now = result.finished_at / 1e9
        if self._opened_at is None:
            self._opened_at = now
            self._age_then = 0.0 if self._began is None else age_at(result.wall_time, self._began)
        return self._age_then + now - self._opened_at

    def _let_go_of_a_moved_file(self) -> None:
        if self._descriptor >= 0 and moved(self._descriptor, self._path):
            with contextlib.suppress(OSError):
                self.close()

    def _append(self, data: bytes) -> None:
        if not self._regular:
            write_all(self._descriptor, data)
            return
        try:
            append_whole(self._descriptor, data)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                # A card that was pulled out or mounted anew needs another opening.
                with contextlib.suppress(OSError):
                    self.close()
            raise


_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_CLOCK_IS_SET = 1577836800.0
"""2020: no board's clock was right before this program was there."""
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")


@dataclass(frozen=True)
class Rotation:
    """`FILE` becomes `FILE.1` before it grows past `most_bytes` or gets older than `most_s` seconds, `FILE.1` becomes
    `FILE.2` and so on; `keep` of them stay."""

    most_bytes: Optional[int] = None
    most_s: Optional[float] = None
    keep: int = default("log-keep")

    @classmethod
    def parse(cls, text: str, keep: int = default("log-keep")) -> Rotation:
        """`10MB`, `1d`, or both with a comma between. Raises UsageError."""
        sizes: list[int] = []
        ages: list[float] = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(s|min|h|d|w)\s*", part)
            if match is None:
                try:
                    sizes.append(Bytes().parse(part))
                except ValueError:
                    raise UsageError(
                        f"--log-rotate {text}", hint="a size (10MB), an age (12h, 1d) or both (10MB,1d)"
                    ) from None
            elif float(match[1]) > 0:
                ages.append(float(match[1]) * _SECONDS[match[2]])
            else:
                raise UsageError(f"--log-rotate {text}", hint="an age above 0")
        return cls(min(sizes, default=None), min(ages, default=None), keep)

    def due(self, size: int, more: int, age_s: float) -> bool:
        """A file of `size` bytes that is `age_s` seconds old is put aside before `more` bytes come."""
        if self.most_bytes is not None and size and size + more > self.most_bytes:
            return True
        return self.most_s is not None and bool(size) and age_s >= self.most_s

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
            return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    return time.time()


def age_at(now: float, began: float) -> float:
    """Seconds from `began` to `now` (since 1970); 0 where one of them is of a clock that was not set yet."""
    return max(0.0, now - began) if min(now, began) > _CLOCK_IS_SET else 0.0


def _numbers(path: Path) -> list[int]:
    pattern = re.compile(re.escape(path.name) + r"\.([1-9][0-9]{0,5})")
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []
    return [int(match[1]) for name in names if (match := pattern.fullmatch(name))]


def open_output(values: OutputValues, _live: Any) -> LogFile:
    path, rotate = values["log"], values["log-rotate"]
    if rotate and path == "-":
        raise UsageError("--log-rotate needs a log file", hint="such as --log results.jsonl")
    rotation = Rotation.parse(rotate, values["log-keep"]) if rotate else None
    return LogFile(path, values["log-every"], rotation, values["min-free"])
