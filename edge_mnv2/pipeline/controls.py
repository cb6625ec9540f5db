"""What a person may change while the loop runs."""

from __future__ import annotations

import threading
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.settings.schema import KEYS


class Controls:
    """Threshold, smoothing and pause of a running loop. Any thread changes them, the loop reads them at each frame.

    `threshold`: lower scores are in no result. `shown_from`: lower scores are in results and shown to nobody; a
    threshold that somebody sets replaces it.
    """

    def __init__(self, threshold: float = 0.0, smooth: float = 0.0, shown_from: float = 0.0) -> None:
        self._lock = threading.Lock()
        self.threshold = threshold
        self.shown_from = max(threshold, shown_from)
        self.smooth = smooth
        self.paused = False
        self.version = 0

    def change(
        self, *, threshold: Optional[float] = None, smooth: Optional[float] = None, paused: Optional[bool] = None
    ) -> None:
        """Change what is given, all or nothing; `version` counts the changes.

        Raises UsageError for values that the settings of the same names do not take.
        """
        threshold = None if threshold is None else _accepted("threshold", threshold)
        smooth = None if smooth is None else _accepted("smooth", smooth)
        if paused is not None and not isinstance(paused, bool):
            raise UsageError("paused is true or false")
        with self._lock:
            if threshold is not None:
                self.threshold = self.shown_from = threshold
            self.smooth = self.smooth if smooth is None else smooth
            self.paused = self.paused if paused is None else paused
            self.version += 1

    def as_dict(self) -> dict[str, Any]:
        with self._lock:
            return {
                "threshold": self.threshold,
                "shown_from": self.shown_from,
                "smooth": self.smooth,
                "paused": self.paused,
                "version": self.version,
            }


def _accepted(name: str, value: Any) -> float:
    kind = KEYS[f"output.{name}"].kind
    try:
        return float(kind.accept(value))
    except ValueError:
        raise UsageError(f"{name}: {value} is not {kind.expects}") from None
