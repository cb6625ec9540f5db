"""A long run at full speed: frame rate, temperature, clock, throttling and power over time."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional, Union

from edge_mnv2.board.health import HealthSample
from edge_mnv2.board.throttling import MEANINGS, WORDS
from edge_mnv2.pipeline.frame_loop import ResultSink
from edge_mnv2.pipeline.percentiles import Percentiles
from edge_mnv2.pipeline.result import Result
from edge_mnv2.profiler.feed import Feed
from edge_mnv2.profiler.soak_points import Point, Soak, clock_text
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.signals import on_signals

log = logging.getLogger(__name__)

_MOST_POINTS = 720
_LINES = 60


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
        with on_signals(lambda number, frame: loop.stop()):
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
        told = [sample.throttled for sample in samples if sample.throttled is not None]
        watts = [sample.power_w for sample in samples if sample.power_w is not None]
        point = Point(
            t_s=now - self._began,
            fps=results / span,
            inference_ms=None if median is None else median / 1e6,
            temp_c=max((sample.temp_c for sample in samples if sample.temp_c is not None), default=None),
            cpu_mhz=min((sample.cpu_mhz for sample in samples if sample.cpu_mhz is not None), default=None),
            throttled=tuple(word for word in WORDS if any(word in words for words in told)) if told else None,
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
