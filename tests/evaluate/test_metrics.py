"""Measures against values worked out by hand or by another way of counting."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from edge_mnv2.evaluate import metrics
from edge_mnv2.evaluate.metrics import Answer


def answers(*rows: tuple[int, int, int, float]) -> list[Answer]:
    return [Answer(*row) for row in rows]


SOME = answers((0, 0, 0, 0.9), (0, 1, 1, 0.6), (1, 1, 0, 0.8), (1, 1, 0, 0.7), (2, 0, 7, 0.5))


def test_the_rank_is_the_place_in_a_stable_sort() -> None:
    generator = np.random.default_rng(1)
    for _ in range(200):
        scores = generator.integers(0, 6, 12) / 5
        order = list(np.argsort(-scores, kind="stable"))
        for row in range(12):
            assert metrics.rank_of(scores, row) == order.index(row)


def test_top_k() -> None:
    assert metrics.top_k_accuracy(SOME, 1) == pytest.approx(3 / 5)
    assert metrics.top_k_accuracy(SOME, 5) == pytest.approx(4 / 5)
    assert metrics.top_k_accuracy([], 1) is None


def test_per_class_counts_recall_and_precision() -> None:
    zero, one, two = metrics.per_class(SOME)
    assert (zero.class_index, zero.images, zero.top1, zero.top5, zero.precision) == (0, 2, 0.5, 1.0, 0.5)
    assert (one.class_index, one.images, one.top1, one.precision) == (1, 2, 1.0, pytest.approx(2 / 3))
    assert (two.class_index, two.images, two.top1, two.top5, two.precision) == (2, 1, 0.0, 0.0, None)
    assert metrics.balanced_accuracy([zero, one, two]) == pytest.approx(0.5)


def test_confusion_lists_every_cell_once_and_the_most_frequent_first() -> None:
    assert metrics.confusion(SOME) == [(1, 1, 2), (0, 0, 1), (0, 1, 1), (2, 0, 1)]


def test_calibration_error_by_hand() -> None:
    # Two bins: (0, 0.5] has one answer of confidence 0.4 that is right, (0.5, 1] has 0.8 right and 0.6 wrong.
    error, bins = metrics.calibration(answers((0, 0, 0, 0.4), (0, 0, 0, 0.8), (0, 1, 3, 0.6)), bins=2)
    assert error == pytest.approx((0.6 * 1 + 0.2 * 2) / 3)
    assert [entry.images for entry in bins] == [1, 2]
    assert bins[1].accuracy == pytest.approx(0.5)
    assert bins[1].confidence == pytest.approx(0.7)


@pytest.mark.parametrize(("confidence", "number"), [(0.0, 0), (0.2, 1), (0.2000001, 2), (1.0, 9), (1.0000001, 9)])
def test_calibration_bins_are_closed_above(confidence: float, number: int) -> None:
    _, bins = metrics.calibration(answers((0, 0, 0, confidence)), bins=10)
    assert [entry.images for entry in bins].index(1) == number


def test_a_calibrated_model_has_a_small_error_and_a_boastful_one_a_large_one() -> None:
    chance = random.Random(5)
    honest = []
    for _ in range(20_000):
        confidence = chance.random()
        honest.append(Answer(0, 0, int(chance.random() > confidence), confidence))
    error, _ = metrics.calibration(honest)
    assert error is not None and error < 0.02
    error, _ = metrics.calibration([answer._replace(confidence=0.99) for answer in honest])
    assert error == pytest.approx(0.49, abs=0.02)


def test_no_answers_mean_unknown_not_zero() -> None:
    assert metrics.calibration([])[0] is None
    assert metrics.balanced_accuracy([]) is None
    assert metrics.agreement([], []) is None
    assert metrics.regression_errors([], []) is None
    assert metrics.percentiles([], 50, 95) == {"p50": None, "p95": None}


def test_agreement() -> None:
    assert metrics.agreement([1, 2, 3, -1], [1, 0, 3, -1]) == 0.75


def test_regression_errors_by_hand() -> None:
    errors = metrics.regression_errors([1.0, 2.0, 4.0], [1.5, 1.0, 4.0])
    assert errors is not None
    assert errors.mse == pytest.approx(1.25 / 3)
    assert errors.rmse == pytest.approx(math.sqrt(1.25 / 3))
    assert errors.mae == pytest.approx(0.5)
    assert errors.mape == pytest.approx((0.5 + 0.5 + 0.0) / 3)


def test_the_percentage_error_leaves_true_zeros_out() -> None:
    errors = metrics.regression_errors([0.0, -2.0], [1.0, -1.0])
    assert errors is not None and errors.mape == pytest.approx(0.5)
    errors = metrics.regression_errors([0.0], [1.0])
    assert errors is not None and errors.mape is None


def test_percentiles_interpolate() -> None:
    assert metrics.percentiles([1.0, 2.0, 3.0, 4.0], 50, 95) == {"p50": 2.5, "p95": pytest.approx(3.85)}


@pytest.mark.slow
def test_figures_are_those_of_scikit_learn() -> None:
    from sklearn import metrics as reference

    random = np.random.default_rng(2)
    truth, predicted = random.integers(0, 6, 500), random.integers(0, 8, 500)
    assert metrics.macro_f1(truth, predicted) == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    recall = reference.recall_score(truth, predicted, average="macro", labels=np.unique(truth))
    assert metrics.balanced_recall(truth, predicted) == pytest.approx(recall, abs=1e-12)
    real, answered = random.normal(5, 2, 300), random.normal(5, 2, 300)
    errors = metrics.regression_errors(real.tolist(), answered.tolist())
    assert errors is not None
    assert errors.mape == pytest.approx(reference.mean_absolute_percentage_error(real, answered), rel=1e-9)
    assert errors.rmse == pytest.approx(reference.root_mean_squared_error(real, answered), rel=1e-9)
    assert errors.mae == pytest.approx(reference.mean_absolute_error(real, answered), rel=1e-9)
