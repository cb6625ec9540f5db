"""Results as JSON Lines or CSV, to a file or to stdout."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.disk import Floor, append_whole, moved, write_all
from edge_mnv2.outputs.rotation import Rotation, began
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Prediction

_SYNC_S = 5.0
"""How much a power cut may take, in seconds; more often would wear an SD card."""
_LOOK_S = 1.0

CSV_COLUMNS = (
    "t",
    "uptime_s",
    "frame",
    "label",
    "index",
    "score",
    "latency_ms",
    "inference_ms",
    "fps",
    "dropped",
    "temp_c",
    "throttled",
    "engine",
)


def timestamp(wall_time: float) -> str:
    """ISO 8601 in UTC with milliseconds: `2026-11-25T10:00:00.123Z`."""
    seconds, milliseconds = divmod(round(wall_time * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def as_event(event: Event) -> dict[str, Any]:
    """An event as a JSON object; `end` is null while the class is present."""
    return {
        "event": event.kind,
        "label": event.label,
        "index": event.index,
        "start": timestamp(event.started),
        "end": None if event.ended is None else timestamp(event.ended),
        "best": round(event.best, 4),
        "frame": event.frame,
    }


def _entry(one: Prediction) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": one.label, "index": one.index, "score": round(one.score, 4)}
    return entry if one.unit is None else {**entry, "unit": one.unit}


def as_record(result: Result) -> dict[str, Any]:
    """A result as the JSON object of a log line.

    `events` is there only when there are some; `"gated": true` where no inference was made (`inference_ms` is null); an
    entry of `top` has a `unit` where its score is a measured value.
    """
    record: dict[str, Any] = {
        "t": timestamp(result.wall_time),
        "uptime_s": round(result.uptime_s, 3),
        "frame": result.frame.index,
        "top": [_entry(one) for one in result.top],
        "latency_ms": round(result.latency_ns / 1e6, 3),
        "inference_ms": None if result.gated else round(result.inference_ns / 1e6, 3),
        "fps": round(result.fps, 2),
        "dropped": result.dropped,
        "temp_c": result.temp_c,
        "throttled": None if result.throttled is None else list(result.throttled),
        "engine": result.engine,
    }
    if result.gated:
        record["gated"] = True
    if result.events:
        record["events"] = [as_event(event) for event in result.events]
    return record


def as_json_line(result: Result) -> bytes:
    return json.dumps(as_record(result), ensure_ascii=False).encode() + b"\n"


def as_csv_line(result: Result) -> bytes:
    record = as_record(result)
    best = record["top"][0] if record["top"] else {"label": "", "index": "", "score": ""}
    row = {**record, **best}
    row["throttled"] = "" if record["throttled"] is None else " ".join(record["throttled"])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if row[name] is None else row[name] for name in CSV_COLUMNS])
    return text.getvalue().encode()


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
            self._next = max(self._next + self._seconds, now)
            return True
        self._count += 1
        return (self._count - 1) % self._results == 0


class LogFile:
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
        self._began = 0.0
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
            self._make_ready(len(data), result.wall_time)
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
        self._began = began(os.pread(self._descriptor, 4096, 0) if size else b"")
        if not size:
            self._pending = (",".join(CSV_COLUMNS) + "\n").encode() if self._csv else b""
        else:
            self._pending = b"" if os.pread(self._descriptor, 1, size - 1) == b"\n" else b"\n"

    def _make_ready(self, more: int, now: float) -> None:
        """A file that is open, in its place, young and small enough, on a disk with room. Raises OSError."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            self._let_go_of_a_moved_file()
        if self._descriptor < 0:
            self._open()
        size = os.fstat(self._descriptor).st_size
        if self._rotation is not None and self._rotation.due(size, more, self._began, now):
            self.close()
            self._rotation.put_aside(self._path)
            self._open()
        assert self._floor is not None
        while self._floor.low() and self._rotation is not None and self._rotation.drop_oldest(self._path):
            self._floor.low(now=True)
        self._floor.check()

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
