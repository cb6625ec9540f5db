"""Decisions instead of flicker: which classes are present, and when they appeared and went.

A class appears when its (smoothed) score reaches `on` in `results` consecutive results, and is gone when the score
stays below `off` in as many. Between the two thresholds nothing changes (a Schmitt trigger). What the loop decides
here is what every output reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.classifier import Prediction
from edge_mnv2.settings.schema import GONE_SHARE, Output, check_thresholds

APPEARED, GONE = "appeared", "gone"

_CLOCK_SET_S = 2.0
"""The clock was set where it moves by more against monotonic time; less is steering."""


@dataclass(frozen=True)
class Event:
    """`kind` is "appeared" or "gone". `started` and `ended` are seconds since 1970 (UTC): the first result of the
    deciding row, and for "gone" the last result that still was above `off`. `best` is the best score meanwhile."""

    kind: str
    label: str
    index: int
    started: float
    best: float
    frame: int
    ended: Optional[float] = None


@dataclass
class _Present:
    started: float
    best: float
    last_seen: float
    below: int = 0


@dataclass
class _Rising:
    started: float
    best: float
    count: int = 1


def rows_named(labels: Sequence[str], names: Iterable[str], what: str = "label") -> list[int]:
    """Rows whose label, or a comma part of it, is one of `names`, without regard to case.

    Raises UsageError for a name that no row has.
    """
    rows: list[int] = []
    for name in names:
        wanted = name.strip().casefold()
        matching = [
            row
            for row, label in enumerate(labels)
            if wanted == label.casefold() or wanted in (part.strip().casefold() for part in label.split(","))
        ]
        if not matching:
            raise UsageError(f"{what} '{name}' is not a class of the model", hint="see the model's label list")
        rows += matching
    return rows


def is_class(labels: Sequence[str], name: str) -> bool:
    """Whether `name` is a class of `labels`, as `rows_named` reads it."""
    try:
        return bool(rows_named(labels, [name]))
    except UsageError:
        return False


class Decider:
    """Follows every class that may be reported. One call a result, in frame order.

    `allow` and `deny` are class names (`rows_named`): with `allow` only those are followed, `deny` are never.
    Raises UsageError for thresholds out of order and unknown names.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        on: float = Output.appear,
        off: Optional[float] = None,
        results: int = Output.consecutive,
        allow: Iterable[str] = (),
        deny: Iterable[str] = (),
    ) -> None:
        off = GONE_SHARE * on if off is None else off
        check_thresholds(on, off)
        if results < 1:
            raise UsageError(f"{results} consecutive results", hint="at least 1")
        self._labels = labels
        self._on, self._off, self._results = on, off, results
        self._on_in_scores = float(np.float32(on))
        self.hidden = _hidden_rows(labels, list(allow), list(deny))
        self._rising: dict[int, _Rising] = {}
        self._present: dict[int, _Present] = {}
        self._offset: Optional[float] = None

    @property
    def present(self) -> list[int]:
        """Rows that are present, the one that came first first."""
        return list(self._present)

    @property
    def present_labels(self) -> tuple[str, ...]:
        """The labels of `present`."""
        return tuple(self._labels[row] for row in self._present)

    def __call__(
        self,
        scores: np.ndarray,
        wall_time: float,
        frame: int,
        monotonic: Optional[float] = None,
        best: Sequence[Prediction] = (),
    ) -> list[Event]:
        """What changed with these scores (float32, one a row). `monotonic` seconds tell a clock that was set.

        `best`: the best rows of those that are not hidden, best first, where somebody has looked for them.
        """
        if monotonic is not None:
            self._follow_clock(wall_time - monotonic)
        events = [event for row in list(self._present) if (event := self._still(row, scores, wall_time, frame))]
        if best and best[-1].score < self._on_in_scores:
            high = {one.index for one in best if one.score >= self._on_in_scores}
        else:
            high = {row for row in (scores >= self._on).nonzero()[0].tolist() if row not in self.hidden}
        if self._rising:
            for row in [row for row in self._rising if row not in high]:
                del self._rising[row]
        for row in sorted(high):
            if row in self._present:
                continue
            rising = self._rising.get(row)
            score = float(scores[row])
            if rising is None:
                rising = self._rising[row] = _Rising(wall_time, score)
            else:
                rising.count += 1
                rising.best = max(rising.best, score)
            if rising.count >= self._results:
                del self._rising[row]
                self._present[row] = _Present(rising.started, rising.best, wall_time)
                events.append(Event(APPEARED, self._labels[row], row, rising.started, rising.best, frame))
        return events

    def all_gone(self, frame: int) -> list[Event]:
        """End everything that is present, as when the source is lost or the run ends."""
        events = [self._gone(row, frame) for row in list(self._present)]
        self._rising.clear()
        return events

    def _follow_clock(self, offset: float) -> None:
        """Where the clock was set, tell what began before in its new time: an event lasts as long as it did."""
        shift = 0.0 if self._offset is None else offset - self._offset
        if self._offset is None or abs(shift) > _CLOCK_SET_S:
            self._offset = offset
            for rising in self._rising.values():
                rising.started += shift
            for present in self._present.values():
                present.started += shift
                present.last_seen += shift

    def _still(self, row: int, scores: np.ndarray, wall_time: float, frame: int) -> Optional[Event]:
        present = self._present[row]
        score = float(scores[row])
        if score >= self._off:
            present.below, present.last_seen = 0, wall_time
            present.best = max(present.best, score)
            return None
        present.below += 1
        return self._gone(row, frame) if present.below >= self._results else None

    def _gone(self, row: int, frame: int) -> Event:
        present = self._present.pop(row)
        return Event(GONE, self._labels[row], row, present.started, present.best, frame, present.last_seen)


def _hidden_rows(labels: Sequence[str], allow: list[str], deny: list[str]) -> frozenset[int]:
    hidden = set(rows_named(labels, deny, "denied class"))
    if allow:
        hidden |= set(range(len(labels))) - set(rows_named(labels, allow, "allowed class"))
    return frozenset(hidden)
