"""One setting measured thoroughly: warm-up, the model alone, the stages, the whole way of a frame."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from edge_mnv2.pipeline.statistics import resident_mb
from edge_mnv2.profiler.burst import STAGES, Burst, loop_burst, middle, model_burst, percentiles
from edge_mnv2.profiler.cpu_use import CpuMeter, CpuUse
from edge_mnv2.profiler.feed import Feed
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.runtime.classifier import Classifier

WARM_UP_S = 1.0
"""Time for caches, and for a clock governor to notice that there is work."""

_ROUND_S = 0.8


@dataclass
class WarmUp:
    """`load_ms`: the file read, checked and loaded, every worker's first inference included. `first_ms`: the first
    frame's way through the loop. Then `frames` more in `seconds` before anything counts."""

    load_ms: float
    first_ms: Optional[float] = None
    frames: int = 0
    seconds: float = 0.0


@dataclass
class Measurement:
    """Times in nanoseconds, one a frame. `model` is `invoke` alone, one interpreter, nothing else running in between.

    `burst` is the loop of `run` with every worker. `cpu` is the time of the loop's bursts alone.
    """

    warm_up: WarmUp
    model: list[int] = field(default_factory=list)
    burst: Burst = field(default_factory=Burst)
    watts: Optional[float] = None
    others: Optional[float] = None
    rss_mb: Optional[float] = None
    peak_rss_mb: Optional[float] = None

    @property
    def fps(self) -> Optional[float]:
        return middle(self.burst.rates)

    @property
    def energy_mj(self) -> Optional[float]:
        """Energy a frame in mJ: what the whole board draws, over the frame rate."""
        return self.watts / self.fps * 1e3 if self.watts is not None and self.fps else None

    def document(self) -> dict[str, Any]:
        """The measured part of the JSON document."""
        spent = self.burst.cpu_ms_per_frame
        return {
            "model_ms": percentiles(self.model),
            "stages_ms": {name: percentiles(getattr(self.burst, name)) for name in STAGES},
            "end_to_end_ms": percentiles(self.burst.end_to_end),
            "fps": None if self.fps is None else round(self.fps, 2),
            "frames": self.burst.frames,
            "inferences": len(self.model),
            "warm_up": {
                "load_ms": round(self.warm_up.load_ms, 1),
                "first_ms": None if self.warm_up.first_ms is None else round(self.warm_up.first_ms, 3),
                "frames": self.warm_up.frames,
                "seconds": round(self.warm_up.seconds, 2),
            },
            "cpu": {
                "ms_per_frame": None if spent is None else round(spent, 3),
                "cpus_used": None if spent is None or self.fps is None else round(spent * self.fps / 1e3, 2),
                "others": None if self.others is None else round(self.others, 2),
            },
            "memory": {"rss_mb": self.rss_mb, "peak_rss_mb": self.peak_rss_mb},
            "power_w": None if self.watts is None else round(self.watts, 3),
            "energy_mj": None if self.energy_mj is None else round(self.energy_mj, 3),
        }


def measure(
    classifiers: Sequence[Classifier], feed: Feed, watch: Watch, *, seconds: float, load_ms: float
) -> Measurement:
    """Measure for about `seconds`, the model alone and the loop in turns. Raises what they raise."""
    warm_up = WarmUp(load_ms)
    first = loop_burst(classifiers, feed, min(WARM_UP_S, seconds / 4))
    if first.end_to_end:
        warm_up.first_ms = first.end_to_end[0] / 1e6
    warm_up.frames = first.frames
    warm_up.seconds = sum(ended - began for began, ended in first.spans) / 1e9
    result = Measurement(warm_up)
    interpreter = classifiers[0].interpreter
    meter = CpuMeter()
    # A camera is opened once: it needs a second or more for that.
    rounds = 1 if feed.waits else max(2, round(seconds / _ROUND_S))
    end = time.monotonic() + seconds
    for _ in range(rounds):
        result.model += model_burst(interpreter, seconds / rounds * 0.4)
        result.burst.add(loop_burst(classifiers, feed, seconds / rounds * 0.6))
        if time.monotonic() > end:
            break
    used: CpuUse = meter.read()
    result.others = used.others
    result.watts = watch.watts(result.burst.spans)
    result.rss_mb = resident_mb()
    result.peak_rss_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
    return result
