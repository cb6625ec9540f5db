from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import pytest

from edge_mnv2.profiler.soak import Point, Soak, clock_text

Words = Optional[tuple[str, ...]]


def _soak(rates: Sequence[float], words: Sequence[Words], temps: Sequence[Optional[float]] = ()) -> Soak:
    points = [
        Point(10.0 * (number + 1), rate, 1000 / rate, temps[number] if temps else None, 1500, words[number], None)
        for number, rate in enumerate(rates)
    ]
    return Soak(points, round(sum(10 * rate for rate in rates)), 10.0 * len(rates))


def test_a_rate_that_holds() -> None:
    result = _soak([50.0, 49.0, 50.0, 49.5], [()] * 4)
    assert result.verdict == "the frame rate held: 50.0 a second at first, 49.5 at the end; no throttling"
    assert result.throttled == [] and result.throttled_s == 0 and result.document()["throttled_s"] == 0


def test_a_board_that_cannot_tell_is_not_said_to_be_fine() -> None:
    result = _soak([50.0, 50.0], [None, None])
    assert "throttling" not in result.verdict
    assert result.throttled is None and result.document()["throttled_s"] is None


def test_a_rate_that_falls_with_the_heat() -> None:
    words: list[Words] = [(), (), ("throttled",), ("frequency-capped", "throttled")]
    result = _soak([50.0, 50.0, 30.0, 25.0], words, [60.0, 79.5, 82.0, 83.5])
    assert result.verdict.startswith(
        "the frame rate fell from 50.0 to 25.0 a second (50% less); throttled after 0:30 at 82.0 °C, 20 of 40 s ("
    )
    assert "cool the board" in result.verdict and "frequency-capped" in result.verdict
    assert result.throttled == ["frequency-capped", "throttled"] and result.throttled_s == 20
    document = result.document()
    assert document["max_temp_c"] == 83.5 and document["fps"] == {"first": 50, "last": 25, "min": 25, "median": 40}
    assert [point["fps"] for point in document["points"]] == [50, 50, 30, 25]
    assert str(result.points[-1]) == (
        "0:40 |   25.0 FPS | inference 40.0 ms | 83.5 °C | 1500 MHz | throttled: frequency-capped, throttled"
    )


def test_nothing_at_all() -> None:
    assert Soak().verdict == "too short to tell" and Soak().document()["fps"]["first"] is None


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3725.9, "1:02:05"), (360000, "100:00:00")])
def test_clock(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text
