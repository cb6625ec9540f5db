"""What a person may change while the loop runs."""

from __future__ import annotations

import threading
from typing import Any, Generic, Optional, TypeVar

from edge_mnv2.errors import UsageError
from edge_mnv2.settings.schema import OPTIONS
from edge_mnv2.zoo.model_facts import MovedThreshold


class Controls:
    """Threshold, smoothing and pause of a running loop. Any thread changes them, the loop reads them at each frame.

    `unknown`: where a taught model's "unknown" begins, which moves too; None for other models.
    `threshold`: lower scores are in no result. `shown_from`: lower scores are in results and shown to nobody; a
    threshold that somebody sets replaces it.
    """

    def __init__(
        self,
        threshold: float = 0.0,
        smooth: float = 0.0,
        shown_from: float = 0.0,
        unknown: Optional[MovedThreshold] = None,
    ) -> None:
        self._lock = threading.Lock()
        self.threshold = threshold
        self.shown_from = max(threshold, shown_from)
        self.smooth = smooth
        self.unknown = unknown
        self._set_known: Optional[float] = None
        self.paused = False
        self.version = 0

    def change(
        self,
        *,
        threshold: Optional[float] = None,
        smooth: Optional[float] = None,
        paused: Optional[bool] = None,
        known: Optional[float] = None,
    ) -> None:
        """Change what is given, all or nothing; `version` counts the changes.

        Raises UsageError for values that the settings of the same names do not take.
        """
        threshold = None if threshold is None else _accepted("threshold", threshold)
        smooth = None if smooth is None else _accepted("smooth", smooth)
        if paused is not None and not isinstance(paused, bool):
            raise UsageError("paused is true or false")
        if known is not None:
            known = _accepted("known", known)
            if self.unknown is None:
                raise UsageError("known: the model does not say where its 'unknown' begins")
        with self._lock:
            if threshold is not None:
                self.threshold = self.shown_from = threshold
            self.smooth = self.smooth if smooth is None else smooth
            self.paused = self.paused if paused is None else paused
            if known is not None and self.unknown is not None:
                self._set_known = known
                self.unknown.move(known)
            self.version += 1

    def carry(self, unknown: Optional[MovedThreshold]) -> None:
        """What was set holds for a model that takes over, too."""
        if unknown is not None and self._set_known is not None:
            unknown.move(self._set_known)

    def as_dict(self) -> dict[str, Any]:
        with self._lock:
            return {
                "threshold": self.threshold,
                "shown_from": self.shown_from,
                "smooth": self.smooth,
                "paused": self.paused,
                "known": None if self.unknown is None else self.unknown.known,
                "version": self.version,
            }


T = TypeVar("T")


class Pending(Generic[T]):
    """What one thread hands to the loop and may take back as long as the loop has not begun with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Optional[T] = None
        self._taken: Optional[T] = None
        self._begun = self._ended = False

    def put(self, one: T) -> None:
        with self._lock:
            self._waiting, self._begun = one, False

    def begin(self) -> Optional[T]:
        """What waits, which stays; it cannot be taken back any more."""
        with self._lock:
            self._begun = self._waiting is not None
            return self._waiting

    def take(self) -> Optional[T]:
        with self._lock:
            self._taken, self._waiting = self._waiting, None
            return self._taken

    def withdraw(self, one: T) -> bool:
        """Take `one` back, and True where nothing will come of it, now or since another was put in its place; False
        where it was begun or taken, and there will be an end of it."""
        with self._lock:
            begun = one is self._taken or (one is self._waiting and self._begun)
            if begun and not self._ended:
                return False
            if one is self._waiting:
                self._waiting = None
            return True

    def end(self) -> None:
        """Nothing will be taken any more."""
        with self._lock:
            self._ended = True


def _accepted(name: str, value: Any) -> float:
    kind = OPTIONS[name].kind
    try:
        return float(kind.accept(value))
    except ValueError:
        raise UsageError(f"{name}: {value} is not {kind.expects}") from None
