"""Heads for classes.

`softmax`: cross-entropy with weight decay, early stopping, and the decay chosen by cross-validation. It may start from
the imprinted head, to which the decay then pulls back: with one picture a class that head remains.

`imprint`: a class's weights are the mean of its embeddings (Qi, Brown and Lowe, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.builder.float_heads import Linear
from edge_mnv2.runtime.prediction import softmax
from edge_mnv2.teach.linear_fit import Features, make_optimizer

DECAYS = (1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)
STEPS = 300
_EVERY = 5
_BATCH = 1024
_FOLDS = 4
_PATIENCE = 6
_MANY = 500
_FACTORS = (5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0)
_USUAL = 20.0


@dataclass(frozen=True)
class Choice:
    """What cross-validation found: weight decay, steps, and the mean cross-entropy of the pictures left out.

    `factor` is the imprinted head's, where it is the start; None: the start is zero.
    """

    decay: float
    steps: int
    loss: float
    factor: Optional[float] = None


def fit(
    embeddings: np.ndarray, truth: np.ndarray, rows: int, choice: Choice, *, optimizer: str = "momentum", seed: int = 0
) -> Linear:
    """The head of `rows` classes for `embeddings` (pictures, size) whose classes are `truth` (pictures,), int."""
    prior = _start(embeddings, truth, rows, choice.factor)
    # First what needs a copy of the embeddings for a moment: the features keep another one.
    logits = prior(embeddings)
    features = Features.of(embeddings)
    weights, bias, _ = _descend(
        features.values,
        truth,
        logits,
        choice.decay,
        optimizer=optimizer,
        steps=choice.steps,
        seed=seed,
    )
    learned = features.unfold(weights, bias)
    return Linear(prior.weights + learned.weights, prior.bias + learned.bias)


def choose(
    embeddings: np.ndarray, truth: np.ndarray, rows: int, *, optimizer: str = "momentum", seed: int = 0
) -> Choice:
    """Weight decay and number of steps with the least cross-entropy on folds left out in turn.

    Classes with one picture are always among the taught ones. Without a class of two there is nothing to choose by: the
    middle decay and all steps, from the imprinted head.
    """
    factor = choose_factor(embeddings, truth, rows)
    folds = stratified_folds(truth, np.random.default_rng(seed))
    if len(truth) > _MANY:
        # Of many pictures one fold says enough.
        folds = folds[:1]
    if not folds:
        return Choice(DECAYS[len(DECAYS) // 2], STEPS, math.nan, factor)
    starts = (None, factor)
    curves = np.zeros((len(starts), len(DECAYS), STEPS // _EVERY))
    for left_out in folds:
        taught = np.setdiff1d(np.arange(len(truth)), left_out)
        features = Features.of(embeddings[taught])
        for which, start in enumerate(starts):
            prior = _start(embeddings[taught], truth[taught], rows, start)
            check = features(embeddings[left_out]), prior(embeddings[left_out]), truth[left_out]
            for place, decay in enumerate(DECAYS):
                _, _, curve = _descend(
                    features.values,
                    truth[taught],
                    prior(embeddings[taught]),
                    decay,
                    optimizer=optimizer,
                    steps=STEPS,
                    seed=seed,
                    check=check,
                )
                curves[which, place] += np.array(curve) * len(left_out)
    curves /= sum(len(left_out) for left_out in folds)
    which, place, step = (int(at) for at in np.unravel_index(np.argmin(curves), curves.shape))
    return Choice(DECAYS[place], (step + 1) * _EVERY, float(curves.min()), starts[which])


def _start(embeddings: np.ndarray, truth: np.ndarray, rows: int, factor: Optional[float]) -> Linear:
    if factor is None:
        return Linear(np.zeros((rows, embeddings.shape[1])), np.zeros(rows))
    return imprint(embeddings, truth, rows, factor)


def stratified_folds(truth: np.ndarray, random: np.random.Generator, count: int = _FOLDS) -> list[np.ndarray]:
    """Places of the pictures of each fold: every class spread over all; classes with one picture are never left out."""
    number = np.full(len(truth), -1)
    for row in np.unique(truth):
        members = random.permutation(np.flatnonzero(truth == row))
        if len(members) > 1:
            number[members] = (np.arange(len(members)) + random.integers(count)) % count
    folds = [np.flatnonzero(number == fold) for fold in range(count)]
    return [fold for fold in folds if len(fold) and _leaves_all(truth, fold)]


def _leaves_all(truth: np.ndarray, fold: np.ndarray) -> bool:
    return len(np.unique(np.delete(truth, fold))) == len(np.unique(truth))


def _descend(
    values: np.ndarray,
    truth: np.ndarray,
    start: np.ndarray,
    decay: float,
    *,
    optimizer: str,
    steps: int,
    seed: int,
    check: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Weights (rows, rank) and bias (rows,) to add to the logits `start` (pictures, rows), and the loss of `check`
    (values, start, truth) every few steps."""
    count, rank = values.shape
    rows = start.shape[1]
    # One more column of ones carries the bias, which does not decay.
    inputs = np.concatenate([values, np.ones((count, 1))], axis=1)
    wanted = np.eye(rows)[truth]
    decays = np.append(np.full(rank, decay), 0.0)
    # A softmax's second derivative is at most half the inputs' (Böhning, 1992), and these are uncorrelated: measured in
    # units of that bound along each axis, the problem is round and a step of 1 is safe.
    units = 1 / np.sqrt(0.5 * np.mean(inputs**2, axis=0) + decays)
    step, first_rate = make_optimizer(optimizer)
    random = np.random.default_rng(seed)
    parameters = np.zeros((rows, rank + 1))
    curve = []
    for number in range(steps):
        if count > _BATCH:
            batch = random.choice(count, _BATCH, replace=False)
            some, offset, target = inputs[batch], start[batch], wanted[batch]
        else:
            some, offset, target = inputs, start, wanted
        difference = softmax(offset + some @ parameters.T) - target
        gradient = (difference.T @ some / len(some) + parameters * decays) * units
        rate = first_rate * 0.5 * (1 + np.cos(np.pi * number / STEPS))
        parameters = parameters + step(gradient, rate) * units
        if check and (number + 1) % _EVERY == 0:
            left_out = check[1] + check[0] @ parameters[:, :-1].T + parameters[:, -1]
            curve.append(cross_entropy(left_out, check[2]))
            if len(curve) - int(np.argmin(curve)) > _PATIENCE:
                # From its best the loss only rises: what the remaining steps would give is of no interest.
                return parameters[:, :-1], parameters[:, -1], curve + curve[-1:] * (steps // _EVERY - len(curve))
    return parameters[:, :-1], parameters[:, -1], curve


def cross_entropy(logits: np.ndarray, truth: np.ndarray) -> float:
    """Mean of -log p(true class); `truth` holds rows, int."""
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return float(np.mean(total - logits[np.arange(len(truth)), truth]))


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row at length one; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def imprint(embeddings: np.ndarray, truth: np.ndarray, rows: int, factor: float) -> Linear:
    """The head whose logits are `factor` times the cosine with each class's mean embedding.

    A division by the picture's own length would not change which class is best: the usual length stands in for it, so
    that the graph stays linear.
    """
    length = float(np.mean(np.linalg.norm(embeddings, axis=1))) or 1.0
    # Class by class: all unit vectors at once would be the largest array of a lesson.
    sums = [unit(embeddings[truth == row].astype(np.float64)).sum(axis=0) for row in range(rows)]
    prototypes = unit(np.stack(sums))
    return Linear(prototypes * (factor / length), np.zeros(rows))


def class_means(units: np.ndarray, truth: np.ndarray, rows: int) -> np.ndarray:
    """Mean of each class's rows of `units`, at length one."""
    return unit(class_sums(units, truth, rows))


def class_sums(units: np.ndarray, truth: np.ndarray, rows: int) -> np.ndarray:
    """Sum of each class's rows of `units` (zeros for a class without any)."""
    return np.stack([units[truth == row].sum(axis=0) for row in range(rows)])


def left_out_cosines(units: np.ndarray, truth: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(pictures, rows) cosines with the means of the others, and which pictures have others of their class."""
    sums = class_sums(units, truth, rows)
    cosines = units @ unit(sums).T
    own = sums[truth] - units
    several = np.bincount(truth, minlength=rows)[truth] > 1
    cosines[np.arange(len(units)), truth] = np.sum(unit(own) * units, axis=1)
    return cosines, several


def choose_factor(embeddings: np.ndarray, truth: np.ndarray, rows: int) -> float:
    """The factor under which pictures left out in turn are most likely; the usual one where too few can be left out.

    `embeddings` holds one a picture: variations of a picture would say that all is certain.
    """
    cosines, several = left_out_cosines(unit(embeddings.astype(np.float64)), truth, rows)
    if several.sum() < 2 * rows:
        return _USUAL
    return min(_FACTORS, key=lambda factor: cross_entropy(factor * cosines[several], truth[several]))
