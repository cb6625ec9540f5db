"""The run's figures: for Prometheus, and the last minutes for the page's charts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Optional

from prometheus_client import CollectorRegistry, generate_latest, platform_collector, process_collector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge_mnv2.board.throttling import WORDS
from edge_mnv2.outputs.live import Live
from edge_mnv2.pipeline.percentiles import Percentiles

_STATES = ("starting", "ok", "paused", "stalled", "reconnecting")
_BOUNDS_MS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000, 2000, 5000)


class _RunCollector(Collector):
    """Reads the run when it is scraped; nothing is counted twice."""

    def __init__(self, live: Live, viewers: Callable[[], int]) -> None:
        self._live = live
        self._viewers = viewers

    def collect(self) -> Iterator[Metric]:
        live = self._live
        state = live.state
        states = GaugeMetricFamily("edge_mnv2_state", "1 for the state that the run is in", labels=["state"])
        for name in dict.fromkeys((*_STATES, state)):
            states.add_metric([name], float(name == state))
        yield states
        yield GaugeMetricFamily("edge_mnv2_web_viewers", "Open pictures and event streams", self._viewers())
        yield CounterMetricFamily("edge_mnv2_write_errors", "Results that an output lost", live.write_errors())
        yield CounterMetricFamily("edge_mnv2_reconnects", "How often the source came back", live.reconnects())
        yield CounterMetricFamily("edge_mnv2_tpu_losses", "How often the Edge TPU was lost", live.tpu_losses)
        in_use = CounterMetricFamily("edge_mnv2_engine_seconds", "Time that each engine was in use", labels=["engine"])
        for engine, seconds in live.device_seconds.items():
            in_use.add_metric([engine], seconds)
        yield in_use
        yield from self._loop()
        yield from self._board()

    def _loop(self) -> Iterator[Metric]:
        live, loop = self._live, self._live.loop
        if loop is None:
            return
        facts, statistics = live.facts, loop.statistics
        labels = {"model": facts.model, "runtime": facts.runtime, "delegate": facts.delegate, "device": facts.device}
        yield InfoMetricFamily("edge_mnv2_run", "What is running", {**labels, "source": facts.source})
        frames = CounterMetricFamily("edge_mnv2_frames", "Frames classified, by engine", labels=["engine"])
        for engine, count in list(statistics.engines.items()):
            frames.add_metric([engine], count)
        yield frames
        yield CounterMetricFamily("edge_mnv2_frames_dropped", "Frames captured and never classified", loop.dropped)
        yield CounterMetricFamily(
            "edge_mnv2_frames_gated", "Results without an inference, because nothing moved", statistics.gated
        )
        yield GaugeMetricFamily("edge_mnv2_fps", "Results a second", statistics.recent_fps())
        yield GaugeMetricFamily("edge_mnv2_paused", "1 while paused", float(loop.controls.paused))
        yield GaugeMetricFamily("edge_mnv2_threads", "Threads of one interpreter", facts.threads)
        yield GaugeMetricFamily("edge_mnv2_workers", "Interpreters side by side", facts.workers)
        yield _histogram("edge_mnv2_latency_seconds", "From capture to result", statistics.latency)
        yield _histogram("edge_mnv2_inference_seconds", "One inference", statistics.inference)
        yield _histogram("edge_mnv2_frame_age_seconds", "From capture to preprocessing", statistics.frame_age)

    def _board(self) -> Iterator[Metric]:
        latest = self._live.latest
        if latest is None:
            return
        if latest.temp_c is not None:
            yield GaugeMetricFamily("edge_mnv2_temperature_celsius", "The SoC's temperature", latest.temp_c)
        if latest.throttled is not None:
            throttled = GaugeMetricFamily("edge_mnv2_throttled", "1 while it is so", labels=["reason"])
            for word in WORDS:
                throttled.add_metric([word], float(word in latest.throttled))
            yield throttled
        if latest.top:
            best = GaugeMetricFamily("edge_mnv2_top_score", "Score of the first class", labels=["label"])
            best.add_metric([latest.top[0].label], latest.top[0].score)
            yield best


class Metrics:
    """The text that `/metrics` answers."""

    def __init__(self, live: Live, viewers: Callable[[], int]) -> None:
        # A registry of our own: the library's global one would keep the collectors of runs that are over.
        self._registry = CollectorRegistry()
        self._registry.register(_RunCollector(live, viewers))
        process_collector.ProcessCollector(registry=self._registry)
        platform_collector.PlatformCollector(registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)


def _histogram(name: str, text: str, durations: Percentiles) -> HistogramMetricFamily:
    counts = durations.at_most([bound * 1_000_000 for bound in _BOUNDS_MS])
    buckets = [(str(bound / 1000), count) for bound, count in zip(_BOUNDS_MS, counts)]
    whole = max(durations.count, counts[-1])
    return HistogramMetricFamily(name, text, buckets=[*buckets, ("+Inf", whole)], sum_value=durations.total / 1e9)


SECONDS = 300


class History:
    """FPS, latency (ms, the newest result's) and temperature of the last five minutes; None where nothing was known."""

    def __init__(self) -> None:
        self._points: deque[tuple[Optional[float], Optional[float], Optional[float]]] = deque(maxlen=SECONDS)

    def add(self, live: Live) -> None:
        """Take the point of this second."""
        loop, latest = live.loop, live.latest
        if loop is None or latest is None:
            self._points.append((None, None, None))
            return
        fps = round(loop.statistics.recent_fps(), 2)
        self._points.append((fps, round(latest.latency_ns / 1e6, 2) if fps else None, latest.temp_c))

    def document(self) -> dict[str, Any]:
        points = list(self._points)
        return {
            "interval_s": 1,
            "fps": [point[0] for point in points],
            "latency_ms": [point[1] for point in points],
            "temp_c": [point[2] for point in points],
        }
