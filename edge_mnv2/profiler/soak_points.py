"""What a soak found: points over time, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from edge_mnv2.board.throttling import MEANINGS, WORDS

_SLOWER = 0.05
"""The frame rate has to fall by more than this share before it is said to have fallen."""


@dataclass(frozen=True)
class Point:
    """An interval that ends `t_s` seconds after the start. `temp_c` is its highest temperature, `cpu_mhz` its lowest
    clock, `throttled` every word seen in it (None: the board cannot tell), `power_w` its mean."""

    t_s: float
    fps: float
    inference_ms: Optional[float]
    temp_c: Optional[float]
    cpu_mhz: Optional[int]
    throttled: Optional[tuple[str, ...]]
    power_w: Optional[float]

    def __str__(self) -> str:
        parts = [clock_text(self.t_s), f"{self.fps:6.1f} FPS"]
        if self.inference_ms is not None:
            parts.append(f"inference {self.inference_ms:.1f} ms")
        if self.temp_c is not None:
            parts.append(f"{self.temp_c:.1f} °C")
        if self.cpu_mhz is not None:
            parts.append(f"{self.cpu_mhz} MHz")
        if self.power_w is not None:
            parts.append(f"{self.power_w:.2f} W")
        if self.throttled:
            parts.append("throttled: " + ", ".join(self.throttled))
        return " | ".join(parts)

    def document(self) -> dict[str, Any]:
        return {
            "t_s": round(self.t_s, 1),
            "fps": round(self.fps, 2),
            "inference_ms": None if self.inference_ms is None else round(self.inference_ms, 3),
            "temp_c": self.temp_c,
            "cpu_mhz": self.cpu_mhz,
            "throttled": None if self.throttled is None else list(self.throttled),
            "power_w": None if self.power_w is None else round(self.power_w, 3),
        }


@dataclass
class Soak:
    """What a soak found. `ended` is "duration", "signal" or "source_lost"."""

    points: list[Point] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0
    ended: str = "duration"

    @property
    def first_fps(self) -> Optional[float]:
        """Median of the first tenth of the time, before the board is warm."""
        return self._median(self.points[: max(1, len(self.points) // 10)])

    @property
    def last_fps(self) -> Optional[float]:
        """Median of the last tenth."""
        return self._median(self.points[-max(1, len(self.points) // 10) :])

    @property
    def max_temp_c(self) -> Optional[float]:
        return max((point.temp_c for point in self.points if point.temp_c is not None), default=None)

    @property
    def throttled(self) -> Optional[list[str]]:
        """Every word seen, None where the board cannot tell."""
        told = [point.throttled for point in self.points if point.throttled is not None]
        return [word for word in WORDS if any(word in words for words in told)] if told else None

    @property
    def first_throttled(self) -> Optional[Point]:
        return next((point for point in self.points if point.throttled), None)

    @property
    def throttled_s(self) -> Optional[float]:
        """Seconds in intervals with throttling."""
        if self.throttled is None:
            return None
        ends = [0.0, *(point.t_s for point in self.points)]
        return sum(end - began for began, end, point in zip(ends, ends[1:], self.points) if point.throttled)

    @property
    def verdict(self) -> str:
        """One or two sentences for a person."""
        first, last = self.first_fps, self.last_fps
        if first is None or last is None:
            return "too short to tell"
        if last < first * (1 - _SLOWER):
            said = f"the frame rate fell from {first:.1f} to {last:.1f} a second ({1 - last / first:.0%} less)"
        else:
            said = f"the frame rate held: {first:.1f} a second at first, {last:.1f} at the end"
        point = self.first_throttled
        if point is None:
            return said if self.throttled is None else f"{said}; no throttling"
        hot = f" at {point.temp_c:.1f} °C" if point.temp_c is not None else ""
        words = self.throttled or []
        advice = "; ".join(f"{word}: {MEANINGS[word]}" for word in words)
        lasted = f"{self.throttled_s or 0:.0f} of {self.seconds:.0f} s"
        return f"{said}; throttled after {clock_text(point.t_s)}{hot}, {lasted} ({advice})"

    def document(self) -> dict[str, Any]:
        """As `soak` in the JSON document."""
        rates = [point.fps for point in self.points]
        return {
            "seconds": round(self.seconds, 1),
            "frames": self.frames,
            "ended": self.ended,
            "fps": {
                "first": _rounded(self.first_fps),
                "last": _rounded(self.last_fps),
                "min": _rounded(min(rates, default=None)),
                "median": _rounded(statistics.median(rates) if rates else None),
            },
            "max_temp_c": self.max_temp_c,
            "throttled": self.throttled,
            "throttled_s": _rounded(self.throttled_s),
            "verdict": self.verdict,
            "points": [point.document() for point in self.points],
        }

    @staticmethod
    def _median(points: Sequence[Point]) -> Optional[float]:
        return statistics.median(point.fps for point in points) if points else None


def clock_text(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _rounded(value: Optional[float]) -> Optional[float]:
    return None if value is None else round(value, 2)
