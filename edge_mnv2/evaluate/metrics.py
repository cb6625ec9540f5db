"""What a list of answers is worth: top-k accuracy, confusion, calibration, errors of measured values, percentiles.

Sums go over one small record a picture; nothing here knows models or files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional

import numpy as np

CALIBRATION_BINS = 15
NEAR_ZERO = 0.001
"""Share of the median value up to which a value is nearly 0: a relative error of it says little."""


class Answer(NamedTuple):
    """One picture's answer. `truth` and `predicted` are class indices (-1: background); `rank` is the place of the
    true class among all scores (0: first); `confidence` the top score, a probability."""

    truth: int
    predicted: int
    rank: int
    confidence: float


@dataclass(frozen=True)
class ClassAccuracy:
    """One class: `top1` and `top5` over its `images`, `precision` over the pictures that were called it (None where
    none was)."""

    class_index: int
    images: int
    top1: float
    top5: float
    precision: Optional[float]


@dataclass(frozen=True)
class ConfidenceBin:
    """Answers whose confidence is in (`low`, `high`]: their number, mean confidence and accuracy (None where empty)."""

    low: float
    high: float
    images: int
    confidence: Optional[float]
    accuracy: Optional[float]


def rank_of(scores: np.ndarray, row: int) -> int:
    """How many rows come before `row` when sorted by falling score, equal scores by rising row: 0 is top-1."""
    score = scores[row]
    return int(np.count_nonzero(scores > score) + np.count_nonzero(scores[:row] == score))


def top_k_accuracy(answers: Sequence[Answer], k: int) -> Optional[float]:
    """Share of answers whose true class is among the `k` highest scores."""
    return sum(answer.rank < k for answer in answers) / len(answers) if answers else None


def per_class(answers: Sequence[Answer]) -> list[ClassAccuracy]:
    """Accuracy of each class that occurs, by rising class index."""
    images = Counter(answer.truth for answer in answers)
    first, five = (Counter(answer.truth for answer in answers if answer.rank < k) for k in (1, 5))
    called = Counter(answer.predicted for answer in answers)
    return [
        ClassAccuracy(
            class_index=index,
            images=count,
            top1=first[index] / count,
            top5=five[index] / count,
            precision=first[index] / called[index] if called[index] else None,
        )
        for index, count in sorted(images.items())
    ]


def balanced_accuracy(classes: Sequence[ClassAccuracy]) -> Optional[float]:
    """Mean over classes of their top-1 accuracy: a class with many pictures weighs no more than another."""
    return sum(entry.top1 for entry in classes) / len(classes) if classes else None


def balanced_recall(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes of `truth` of the share that was predicted right; both int (pictures,)."""
    return float(np.mean([np.mean(predicted[truth == index] == index) for index in np.unique(truth)]))


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean of 2 right / (true + predicted) over all classes that are true or predicted somewhere; both int (pictures,).

    scikit-learn's `f1_score(average="macro")`.
    """
    scores = []
    for index in np.union1d(truth, predicted):
        of_class, called = truth == index, predicted == index
        scores.append(2 * np.sum(of_class & called) / (of_class.sum() + called.sum()))
    return float(np.mean(scores))


def confusion(answers: Iterable[Answer]) -> list[tuple[int, int, int]]:
    """(true class, predicted class, pictures), non-zero cells only, the most frequent first."""
    cells = Counter((answer.truth, answer.predicted) for answer in answers)
    return [(*cell, count) for cell, count in sorted(cells.items(), key=lambda item: (-item[1], item[0]))]


def calibration(answers: Sequence[Answer], bins: int = CALIBRATION_BINS) -> tuple[Optional[float], list[ConfidenceBin]]:
    """Expected calibration error and its bins of equal width.

    The error is the mean over answers of |accuracy - confidence| of the answer's bin (Guo, Pleiss, Sun and Weinberger,
    On Calibration of Modern Neural Networks, 2017, equation 3). None without answers.
    """
    groups: list[list[Answer]] = [[] for _ in range(bins)]
    for answer in answers:
        # Bins are open below and closed above, as in the paper; a confidence of 0 goes into the first.
        number = math.ceil(answer.confidence * bins) - 1
        groups[min(max(number, 0), bins - 1)].append(answer)
    error = 0.0
    rows = []
    for number, group in enumerate(groups):
        confidence = accuracy = None
        if group:
            confidence = sum(answer.confidence for answer in group) / len(group)
            accuracy = sum(answer.rank == 0 for answer in group) / len(group)
            error += abs(accuracy - confidence) * len(group)
        rows.append(ConfidenceBin(number / bins, (number + 1) / bins, len(group), confidence, accuracy))
    return (error / len(answers) if answers else None), rows


def agreement(first: Sequence[int], second: Sequence[int]) -> Optional[float]:
    """Share of pictures to which both gave the same class."""
    return sum(a == b for a, b in zip(first, second)) / len(first) if first else None


@dataclass(frozen=True)
class RegressionErrors:
    """Errors of measured values, in the value's unit (`mse`: its square; `mape`: a fraction, over true values that are
    not 0, None where all are)."""

    mse: float
    rmse: float
    mae: float
    mape: Optional[float]


def regression_errors(truth: Sequence[float], predicted: Sequence[float]) -> Optional[RegressionErrors]:
    """Mean squared, root mean squared, mean absolute and mean absolute percentage error. None without values."""
    if not truth:
        return None
    wanted, answered = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    off = np.abs(answered - wanted)
    with np.errstate(over="ignore", invalid="ignore"):
        mse = float(np.mean(off**2))
    some = wanted != 0
    mape = float(np.mean(off[some] / np.abs(wanted[some]))) if some.any() else None
    return RegressionErrors(mse, math.sqrt(mse), float(np.mean(off)), mape)


def percentiles(milliseconds: Sequence[float], *ranks: int) -> dict[str, Optional[float]]:
    """`{"p50": ..., "p95": ...}` for `ranks`, interpolated linearly; None without values."""
    if not milliseconds:
        return {f"p{rank}": None for rank in ranks}
    return {f"p{rank}": float(value) for rank, value in zip(ranks, np.percentile(milliseconds, ranks))}


def wilson(right: int, count: int, z: float = 1.96) -> Optional[tuple[float, float]]:
    """The 95 % interval of a share (Wilson, 1927). None without pictures."""
    if not count:
        return None
    share = right / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)
