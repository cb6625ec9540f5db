"""The winner of a sweep on frames of several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.profiler import feed as feeds
from edge_mnv2.profiler.burst import loop_burst
from edge_mnv2.profiler.feed import Feed
from edge_mnv2.profiler.goal import Goal
from edge_mnv2.profiler.race import race
from edge_mnv2.profiler.sweep import BURST_S, Row
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.settings.profile import Settings

SIZES = ((640, 480), (1280, 720), (1920, 1080))
CAMERA_BURST_S = 2.5
_SAME_CAMERA = 0.02
_ROUNDS = 6


def sweep_sizes(
    settings: Settings,
    winner: Row,
    goal: Goal,
    feed: Feed,
    source: Optional[str],
    classifiers: Sequence[Classifier],
    notes: list[str],
    *,
    seconds: float,
) -> tuple[list[Row], Optional[Row]]:
    """The winner's engines on frames of several sizes, and the best of them where a camera was asked.

    `seconds` bounds the time on test patterns; each size of a camera takes `CAMERA_BURST_S` and its opening.

    The test pattern comes in every size; a camera is asked for each and measured at what it grants. Clips and pictures
    have the size that they have: none is compared.
    """
    if not feed.sizable:
        return [], None
    if feed.waits:
        return _camera_sizes(settings, winner, goal, source, classifiers, notes)
    assert feed.size is not None
    sizes = sorted({*SIZES, feed.size})
    rows = [_size_row(winner, size) for size in sizes]
    seconds = min(seconds, _ROUNDS * BURST_S * len(rows))
    length = min(BURST_S, seconds / (2 * len(rows)))
    patterns = [feeds.pattern(size, settings.camera) for size in sizes]

    def measure(position: int) -> float:
        burst = loop_burst(classifiers, patterns[position], length)
        rows[position].burst.add(burst)
        return goal.cost(burst, None)

    outcome = race(measure, len(rows), seconds=seconds, most_rounds=_ROUNDS)
    for row, entrant in zip(rows, outcome.entrants):
        row.entrant = entrant
    return rows, None


def _size_row(winner: Row, size: Optional[tuple[int, int]]) -> Row:
    return Row(winner.setting, size, winner.model, winner.delegate, compares="sizes")


def _camera_sizes(
    settings: Settings,
    winner: Row,
    goal: Goal,
    source: Optional[str],
    classifiers: Sequence[Classifier],
    notes: list[str],
) -> tuple[list[Row], Optional[Row]]:
    rows: list[Row] = []
    own = feeds.settings_size(settings.camera)
    for size in sorted({*SIZES, *([own] if own else [])}):
        asked = feeds.choose(source, replace(settings.camera, width=size[0], height=size[1]))
        try:
            burst = loop_burst(classifiers, asked, CAMERA_BURST_S)
        except EdgeMnv2Error as error:
            notes.append(f"{size[0]}x{size[1]}: {error}")
            continue
        granted = asked.source.granted
        got = (granted.width, granted.height) if granted is not None and granted.width and granted.height else size
        if any(row.size == got for row in rows):
            continue
        row = _size_row(winner, (got[0] or size[0], got[1] or size[1]))
        row.burst.add(burst)
        row.granted_fps = granted.fps if granted is not None else None
        row.entrant.costs.append(goal.cost(burst, None))
        rows.append(row)
    if not rows:
        return [], None
    cheapest = min(row.entrant.costs[0] for row in rows)
    for row in rows:
        row.entrant.ratio = row.entrant.costs[0] / cheapest
    # One burst each tells no finer, and of two equal sizes the smaller one leaves the CPU more to spare.
    return rows, next(row for row in rows if row.entrant.ratio <= 1 + _SAME_CAMERA)
