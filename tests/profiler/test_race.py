"""The race over settings whose true costs are known, on machines whose speed wanders."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from edge_mnv2.profiler.race import SAME, Outcome, race


class Machine:
    """Settings of known costs on a clock of its own: every measurement takes `burst_s`.

    `drift` is how far the speed wanders in the course of the race, `noise` the spread of one measurement, `busy` the
    share of measurements that another program makes three times as slow.
    """

    def __init__(
        self, costs: list[float], seed: int, *, drift: float = 0.0, noise: float = 0.0, busy: float = 0.0
    ) -> None:
        self.costs, self.drift, self.noise, self.busy = costs, drift, noise, busy
        self.random = random.Random(seed)
        self.now = 0.0
        self.measured: list[int] = []

    def measure(self, position: int) -> float:
        self.now += 0.25
        self.measured.append(position)
        cost = self.costs[position] * (1 + self.drift * self.now / 60)
        cost *= 1 + abs(self.random.gauss(0, self.noise))
        return cost * (3 if self.random.random() < self.busy else 1)

    def race(self, seconds: float = 60, complexity: tuple[float, ...] = ()) -> Outcome:
        clock: Callable[[], float] = lambda: self.now  # noqa: E731
        return race(self.measure, len(self.costs), seconds=seconds, complexity=complexity, clock=clock)


@pytest.mark.parametrize("busy", [0.0, 0.2])
@pytest.mark.parametrize("drift", [0.0, 1.0])
def test_the_choice_is_within_three_percent_of_the_best(drift: float, busy: float) -> None:
    for seed in range(40):
        costs = [1.0 + random.Random(seed).random() for _ in range(4)] + [1.0, 1.02, 1.05, 1.3]
        random.Random(seed).shuffle(costs)
        machine = Machine(costs, seed, drift=drift, noise=0.05, busy=busy)
        outcome = machine.race()
        assert costs[outcome.winner] <= 1.03 * min(costs), (seed, costs, outcome.winner)


def test_what_is_clearly_worse_leaves_early_and_time_goes_to_the_close_ones() -> None:
    machine = Machine([1.0, 1.03, 3.0, 1.6], 1, noise=0.03)
    outcome = machine.race()
    slow, slower = outcome.entrants[3], outcome.entrants[2]
    assert (slower.left, slower.why) == (4, "clearly worse")
    assert slow.why == "clearly worse" and slow.left == 6
    assert len(outcome.entrants[0].costs) > 4 * len(slow.costs)
    assert outcome.entrants[0].left is None and outcome.winner == 0
    assert slower.ratio == pytest.approx(3.0, rel=0.1)


def test_rounds_are_interleaved_so_that_drift_hits_all_alike() -> None:
    machine = Machine([1.0, 1.0, 1.0], 3, drift=4.0)
    outcome = machine.race(complexity=(3, 1, 2))
    rounds = [machine.measured[start : start + 3] for start in range(0, len(machine.measured), 3)]
    assert all(sorted(positions) == [0, 1, 2] for positions in rounds)
    assert len({tuple(positions) for positions in rounds}) > 1, "a new order each round"
    assert outcome.winner == 1


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_of_equally_good_settings_the_simpler_one_wins(noise: float) -> None:
    for seed in range(20):
        machine = Machine([1.0, 1.0 + SAME / 2, 1.5], seed, noise=noise)
        simpler_second = machine.race(complexity=(2, 1, 0))
        assert simpler_second.winner == 1 or machine.costs[simpler_second.winner] < 1.0 + SAME / 4


def test_a_difference_without_doubt_beats_simplicity() -> None:
    for seed in range(10):
        assert Machine([1.05, 1.0], seed, noise=0.01).race(complexity=(0, 1)).winner == 1


def test_it_ends_when_no_doubt_is_left_and_when_the_time_is_over() -> None:
    clear = Machine([1.0, 5.0], 1, noise=0.01)
    outcome = clear.race(seconds=600)
    assert outcome.settled and clear.now < 60
    close = Machine([1.0, 1.011], 1, noise=0.3)
    outcome = close.race(seconds=30)
    assert not outcome.settled and 25 < close.now < 35


def test_everyone_is_measured_twice_however_short_the_time() -> None:
    machine = Machine([1.0, 2.0, 3.0], 1)
    outcome = machine.race(seconds=0.01)
    assert [len(entrant.costs) for entrant in outcome.entrants] == [2, 2, 2] and outcome.winner == 0


def test_one_alone() -> None:
    outcome = Machine([1.0], 1).race()
    assert (outcome.winner, outcome.settled, outcome.entrants[0].ratio) == (0, True, 1.0)
