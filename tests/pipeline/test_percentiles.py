"""The sketch against exact percentiles."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edge_mnv2.pipeline.percentiles import Percentiles


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).lognormal(15, 0.4, 20_000),
        np.random.default_rng(1).uniform(1e6, 2e6, 5_000),
        np.full(100, 3_700_000.0),
        np.array([5e3, 9e9]),
    ],
    ids=["lognormal", "uniform", "constant", "two"],
)
def test_percentiles_are_right_to_half_a_percent(values: np.ndarray) -> None:
    sketch = Percentiles()
    for value in values:
        sketch.add(int(value))
    for fraction in (0.0, 0.5, 0.95, 0.99, 1.0):
        exact = float(np.quantile(values, fraction, method="lower"))
        assert sketch.quantile(fraction) == pytest.approx(exact, rel=0.006)


def test_nothing_is_unknown_and_extremes_are_kept() -> None:
    sketch = Percentiles()
    assert sketch.milliseconds((0.5, 0.95)) == {"p50": None, "p95": None}
    for value in (0, -5, 10**18):
        sketch.add(value)
    assert sketch.count == 3
    assert sketch.quantile(0.0) is not None


def test_memory_does_not_grow() -> None:
    sketch = Percentiles()
    before = sys.getsizeof(sketch._counts)
    for value in range(1, 100_000):
        sketch.add(value * 1000)
    assert sys.getsizeof(sketch._counts) == before


def test_counts_below_bounds_are_exact_to_a_bucket() -> None:
    sketch = Percentiles()
    for value in range(1, 1001):
        sketch.add(value * 1_000_000)
    counts = sketch.at_most([1, 10_000_000, 500_000_000, 10**13, 10**15])
    assert counts[0] == 0 and counts[1] == pytest.approx(10, abs=1) and counts[2] == pytest.approx(500, abs=3)
    assert counts[3:] == [1000, 1000] and sketch.total == sum(range(1, 1001)) * 1_000_000
