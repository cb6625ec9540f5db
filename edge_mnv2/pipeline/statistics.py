"""What a run counts and how it sums up."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.pipeline.percentiles import Percentiles
from edge_mnv2.runtime.classifier import Classified

_SECOND = 1_000_000_000
_LONGEST_S = 300.0


def give_back_memory() -> None:
    """Give the system what was freed after much was held for a moment; the C library keeps it otherwise."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_mb() -> Optional[float]:
    """Resident memory of this process in megabytes (10^6 bytes), None where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


class Statistics:
    """Counts and durations of one run. The capture thread adds reads, the loop adds results, anyone may look."""

    def __init__(self) -> None:
        self.began = time.monotonic_ns()
        self.frames = 0
        self.gated = 0
        self.first_captured_at: Optional[int] = None
        self.last_finished_at: Optional[int] = None
        self.pause_ns = 0
        self.capture = Percentiles()
        self.preprocess = Percentiles()
        self.inference = Percentiles()
        self.postprocess = Percentiles()
        self.frame_age = Percentiles()
        self.latency = Percentiles()
        self.engines: dict[str, int] = {}
        self._recent: deque[tuple[int, Optional[int]]] = deque()

    def add(self, captured_at: int, classified: Optional[Classified], finished_at: int) -> None:
        """Count one result; `classified` is None where the scene gate spared the inference."""
        if self.first_captured_at is None:
            self.first_captured_at = captured_at
        self.frames += 1
        if self.last_finished_at is not None:
            self.pause_ns = finished_at - self.last_finished_at
        self.last_finished_at = finished_at
        self.latency.add(max(0, finished_at - captured_at))
        if classified is None:
            self.gated += 1
            self._recent.append((finished_at, None))
        else:
            self.preprocess.add(classified.preprocess_ns)
            self.inference.add(classified.inference_ns)
            self.postprocess.add(classified.postprocess_ns)
            self.frame_age.add(max(0, classified.started_at - captured_at))
            self.engines[classified.engine] = self.engines.get(classified.engine, 0) + 1
            self._recent.append((finished_at, classified.inference_ns))
        while self._recent[0][0] <= finished_at - _SECOND:
            self._recent.popleft()

    def recent_fps(self, now: Optional[int] = None) -> float:
        """Results a second, over the last second; over the time between two results where that is longer."""
        now = time.monotonic_ns() if now is None else now
        began = self.first_captured_at
        if began is None:
            return 0.0
        span = min(self._window_ns(now), max(now - began, 1))
        # `add` leaves the second before the newest result: the loop, which asks for that, need not count again.
        results = len(self._recent) if now == self.last_finished_at else self._lately(now)[0]
        return results * _SECOND / span

    def patience_s(self, least: float) -> float:
        """For how long no result means no trouble: `least` seconds, or three times the last pause of a slow source."""
        return max(least, min(3 * self.pause_ns / 1e9, _LONGEST_S))

    def recent_inference_ms(self) -> tuple[Optional[float], Optional[float]]:
        """(median, 95th percentile) of the inference times that `recent_fps` counts, in milliseconds."""
        times = sorted(self._lately(time.monotonic_ns())[1])
        if not times:
            return None, None
        return times[len(times) // 2] / 1e6, times[min(len(times) - 1, int(0.95 * len(times)))] / 1e6

    def recently_gated(self) -> float:
        """The share of the results that `recent_fps` counts that were spared an inference, 0..1."""
        results, inferences = self._lately(time.monotonic_ns())
        return 1 - len(inferences) / results if results else 0.0

    def _window_ns(self, now: int) -> int:
        """A second; as long as the newest result took, or the next one takes, where results are further apart."""
        first, last = self.first_captured_at, self.last_finished_at
        if first is None or last is None:
            return _SECOND
        pause = max(self.pause_ns, last - first) if self.frames == 1 else self.pause_ns
        return _SECOND if pause <= _SECOND else max(pause, now - last + 1)

    def _lately(self, now: int) -> tuple[int, list[int]]:
        """The number of results and the times of their inferences."""
        # The deque belongs to the loop's thread: read a copy, change nothing.
        since = now - self._window_ns(now)
        recent = [inference for finished, inference in tuple(self._recent) if finished > since]
        return len(recent), [inference for inference in recent if inference is not None]

    @property
    def duration_s(self) -> float:
        """First capture to last result, in seconds."""
        if self.first_captured_at is None or self.last_finished_at is None:
            return 0.0
        return (self.last_finished_at - self.first_captured_at) / _SECOND

    def measured(self) -> dict[str, Any]:
        """The measured part of the run's summary, by the names of the command line's contract."""
        duration = self.duration_s
        both = (0.5, 0.95)
        return {
            "frames": self.frames,
            "duration_s": round(duration, 3),
            "fps": round(self.frames / duration, 2) if duration else None,
            "latency_ms": self.latency.milliseconds((0.5, 0.95, 0.99)),
            "stages_ms": {
                "capture": self.capture.milliseconds(both),
                "preprocess": self.preprocess.milliseconds(both),
                "inference": self.inference.milliseconds(both),
                "postprocess": self.postprocess.milliseconds(both),
            },
            "frame_age_ms": self.frame_age.milliseconds(both),
            "rss_mb": resident_mb(),
        }
