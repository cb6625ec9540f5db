"""A long run at full speed: frame rate, temperature, clock, throttling and power over time."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Callable, Optional, Union

from edge_mnv2.board.health import HealthSample
from edge_mnv2.board.throttling import MEANINGS, explain, ordered
from edge_mnv2.pipeline.frame_loop import ResultSink
from edge_mnv2.pipeline.percentiles import Percentiles
from edge_mnv2.pipeline.result import Result
from edge_mnv2.profiler.burst import Feed, median, rounded
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.signals import on_signals

log = logging.getLogger(__name__)

_MOST_POINTS = 720
_LINES = 60
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
            "inference_ms": rounded(self.inference_ms, 3),
            "temp_c": self.temp_c,
            "cpu_mhz": self.cpu_mhz,
            "throttled": None if self.throttled is None else list(self.throttled),
            "power_w": rounded(self.power_w, 3),
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
        return median([point.fps for point in self.points[: max(1, len(self.points) // 10)]])

    @property
    def last_fps(self) -> Optional[float]:
        """Median of the last tenth."""
        return median([point.fps for point in self.points[-max(1, len(self.points) // 10) :]])

    @property
    def max_temp_c(self) -> Optional[float]:
        return max((point.temp_c for point in self.points if point.temp_c is not None), default=None)

    @property
    def throttled(self) -> Optional[list[str]]:
        """Every word seen, None where the board cannot tell."""
        known = [point.throttled for point in self.points if point.throttled is not None]
        return ordered(chain(*known)) if known else None

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
        lasted = f"{self.throttled_s or 0:.0f} of {self.seconds:.0f} s"
        return f"{said}; throttled after {clock_text(point.t_s)}{hot}, {lasted} ({explain(self.throttled or [])})"

    def document(self) -> dict[str, Any]:
        """As `soak` in the JSON document."""
        rates = [point.fps for point in self.points]
        return {
            "seconds": round(self.seconds, 1),
            "frames": self.frames,
            "ended": self.ended,
            "fps": {
                "first": rounded(self.first_fps, 2),
                "last": rounded(self.last_fps, 2),
                "min": rounded(min(rates, default=None), 2),
                "median": rounded(median(rates), 2),
            },
            "max_temp_c": self.max_temp_c,
            "throttled": self.throttled,
            "throttled_s": rounded(self.throttled_s, 2),
            "verdict": self.verdict,
            "points": [point.document() for point in self.points],
        }


def clock_text(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def soak(
    classifiers: Sequence[Classifier],
    feed: Feed,
    minutes: float,
    *,
    root: Union[str, Path] = "/",
    sinks: Sequence[ResultSink] = (),
    say: Callable[[str], None] = log.info,
) -> Soak:
    """Run for so many minutes, or until SIGINT or SIGTERM, as fast as the source gives frames.

    `say` gets a line a point (some sixty in all) and one for each change of throttling. Raises what the engines raise,
    and SourceError where the source is lost before its first frame.
    """
    result = Soak()
    interval = max(1.0, minutes * 60 / _MOST_POINTS)
    counter = _Counter(interval, max(interval, minutes * 60 / _LINES), result.points, say)
    with Watch(root, counter.look) as watch:
        feed.source.open()
        loop = feed.loop(classifiers, duration_s=minutes * 60, health=watch.newest, sinks=[*sinks, counter])
        counter.begin()
        began = time.monotonic()
        # Hours of measuring are not lost.
        with on_signals(lambda *_: loop.stop()):
            result.ended = loop.run()
        result.seconds = time.monotonic() - began
        result.frames = loop.statistics.frames
    if loop.lost is not None and not result.frames:
        raise loop.lost
    # A part of an interval is no fair point, except where there is no other.
    counter.close_interval(least=interval / 2 if result.points else 0.0)
    return result


class _Counter:
    """Counts results into points. Results come in the loop's thread, looks at the board in the monitor's."""

    def __init__(self, interval: float, line_every: float, points: list[Point], say: Callable[[str], None]) -> None:
        self._interval, self._line_every = interval, line_every
        self._points = points
        self._say = say
        self._lock = threading.Lock()
        self._began: Optional[float] = None
        self._since = 0.0
        self._said = 0.0
        self._words: tuple[str, ...] = ()
        self._newest: list[HealthSample] = []
        self._clear()

    def begin(self) -> None:
        self._began = self._since = time.monotonic()

    def write(self, result: Result) -> None:
        with self._lock:
            self._results += 1
            self._times.add(result.inference_ns)

    def look(self, sample: HealthSample) -> None:
        """Take in a look at the board; ends an interval whose time has come."""
        if self._began is None:
            return
        with self._lock:
            self._samples.append(sample)
        words = tuple(sample.throttled or ())
        if words != self._words:
            self._changed(words, sample)
        if time.monotonic() - self._since >= self._interval * 0.99:
            self.close_interval()

    def close_interval(self, least: float = 0.0) -> None:
        """Make a point of the interval, if it is at least so long."""
        now = time.monotonic()
        if self._began is None or now - self._since < max(least, 1e-3):
            return
        with self._lock:
            results, times, samples = self._results, self._times, self._samples or self._newest
            self._newest = samples[-1:]
            self._clear()
        span, self._since = now - self._since, now
        median = times.quantile(0.5)
        throttled = [sample.throttled for sample in samples if sample.throttled is not None]
        watts = [sample.power_w for sample in samples if sample.power_w is not None]
        point = Point(
            t_s=now - self._began,
            fps=results / span,
            inference_ms=None if median is None else median / 1e6,
            temp_c=max((sample.temp_c for sample in samples if sample.temp_c is not None), default=None),
            cpu_mhz=min((sample.cpu_mhz for sample in samples if sample.cpu_mhz is not None), default=None),
            throttled=tuple(ordered(chain(*throttled))) if throttled else None,
            power_w=statistics.fmean(watts) if watts else None,
        )
        self._points.append(point)
        if point.t_s - self._said >= self._line_every * 0.99:
            self._said = point.t_s
            self._say(str(point))

    def _changed(self, words: tuple[str, ...], sample: HealthSample) -> None:
        rate = f", {self._points[-1].fps:.1f} FPS" if self._points else ""
        hot = f" at {sample.temp_c:.1f} °C" if sample.temp_c is not None else ""
        began = self._began or 0.0
        new = [word for word in words if word not in self._words]
        if new:
            meaning = "; ".join(f"{word} ({MEANINGS[word]})" for word in new)
            self._say(f"{clock_text(time.monotonic() - began)} throttling begins{hot}{rate}: {meaning}")
        elif not words:
            self._say(f"{clock_text(time.monotonic() - began)} throttling ends{hot}{rate}")
        self._words = words

    def _clear(self) -> None:
        self._results = 0
        self._times = Percentiles()
        self._samples: list[HealthSample] = []
