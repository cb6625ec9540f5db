from __future__ import annotations

from typing import Optional

from edge_mnv2.app.health_limits import HealthLimits
from edge_mnv2.board.health import HealthSample
from edge_mnv2.settings.schema import Health


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _at(celsius: Optional[float], throttled: Optional[list] = None) -> HealthSample:
    return HealthSample(temp_c=celsius, throttled=throttled)


def test_no_limits_say_nothing() -> None:
    limits = HealthLimits(Health())
    assert limits.update(_at(200.0), 0.1) == []
    assert limits.max_fps is None


def test_heat_is_said_once_a_crossing() -> None:
    clock = Clock()
    limits = HealthLimits(Health(max_temp_c=80), clock)
    assert limits.update(_at(79.9), 30) == []
    assert limits.update(_at(80.4), 30) == ["SoC at 80.4 °C, above max_temp_c 80"]
    for celsius in (81.0, 79.5, 80.5, 77.1, 85.0, None):
        clock.now += 20
        assert limits.update(_at(celsius), 30) == [], "within the hysteresis nothing new has happened"
    assert limits.update(_at(77.0), 30) == ["SoC at 77 °C, below max_temp_c 80 again"]
    assert len(limits.update(_at(81.0), 30)) == 1
    assert limits.max_fps is None, "on_limit: warn leaves the frame rate alone"


def test_frame_rate_goes_down_in_steps_and_comes_back() -> None:
    clock = Clock()
    limits = HealthLimits(Health(max_temp_c=80, on_limit="slow"), clock)
    said = limits.update(_at(82.0), 20.0)
    assert said == ["SoC at 82 °C, above max_temp_c 80: frame rate lowered to 16.0 a second"]
    assert limits.update(_at(83.0), 16.0) == [], "a step is given time to show"
    clock.now += 15
    assert limits.update(_at(83.0), 16.0) == ["SoC still at 83 °C: frame rate lowered to 12.8 a second"]
    clock.now += 15
    assert limits.update(_at(78.5), 12.8) == [], "not cool enough yet"
    assert limits.update(_at(76.0), 12.8) == ["SoC at 76 °C: frame rate raised to 16.0 a second"]
    clock.now += 15
    assert limits.update(_at(75.0), 16.0) == ["SoC at 75 °C: full frame rate again"]
    assert limits.max_fps is None
    assert limits.update(_at(75.0), 20.0) == []


def test_frame_rate_is_never_lowered_below_min_fps() -> None:
    clock = Clock()
    limits = HealthLimits(Health(max_temp_c=80, min_fps=15, on_limit="slow"), clock)
    for _ in range(50):
        limits.update(_at(90.0), 20.0)
        clock.now += 15
    assert limits.max_fps == 15
    limits = HealthLimits(Health(max_temp_c=80, on_limit="slow"), clock)
    for _ in range(100):
        limits.update(_at(90.0), 20.0)
        clock.now += 15
    assert limits.max_fps == 1.0, "never to a standstill"


def test_slow_frames_are_said_once_with_the_likely_cause() -> None:
    clock = Clock()
    limits = HealthLimits(Health(min_fps=10), clock)
    assert limits.update(_at(None), 5.0) == []
    clock.now += 9
    assert limits.update(_at(None), 12.0) == [], "a dip is no trend"
    assert limits.update(_at(None), 5.0) == []
    clock.now += 10
    assert limits.update(_at(None, ["under-voltage"]), 6.1) == [
        "6.1 frames a second, below min_fps 10 (under-voltage: the power supply is too weak: "
        "use a stronger one and a short, thick cable)"
    ]
    clock.now += 10
    assert limits.update(_at(None), 6.0) == []
    assert limits.update(_at(None), 12.0) == []
    clock.now += 10
    assert limits.update(_at(None), 12.0) == ["12.0 frames a second, min_fps 10 is met again"]
    assert limits.update(_at(None), None) == []


def test_a_board_that_is_slower_than_its_least_already_is_not_told_to_be_faster() -> None:
    for fps, min_fps in ((4.0, 5.0), (0.5, None), (5.0, 5.0)):
        limits = HealthLimits(Health(max_temp_c=80, min_fps=min_fps, on_limit="slow"), Clock())
        assert limits.update(_at(85.0), fps) == ["SoC at 85 °C, above max_temp_c 80"]
        assert limits.max_fps is None
        assert limits.update(_at(76.0), fps) == ["SoC at 76 °C, below max_temp_c 80 again"]
