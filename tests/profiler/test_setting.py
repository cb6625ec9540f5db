from __future__ import annotations

import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.profiler.burst import Burst
from edge_mnv2.profiler.measurement import Goal, Setting, cpu_settings, pinned, steps
from edge_mnv2.profiler.sweep import candidates
from edge_mnv2.settings.profile import resolve


@pytest.mark.parametrize(
    ("usable", "expected"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (6, [1, 2, 3, 4, 6]), (12, [1, 2, 3, 4, 6, 8])],
)
def test_numbers_that_are_tried(usable: int, expected: list[int]) -> None:
    assert steps(usable) == expected
    assert steps(usable, 7) == [7]


@pytest.mark.parametrize(
    ("usable", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(1, 1), (1, 2), (2, 1), (2, 2)]),
        (4, [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1), (3, 2), (4, 1), (4, 2)]),
    ],
)
def test_threads_and_workers_together(usable: int, expected: list[tuple[int, int]]) -> None:
    found = [(setting.threads, setting.workers) for setting in cpu_settings([None], usable)]
    assert found == expected
    assert max(threads * workers for threads, workers in found) <= 2 * usable


def test_every_model_is_in_the_sweep() -> None:
    found = cpu_settings(["a", "b"], 2)
    assert [setting.model for setting in found] == ["a"] * 4 + ["b"] * 4


def test_what_somebody_asked_for_is_not_varied() -> None:
    settings = resolve("generic", {"runtime.threads": (1, "command line")})
    assert pinned(settings, "runtime.threads") == 1 and pinned(settings, "runtime.workers") is None
    notes: list[str] = []
    found = candidates(settings, [None], 4, notes)
    assert {setting.threads for setting in found} == {1}
    assert {setting.workers for setting in found} == {1, 2, 3, 4}
    both = resolve("generic", {"runtime.threads": (9, "command line"), "runtime.workers": (3, "command line")})
    assert [(one.threads, one.workers) for one in candidates(both, [None], 4, notes)] == [(4, 3)]
    assert pinned(resolve("generic", {"runtime.threads": ("auto", "command line")}), "runtime.threads") is None
    assert notes == []


def test_simpler_means_fewer_workers_then_fewer_threads() -> None:
    order = [Setting(None, "none", threads, workers) for threads, workers in ((1, 1), (4, 1), (1, 2), (2, 2))]
    assert sorted(order, key=lambda setting: setting.complexity) == order
    assert order[0].words == "CPU, 1 thread, 1 worker" and order[3].words == "CPU, 2 threads, 2 workers"
    assert Setting("m", "edgetpu:usb", 1, 1).words.startswith("Edge TPU")


def test_what_a_burst_costs_by_each_goal() -> None:
    quick = Burst(end_to_end=[10, 20, 30], rates=[50.0], cpu_s=0.3)
    assert Goal("latency").cost(quick, 7.0) == 20
    assert Goal("throughput").cost(quick, 7.0) == 1 / 50
    assert Goal("power").cost(quick, 7.0) == pytest.approx(100), "CPU time stands for energy without a sensor"
    assert Goal("power", measured_power=True).cost(quick, 7.0) == 7.0
    assert "no power sensor" in Goal("power").meaning and "measured" in Goal("power", True).meaning
    with pytest.raises(UsageError, match="--goal speed"):
        Goal("speed")
