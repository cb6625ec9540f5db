"""Find the cheapest of several settings in little time, on a machine whose speed drifts.

Costs are measured in rounds: every setting that is still in the race is measured once a round, in a new order each
time, and settings are compared by their ratios within the rounds, so that a drift of clock, heat or other programs hits
all alike. What is clearly worse leaves early, and the time goes to the closest contenders (successive elimination:
Even-Dar, Mannor, Mansour, "Action Elimination and Stopping Conditions for the Multi-Armed Bandit", JMLR 2006).
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Optional

SAME = 0.01
"""Costs whose ratio is within so much of 1 count as the same: the simpler setting is taken."""

_CLOSE = 0.02
"""A cost that is not more than so much above the least, and cannot be told from it by the rounds, is as good."""

_LEAST_ROUNDS = 2

_CLEARLY = ((4, 2.0), (6, 1.4))
"""(rounds, ratio): who was so much dearer in every one of so many rounds is clearly worse. Fewer rounds can all have
been disturbed by another program."""

_ROUNDS = 8
"""The fewest rounds in which a small difference can be told from chance."""

_PATIENCE = 0.25
"""Share of the time before which nobody leaves for a small difference: another program may be busy just now."""


@dataclass
class Entrant:
    """One setting in the race. `costs` has one entry a round, until it left in round `left` (None: it never did).

    `ratio` is its cost over the winner's: the median of the rounds in which both ran. `spread` is twice the standard
    error of that median, as a ratio.
    """

    costs: list[float] = field(default_factory=list)
    left: Optional[int] = None
    why: Optional[str] = None
    ratio: float = 1.0
    spread: float = math.inf


@dataclass(frozen=True)
class Outcome:
    """`winner` is a position in `entrants`. `settled`: the race ended by itself, not because the time was over."""

    winner: int
    entrants: list[Entrant]
    rounds: int
    settled: bool


def race(
    measure: Callable[[int], float],
    count: int,
    *,
    seconds: float,
    complexity: Sequence[float] = (),
    clock: Callable[[], float] = time.monotonic,
    most_rounds: int = 200,
) -> Outcome:
    """The best of `count` settings by `measure(position)`, a cost above 0, in about `seconds`.

    Every setting is measured at least twice, however long that takes. Among equally good ones (within `SAME`, or a
    little more where chance alone may explain it) the one of the least `complexity` wins (default: the order). Raises
    what `measure` raises.
    """
    entrants = [Entrant() for _ in range(count)]
    order = random.Random(count)
    started = clock()
    end = started + seconds
    rounds, slowest_round, settled = 0, 0.0, False
    while rounds < most_rounds:
        alive = _alive(entrants)
        began = clock()
        if rounds >= _LEAST_ROUNDS and began + slowest_round / 2 > end:
            break
        for position in order.sample(alive, len(alive)):
            entrants[position].costs.append(measure(position))
        slowest_round = max(clock() - began, 0.0)
        rounds += 1
        settled = _drop(entrants, rounds, sure=rounds >= _ROUNDS and clock() - started >= seconds * _PATIENCE)
        if settled:
            break
    return Outcome(_winner(entrants, list(complexity) or list(range(count))), entrants, rounds, settled)


def _alive(entrants: Sequence[Entrant]) -> list[int]:
    return [position for position, entrant in enumerate(entrants) if entrant.left is None]


def _drop(entrants: Sequence[Entrant], rounds: int, sure: bool) -> bool:
    """Let go who cannot win; whether the rest are known to be equal. `sure`: small differences can be told."""
    alive = _alive(entrants)
    leader = _leader(entrants, alive)
    open_questions = 0
    for position in alive:
        if position == leader:
            continue
        entrant = entrants[position]
        differences = _differences(entrant, entrants[leader])
        median, spread = _median_and_spread(differences)
        if any(rounds >= least and min(differences) > math.log(ratio) for least, ratio in _CLEARLY):
            entrant.left, entrant.why = rounds, "clearly worse"
        elif sure and median - spread > math.log1p(SAME):
            entrant.left, entrant.why = rounds, "worse"
        elif not sure or median + spread > math.log1p(SAME):
            open_questions += 1
    return not open_questions


def _leader(entrants: Sequence[Entrant], alive: Sequence[int]) -> int:
    """Who has the least median cost, each round's costs taken over the round's least.

    Other programs only ever make a measurement dearer: the least is the one that they disturbed least.
    """
    rounds = min(len(entrants[position].costs) for position in alive)
    logs = {position: [math.log(cost) for cost in entrants[position].costs[:rounds]] for position in alive}
    least = [min(logs[position][number] for position in alive) for number in range(rounds)]
    return min(
        alive,
        key=lambda position: statistics.median(cost - low for cost, low in zip(logs[position], least)),
    )


def _differences(entrant: Entrant, other: Entrant) -> list[float]:
    """Logarithms of the cost ratios of the rounds in which both ran."""
    return [math.log(mine / theirs) for mine, theirs in zip(entrant.costs, other.costs)]


def _median_and_spread(differences: Sequence[float]) -> tuple[float, float]:
    """The median, and some standard errors of it: more of them where there are few rounds to tell the noise from.

    The standard error of a median is 1.2533 standard deviations over the root of the count; the standard deviation is
    taken as 1.4826 times the median absolute deviation, which outliers do not move.
    """
    median = statistics.median(differences)
    count = len(differences)
    if count < 2:
        return median, math.inf
    deviation = statistics.median(abs(value - median) for value in differences)
    error = 1.2533 * 1.4826 * deviation / math.sqrt(count)
    return median, error * 2.5 * (1 + 5 / count)


def _as_good(entrant: Entrant, leader: Entrant) -> bool:
    median, spread = _median_and_spread(_differences(entrant, leader))
    return median <= math.log1p(SAME) or (median <= math.log1p(_CLOSE) and median <= spread)


def _winner(entrants: list[Entrant], complexity: Sequence[float]) -> int:
    """The simplest of those that are as good as the leader; every entrant's ratio and spread are then set."""
    alive = _alive(entrants)
    leader = _leader(entrants, alive)
    good = [position for position in alive if _as_good(entrants[position], entrants[leader])]
    winner = min(good, key=lambda position: complexity[position])
    for entrant in entrants:
        differences = _differences(entrant, entrants[winner])
        median, spread = _median_and_spread(differences)
        entrant.ratio, entrant.spread = math.exp(median), math.expm1(min(spread, 50.0))
    return winner
