"""The status line: once a second on stderr, from its own thread, so that a stalled terminal stalls nothing else."""

from __future__ import annotations

import sys
import threading
from typing import Optional, Protocol, TextIO

from edge_mnv2.pipeline.result import Result
from edge_mnv2.pipeline.statistics import Statistics


def status_text(
    statistics: Statistics,
    latest: Optional[Result],
    *,
    dropped: int,
    state: Optional[str] = None,
    note: str = "",
    classes: bool = True,
) -> str:
    """One line: FPS, inference milliseconds (median, 95th percentile), drops, heat where known, the top label.

    Without `classes`, nothing about what was recognized.
    """
    if state and state != "ok":
        return f"source {state}: no results"
    if latest is None:
        return "waiting for the first frame"
    median, p95 = statistics.recent_inference_ms()
    parts = [f"{statistics.recent_fps():5.1f} FPS"]
    if median is not None and p95 is not None:
        parts.append(f"inference {median:.1f} ms (p95 {p95:.1f})")
    parts.append(f"dropped {dropped}")
    if gated := statistics.recently_gated():
        parts.append(f"gated {gated:.0%}")
    if latest.temp_c is not None:
        parts.append(f"{latest.temp_c:.0f} °C")
    if latest.throttled:
        parts.append("throttled: " + ", ".join(latest.throttled))
    if latest.engine != "cpu":
        parts.append(latest.engine)
    if note:
        parts.append(note)
    if not classes:
        return " | ".join(parts)
    if latest.top:
        best = latest.top[0]
        parts.append(f"{best.figure:>4} {best.label}")
    else:
        parts.append("unsure")
    if latest.present:
        parts.append("present: " + ", ".join(label.split(",")[0] for label in latest.present))
    return " | ".join(parts)


class Describe(Protocol):
    """What the status says now; without `classes`, nothing about what was recognized."""

    def __call__(self, latest: Optional[Result], classes: bool = True) -> str: ...


class NewestShown:
    """A sink that remembers only the newest result: `_work` shows it on `stream`, in a thread of its own."""

    name = "status"

    def __init__(self, describe: Describe, stream: TextIO) -> None:
        self._describe = describe
        self._stream = stream
        self._latest: Optional[Result] = None
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._work, name="status", daemon=True)
        self._thread.start()

    def write(self, result: Result) -> None:
        self._latest = result

    def close(self) -> None:
        self._halt.set()
        self._thread.join(0.5)

    def _work(self) -> None:
        raise NotImplementedError


class StatusLine(NewestShown):
    """Writes `describe(latest)` to `stream` every `interval_s`."""

    name = "status line"

    def __init__(self, describe: Describe, stream: Optional[TextIO] = None, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        super().__init__(describe, stream or sys.stderr)

    def _work(self) -> None:
        while not self._halt.wait(self._interval_s):
            try:
                self._stream.write(self._describe(self._latest) + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                return
