"""A profile's health limits: what to say when one is crossed, and how far to lower the frame rate."""

from __future__ import annotations

import time
from typing import Callable, Optional

from edge_mnv2.board.health import HealthSample
from edge_mnv2.board.throttling import explain
from edge_mnv2.settings.schema import Health

_COOLER_BY_C = 3.0
"""The temperature has to fall this far below the limit before it counts as cool again."""

_STEP_S = 15.0
"""How long a step of the frame rate is given to show in the temperature."""

_SLOW_FOR_S = 10.0
"""How long the frame rate has to be too low, or fine again, before it is said."""

_DOWN, _UP = 0.8, 1.25
_LEAST_FPS = 1.0


class HealthLimits:
    """Watches `max_temp_c` and `min_fps` of a profile.

    Call `update` with each health sample; it returns the lines to say, each once a crossing. `max_fps` is the frame
    rate to hold while the board is too hot and the profile says `on_limit: slow`, else None.
    """

    def __init__(self, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._health = health
        self._clock = clock
        self._hot = False
        self._stepped_at = 0.0
        self._full_fps = 0.0
        self._slow_since: Optional[float] = None
        self._fine_since: Optional[float] = None
        self._slow = False
        self.max_fps: Optional[float] = None

    def update(self, sample: HealthSample, fps: Optional[float]) -> list[str]:
        """Lines for the user about `sample` and the frame rate `fps` (None: not known yet)."""
        return [line for line in (self._temperature(sample, fps), self._frame_rate(sample, fps)) if line]

    def _temperature(self, sample: HealthSample, fps: Optional[float]) -> Optional[str]:
        limit, celsius = self._health.max_temp_c, sample.temp_c
        if limit is None or celsius is None:
            return None
        if celsius > limit and not self._hot:
            self._hot = True
            return f"SoC at {celsius:g} °C, above max_temp_c {limit:g}{self._lower(fps)}"
        if self._hot and celsius <= limit - _COOLER_BY_C and self.max_fps is None:
            self._hot = False
            return f"SoC at {celsius:g} °C, below max_temp_c {limit:g} again"
        if not self._hot or self._clock() - self._stepped_at < _STEP_S:
            return None
        if celsius > limit:
            lower = self._lower(fps)
            return f"SoC still at {celsius:g} °C{lower}" if lower else None
        if celsius <= limit - _COOLER_BY_C and self.max_fps is not None:
            return f"SoC at {celsius:g} °C{self._raise()}"
        return None

    def _lower(self, fps: Optional[float]) -> str:
        """Take the frame rate down a step; what to add to the line."""
        before = self.max_fps or fps
        if self._health.on_limit != "slow" or not before:
            return ""
        least = max(self._health.min_fps or 0.0, _LEAST_FPS)
        lowered = max(before * _DOWN, least)
        # Not above what it is: a board may be slower than its least already.
        if lowered >= before:
            return ""
        if self.max_fps is None:
            self._full_fps = before
        self.max_fps = lowered
        self._stepped_at = self._clock()
        return f": frame rate lowered to {lowered:.1f} a second"

    def _raise(self) -> str:
        raised = (self.max_fps or 0.0) * _UP
        self._stepped_at = self._clock()
        if raised >= self._full_fps:
            self.max_fps = None
            self._hot = False
            return ": full frame rate again"
        self.max_fps = raised
        return f": frame rate raised to {raised:.1f} a second"

    def _frame_rate(self, sample: HealthSample, fps: Optional[float]) -> Optional[str]:
        least = self._health.min_fps
        if least is None or fps is None:
            return None
        now = self._clock()
        if fps < least:
            self._fine_since = None
            self._slow_since = now if self._slow_since is None else self._slow_since
            if not self._slow and now - self._slow_since >= _SLOW_FOR_S:
                self._slow = True
                why = f" ({explain(sample.throttled)})" if sample.throttled else ""
                return f"{fps:.1f} frames a second, below min_fps {least:g}{why}"
            return None
        self._slow_since = None
        self._fine_since = now if self._fine_since is None else self._fine_since
        if self._slow and now - self._fine_since >= _SLOW_FOR_S:
            self._slow = False
            return f"{fps:.1f} frames a second, min_fps {least:g} is met again"
        return None
