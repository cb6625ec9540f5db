"""The board's sensors during a measurement: what it drew, how warm it was, whether it held itself back."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Union

from edge_mnv2.board.health import Health, HealthMonitor, HealthSample

_KEPT = 10_000
"""Power readings that are remembered; a soak asks for the newest only."""

_POWER_INTERVAL_S = 0.25
_INTERVAL_S = 1.0


class Watch:
    """Samples the board under `root` in a thread of its own. A context manager; `before` is the sample at its start.

    `listener` is called with each sample, in that thread.
    """

    def __init__(self, root: Union[str, Path] = "/", listener: Optional[Callable[[HealthSample], None]] = None) -> None:
        health = Health(root)
        self.before = health.sample()
        self.measures_power = self.before.power_w is not None
        self._listener = listener
        self._drawn: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        interval = _POWER_INTERVAL_S if self.measures_power else _INTERVAL_S
        self._monitor = HealthMonitor(health, interval, self._take)

    @property
    def latest(self) -> HealthSample:
        sample = self._monitor.sample
        return sample if sample.taken_at else self.before

    def newest(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(temperature, words of throttling), as the frame loop asks for them."""
        sample = self.latest
        return sample.temp_c, None if sample.throttled is None else tuple(sample.throttled)

    def worst(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(highest temperature, every word of throttling) since the start."""
        return self._monitor.worst()

    def watts(self, spans: list[tuple[int, int]]) -> Optional[float]:
        """Mean of what the board drew in these spans of monotonic nanoseconds, W; None without a sensor."""
        drawn = [watts for at, watts in tuple(self._drawn) if any(began <= at <= ended for began, ended in spans)]
        return sum(drawn) / len(drawn) if drawn else None

    def _take(self, sample: HealthSample) -> None:
        if sample.power_w is not None:
            self._drawn.append((sample.taken_at, sample.power_w))
        if self._listener is not None:
            self._listener(sample)

    def __enter__(self) -> Watch:
        self._monitor.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._monitor.stop()
