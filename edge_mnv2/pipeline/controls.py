"""What a person may change while the loop runs."""

from __future__ import annotations

import math
import threading
from typing import Any, Optional

from edge_mnv2.errors import UsageError

MOST_SMOOTHING = 0.99


class Controls:
    """Threshold, smoothing and pause of a running loop. Any thread changes them, the loop reads them at each frame."""

    def __init__(self, threshold: float = 0.0, smooth: float = 0.0) -> None:
        self._lock = threading.Lock()
        self.threshold = threshold
        self.smooth = smooth
        self.paused = False
        self.version = 0

    def change(
        self, *, threshold: Optional[float] = None, smooth: Optional[float] = None, paused: Optional[bool] = None
    ) -> None:
        """Change what is given, all or nothing; `version` counts the changes.

        `threshold` is 0 to 1, `smooth` 0 (off) to 0.99. Raises UsageError for anything else.
        """
        threshold = None if threshold is None else _number("threshold", threshold, 1.0)
        smooth = None if smooth is None else _number("smooth", smooth, MOST_SMOOTHING)
        if paused is not None and not isinstance(paused, bool):
            raise UsageError("paused is true or false")
        with self._lock:
            self.threshold = self.threshold if threshold is None else threshold
            self.smooth = self.smooth if smooth is None else smooth
            self.paused = self.paused if paused is None else paused
            self.version += 1

    def as_dict(self) -> dict[str, Any]:
        with self._lock:
            return {"threshold": self.threshold, "smooth": self.smooth, "paused": self.paused, "version": self.version}


def _number(name: str, value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{name} is a number")
    if not 0 <= value <= most:
        raise UsageError(f"{name} {value:g} is not between 0 and {most:g}")
    return float(value)
