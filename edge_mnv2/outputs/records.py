"""Results and events as plain values: JSON objects, JSON Lines, CSV; and events that wait for somebody who is away."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable
from typing import Any, Optional

from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Prediction

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


UNRECOGNIZED = "nothing recognized"
"""What people read where no class reaches the threshold."""


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


def as_entry(one: Prediction) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": one.label, "index": one.index, "score": one.rounded}
    if one.unit is None:
        return entry
    return {**entry, "unit": one.unit, **({} if one.error is None else {"error": round(one.error, 6)})}


def as_record(result: Result) -> dict[str, Any]:
    """A result as the JSON object of a log line.

    `events` is there only when there are some; `"gated": true` where no inference was made (`inference_ms` is null); an
    entry of `top` has a `unit` where its score is a measured value.
    """
    record: dict[str, Any] = {
        "t": timestamp(result.wall_time),
        "uptime_s": round(result.uptime_s, 3),
        "frame": result.frame.index,
        "top": [as_entry(one) for one in result.top],
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


def as_state(result: Result) -> dict[str, Any]:
    """A result as others are told it at intervals: a log line without its events, and what it comes to."""
    record = as_record(result)
    record.pop("events", None)
    best = result.top[0] if result.top else None
    return {
        "t": record["t"],
        "label": best.label if best else None,
        "score": best.rounded if best else None,
        "unsure": result.unsure,
        "present": list(result.present),
        **record,
    }


def as_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def as_json_line(result: Result) -> bytes:
    return as_json(as_record(result)) + b"\n"


def as_csv_line(result: Result) -> bytes:
    record = as_record(result)
    best = record["top"][0] if record["top"] else {"label": "", "index": "", "score": ""}
    row = {**record, **best}
    row["throttled"] = "" if record["throttled"] is None else " ".join(record["throttled"])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if row[name] is None else row[name] for name in CSV_COLUMNS])
    return text.getvalue().encode()


MOST_WAITING = 1000


class Outbox:
    """A queue of event documents. The oldest is given up when more than `most` wait, and counted in `lost`.

    Every document has an `id` that no other event of any run has, so that a receiver can tell a repetition.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._waiting: deque[dict[str, Any]] = deque()
        self._most = most
        self._run = uuid.uuid4().hex[:12]
        self._count = 0
        self._lock = threading.Lock()
        self.lost = 0

    def put(self, events: Iterable[Event]) -> None:
        """Put events at the end."""
        with self._lock:
            for event in events:
                self._count += 1
                self._waiting.append({"id": f"{self._run}-{self._count}", **as_event(event)})
            while len(self._waiting) > self._most:
                self._waiting.popleft()
                self.lost += 1

    def put_back(self, document: dict[str, Any]) -> None:
        """Put what was taken at the beginning again."""
        with self._lock:
            self._waiting.appendleft(document)

    def take(self) -> Optional[dict[str, Any]]:
        """The oldest, removed; None where nothing waits."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def give_up(self) -> None:
        """Count as lost what still waits."""
        with self._lock:
            self.lost += len(self._waiting)
            self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)
