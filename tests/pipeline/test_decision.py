"""Appearing and going: thresholds, consecutive results, allow and deny."""

from __future__ import annotations

import numpy as np
import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.pipeline.decision import APPEARED, GONE, Decider, Event, rows_named
from edge_mnv2.runtime.classifier import top_predictions

LABELS = ["tabby, tabby cat", "lynx", "dog"]


def follow(decider: Decider, series: list[list[float]]) -> list[tuple[int, str, int]]:
    seen = []
    for frame, scores in enumerate(series):
        seen += [
            (frame, event.kind, event.index) for event in decider(np.array(scores, np.float32), float(frame), frame)
        ]
    return seen


def test_a_class_appears_after_consecutive_results_and_goes_after_as_many() -> None:
    decider = Decider(LABELS, on=0.6, off=0.4, results=3)
    high, between, low = [0.9, 0, 0], [0.5, 0, 0], [0.1, 0, 0]
    assert follow(decider, [high, high, low, high, high, high, between, between, low, low, high, low, low, low]) == [
        (5, APPEARED, 0),
        (13, GONE, 0),
    ]


def test_flicker_between_the_thresholds_changes_nothing() -> None:
    decider = Decider(LABELS, on=0.6, off=0.4, results=1)
    series = [[0.7, 0, 0]] + [[0.45, 0, 0], [0.62, 0, 0]] * 20
    assert follow(decider, series) == [(0, APPEARED, 0)]
    assert decider.present == [0]


def test_an_event_knows_its_start_end_and_best() -> None:
    decider = Decider(LABELS, on=0.5, off=0.5, results=2)
    events: list[Event] = []
    for time, score in enumerate([0.6, 0.7, 0.95, 0.6, 0.1, 0.1]):
        events += decider(np.array([score, 0, 0], np.float32), 100.0 + time, time)
    appeared, gone = events
    assert (appeared.started, appeared.frame, appeared.ended) == (100.0, 1, None)
    assert appeared.best == pytest.approx(0.7)
    assert (gone.started, gone.ended, gone.frame) == (100.0, 103.0, 5) and gone.best == pytest.approx(0.95)


def test_allow_and_deny_by_name_or_a_part_of_it() -> None:
    both = [0.5, 0.5, 0.5]
    assert follow(Decider(LABELS, results=1, allow=["TABBY cat", "dog"]), [both]) == [
        (0, APPEARED, 0),
        (0, APPEARED, 2),
    ]
    assert follow(Decider(LABELS, results=1, deny=["lynx"]), [both]) == [(0, APPEARED, 0), (0, APPEARED, 2)]
    with pytest.raises(UsageError, match="unicorn"):
        Decider(LABELS, allow=["unicorn"])
    assert rows_named(LABELS, ["tabby"]) == [0]


def test_everything_goes_when_the_source_does() -> None:
    decider = Decider(LABELS, results=1)
    follow(decider, [[0.9, 0.9, 0]])
    assert [(event.kind, event.index) for event in decider.all_gone(7)] == [(GONE, 0), (GONE, 1)]
    assert decider.present == []


@pytest.mark.parametrize(("on", "off", "results"), [(0.3, 0.5, 1), (0.5, 0.0, 1), (1.5, 0.5, 1), (0.5, 0.4, 0)])
def test_thresholds_out_of_order_are_refused(on: float, off: float, results: int) -> None:
    with pytest.raises(UsageError):
        Decider(LABELS, on=on, off=off, results=results)


@pytest.mark.parametrize(("on", "off"), [(0.5, 0.35), (0.2, 0.14), (1.0, 0.7)])
def test_without_a_word_gone_follows_appear(on: float, off: float) -> None:
    decider = Decider(LABELS, on=on, results=1)
    assert follow(decider, [[on, 0, 0], [off + 0.001, 0, 0], [off - 0.001, 0, 0]]) == [(0, APPEARED, 0), (2, GONE, 0)]


@pytest.mark.parametrize("years", [56, -3])
def test_an_event_across_a_clock_that_is_set(years: int) -> None:
    """Six seconds are six seconds, told in the new time."""
    decider = Decider(LABELS, on=0.5, off=0.5, results=2)
    jump = years * 365 * 86400.0
    events: list[Event] = []
    for second, score in enumerate([0.6, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1]):
        wall = 100.0 + second + (jump if second >= 4 else 0.0)
        events += decider(np.array([score, 0, 0], np.float32), wall, second, 5000.0 + second)
    appeared, gone = events
    assert appeared.started == 100.0
    assert (gone.started, gone.ended) == (100.0 + jump, 106.0 + jump)


def test_a_clock_that_is_steered_changes_nothing() -> None:
    decider = Decider(LABELS, on=0.5, off=0.5, results=1)
    events: list[Event] = []
    for second, score in enumerate([0.9] * 50 + [0.1]):
        events += decider(np.array([score, 0, 0], np.float32), 100.0 + second * 1.0005, second, 5000.0 + second)
    assert events[-1].started == 100.0


def test_the_best_rows_that_are_known_already_change_no_event() -> None:
    random = np.random.default_rng(3)
    names = [str(row) for row in range(30)]
    for on in (0.3, 0.5, 0.7):
        alone, helped = (Decider(names, on=on, off=on / 2, results=2, deny=["4"]) for _ in range(2))
        for frame in range(300):
            scores = np.exp(random.normal(0, 2.5, 30)).astype(np.float32)
            scores /= scores.sum()
            if frame % 7 == 0:
                scores[frame % 30] = np.float32(on)
            shown = scores.copy()
            shown[4] = -np.inf
            best = top_predictions(shown, names, 3)
            assert helped(scores, float(frame), frame, None, best) == alone(scores, float(frame), frame)
