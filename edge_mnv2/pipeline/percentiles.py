"""Percentiles of a stream of durations in constant memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

_GROWTH = 1.005
_LOG_GROWTH = math.log(_GROWTH)
_LEAST_NS = 100
_BUCKETS = math.ceil(math.log(1e13 / _LEAST_NS) / _LOG_GROWTH)


class Percentiles:
    """A histogram with logarithmic buckets (each 0.5 % wide) from 100 ns to 10,000 s.

    A percentile is exact to half a bucket, 0.25 %, however many values came: weeks of running cost the same 40 kB as
    the first second. The idea is that of DDSketch (Masson, Rim, Lee 2019) with a fixed range.
    """

    def __init__(self) -> None:
        self._counts = [0] * (_BUCKETS + 1)
        self.count = 0
        self.total = 0
        self.maximum = 0

    def add(self, nanoseconds: int) -> None:
        """Count one duration."""
        if nanoseconds > _LEAST_NS:
            bucket = min(int(math.log(nanoseconds / _LEAST_NS) / _LOG_GROWTH), _BUCKETS)
        else:
            bucket = 0
        self._counts[bucket] += 1
        self.count += 1
        self.total += nanoseconds
        if nanoseconds > self.maximum:
            self.maximum = nanoseconds

    def quantile(self, fraction: float) -> Optional[float]:
        """The `fraction` (0..1) quantile in nanoseconds, None where nothing was counted."""
        if not self.count:
            return None
        rank = fraction * (self.count - 1)
        seen = 0
        for bucket, number in enumerate(self._counts):
            seen += number
            if number and seen > rank:
                middle = _LEAST_NS * math.exp((bucket + 0.5) * _LOG_GROWTH)
                return min(middle, float(self.maximum))
        return float(self.maximum)

    def at_most(self, bounds_ns: Sequence[int]) -> list[int]:
        """How many durations were at most each of `bounds_ns` (ascending), exact to half a bucket."""
        counts, seen, bucket = [], 0, 0
        for bound in bounds_ns:
            last = int(math.log(max(bound, _LEAST_NS) / _LEAST_NS) / _LOG_GROWTH)
            while bucket <= min(last, _BUCKETS):
                seen += self._counts[bucket]
                bucket += 1
            counts.append(seen)
        return counts

    def milliseconds(self, fractions: Sequence[float]) -> dict[str, Optional[float]]:
        """`{"p50": ms, ...}` for each fraction, rounded to a microsecond."""
        values = {f"p{round(fraction * 100)}": self.quantile(fraction) for fraction in fractions}
        return {name: None if value is None else round(value / 1e6, 3) for name, value in values.items()}
