"""Open-set recognition: how similar a picture must be to the taught ones to be called one of their classes.

What a picture is compared by is the evidence that the backbone's own classifier finds in it: of its many published
classes only those count that stand out by more than `_STANDS_OUT` standard deviations of its logits, and the vector of
these is brought to length one. Pictures of one kind light up the same few of them; noise and plain surfaces none that
was taught.

The similarity of a picture is that to the nearest of the taught ones, each of these drawn half way to the mean of its
class, less what it shows of the published classes that resemble nothing taught. What a picture of such a class looks
like follows from the classifier's own weights: at the end of training a class's mean embedding lies along its weights
(neural collapse; Papyan, Han and Donoho 2020). Where a person has named pictures of no class, each taught picture loses
what the most similar of these have in common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Optional

import numpy as np

from edge_mnv2.builder.backbone import Backbone
from edge_mnv2.builder.float_heads import Familiarity, Linear, Unknown, unit_evidence
from edge_mnv2.runtime.prediction import softmax
from edge_mnv2.teach.class_head import class_means, stratified_folds, unit
from edge_mnv2.teach.linear_fit import gram

KNOWN = 0.95
"""The share of new pictures of taught classes that shall stay known."""

REJECTED = 0.8
"""The share of pictures without any object that a rule must reject."""

_STANDS_OUT = 1.75
_LEAST_CLASSES = 100
"""A classifier with fewer classes tells too little of what else there is."""
_AWAY, _AWAY_OF_FEW = 0.65, 0.5
"""How much counts what speaks for classes that were not taught; less with fewer than `_SOME` pictures, for the usual
threshold is meant for that and nothing is measured."""
_LESS, _NEAREST = 0.75, 10.0
"""How much counts what is like pictures of no class, and how much more the most similar of these count."""
_UNRELATED = 0.5
"""A published class less similar than this begins to count among those."""
_STEEPNESS = 6.0
"""Logits by which "unknown" leads at similarity 0."""
_USUAL = {True: 0.02, False: 0.5}
"""Threshold by evidence and by embedding with next to no pictures to measure it."""
_LEAST = 0.12
"""Below this lies what shows next to nothing of the taught classes, whatever a few odd pictures would ask for."""
_SOME, _ENOUGH = 8, 20
"""With fewer than `_SOME` pictures the threshold is mostly the usual one, as if it took `_ENOUGH` to measure it."""
_LEAST_STRANGERS = 3
"""With fewer classes, one left out leaves too little to be a stranger to."""
_CURVE = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)
_MOST = 600
"""So many pictures and variations are compared with: each is a row of the model's last layer."""
_FOLDS, _REPEATS = 10, 4
_LEAST_IN_CLASS = 5
_SPREAD, _SPREAD_PICTURES = 0.1, 35
"""The usual standard deviation of similarities, and what it counts for, in pictures: few say little about theirs."""
MOST_LOST, _ERRORS = 2.0, 4.3
"""So many times as many pictures as meant may lie below the threshold, were it off by so many standard errors. 2.33
would do for 99 %, were the pictures of a lesson independent."""

_SIDE = 224
_GRAINS = (1, 4, 16, 56)
_GREYS = (0, 60, 128, 200, 255)


@dataclass(frozen=True)
class Calibrated:
    """The rule for "unknown", and what it was set by.

    `known` are similarities of taught pictures to models without them, `strangers` those of every class to models that
    were never taught this class; both (pictures,), empty if there are too few to leave out. `usual` is the threshold
    without any pictures to measure it, `least` the lowest that is set.
    """

    rule: Unknown
    known: np.ndarray
    strangers: np.ndarray
    usual: float
    least: float

    def curve(self) -> list[tuple[float, float, Optional[float]]]:
        """(share of known pictures that stay known, threshold, share of strangers that are rejected or None).

        It ends at the lowest threshold that is set: a larger share cannot be had.
        """
        points: list[tuple[float, float, Optional[float]]] = []
        for share in _CURVE if len(self.known) else ():
            threshold = _threshold(self.known, share, self.usual, self.least)
            if len(points) > 1 and threshold >= points[-1][1]:
                break
            rejected_share = float(np.mean(self.strangers < threshold)) if len(self.strangers) else None
            points.append((share, threshold, rejected_share))
        return points


def calibrate(
    embeddings: np.ndarray,
    picture: np.ndarray,
    truth: np.ndarray,
    rows: int,
    negatives: np.ndarray,
    evidence: Optional[Linear],
    known: float = KNOWN,
    others: Optional[np.ndarray] = None,
) -> Calibrated:
    """The rule for "unknown" from the taught `embeddings` (samples, size).

    `picture` (samples,) says which picture each is of, its own first and then its variations, `truth` (samples,) int
    its class. `negatives` are embeddings of pictures without any object: if the published classifier takes many of them
    for something taught (it may know birds only), the embeddings themselves are compared, if that is better. `known` is
    the share of new pictures of the taught classes that shall stay known. `others` are embeddings of pictures of which
    a person said that they show none of the classes.
    """
    some = _some(picture, truth)
    compared = embeddings[some], picture[some], truth[some], rows, known, others
    by_evidence = _calibrated(evidence, *compared)
    if evidence is None or (share := rejected(by_evidence.rule, negatives)) >= REJECTED:
        return by_evidence
    by_embedding = _calibrated(None, *compared)
    return by_embedding if rejected(by_embedding.rule, negatives) > share else by_evidence


def _calibrated(
    evidence: Optional[Linear],
    embeddings: np.ndarray,
    picture: np.ndarray,
    truth: np.ndarray,
    rows: int,
    known: float,
    others: Optional[np.ndarray],
) -> Calibrated:
    taught = _Taught(evidence, embeddings, picture, truth, rows, others)
    similarities = taught.left_out()
    lower = 0.0
    if others is not None and len(similarities):
        # What is like pictures of no class counts less; known pictures lose a little by it too.
        without = _Taught(evidence, embeddings, picture, truth, rows).left_out()
        lower = max(0.0, float(np.mean(without) - np.mean(similarities)))
    usual, least = _USUAL[evidence is not None], _LEAST
    usual, least = max(usual - lower, usual / 2), max(least - lower, least / 4)
    threshold = _threshold(similarities, known, usual, least)
    rule = Unknown(Familiarity(evidence, taught.prototypes()), threshold, _STEEPNESS / threshold)
    return Calibrated(rule, similarities, taught.left_out_classes(), usual, least)


def rejected(rule: Unknown, embeddings: np.ndarray) -> float:
    """The share of `embeddings` that `rule` calls unknown."""
    return float(np.mean(rule.familiarity(embeddings) < rule.threshold))


def _some(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Places to compare with: all samples, or the pictures without variations, or as many of each class of those."""
    if len(picture) <= _MOST:
        return np.arange(len(picture))
    own = np.unique(picture, return_index=True)[1]
    turn = np.zeros(len(own), int)
    for row in np.unique(truth[own]):
        members = np.flatnonzero(truth[own] == row)
        turn[members] = np.arange(len(members))
    return np.sort(own[np.argsort(turn, kind="stable")[:_MOST]])


def evidence_of(backbone: Backbone, embeddings: np.ndarray) -> Optional[Linear]:
    """How far the backbone's own classes stand out, from the taught `embeddings`; None if it has too few classes."""
    classes = backbone.classes
    if classes is None or len(classes.bias) < _LEAST_CLASSES:
        return None
    weights = classes.weights - classes.weights.mean(axis=0)
    bias = classes.bias - classes.bias.mean()
    spread = float(np.mean(np.std(embeddings @ weights.T + bias, axis=1)))
    return Linear(weights, bias - _STANDS_OUT * spread)


def _typical(evidence: Optional[Linear]) -> Optional[np.ndarray]:
    """What a picture of each published class looks like (classes, classes), by the classifier's weights alone."""
    if evidence is None:
        return None
    weights = evidence.weights.astype(np.float32)
    logits = gram(weights)
    return unit(np.maximum(logits / logits.std(axis=1, keepdims=True) - _STANDS_OUT, 0))


class _Taught:
    """The taught samples as unit vectors of evidence, and their products, which every leaving out needs again."""

    def __init__(
        self,
        evidence: Optional[Linear],
        embeddings: np.ndarray,
        picture: np.ndarray,
        truth: np.ndarray,
        rows: int,
        others: Optional[np.ndarray] = None,
    ) -> None:
        self._units = unit_evidence(evidence, embeddings).astype(np.float32)
        self._picture, self._truth, self._rows = picture, truth, rows
        self._own = np.unique(picture, return_index=True)[1]
        self._products = gram(self._units)
        self._away = _AWAY if len(self._own) >= _SOME else _AWAY_OF_FEW
        self._typical = _typical(evidence)
        self._near = None if self._typical is None else self._typical @ self._units.T
        self._others = self._like(others, evidence)
        self._to_others = self._units @ self._others.T

    def _like(self, others: Optional[np.ndarray], evidence: Optional[Linear]) -> np.ndarray:
        """For each sample what the `others` that are most like it have in common, (samples, size of the evidence)."""
        if others is None:
            return np.zeros_like(self._units)
        units = unit_evidence(evidence, others).astype(np.float32)
        return _LESS * softmax(_NEAREST * (self._units @ units.T)) @ units

    def prototypes(self) -> np.ndarray:
        """(samples, size of the evidence): the largest product with one of them is a picture's similarity."""
        means, away = self._fit(np.arange(len(self._units)))
        return ((self._units + means[self._truth]) / 2 - self._others - away).astype(np.float64)

    def left_out(self) -> np.ndarray:
        """Similarities of pictures to models without them, by repeated splits.

        Of classes with several pictures; classes of at least `_LEAST_IN_CLASS` alone, if they have most of the
        pictures: what is left of a smaller one says little about it.
        """
        truth = self._truth[self._own]
        counts = np.bincount(truth)[truth]
        enough = counts >= _LEAST_IN_CLASS
        large = enough if 2 * np.sum(enough) >= len(truth) else counts > 0
        parts = []
        for repeat in range(_REPEATS):
            for fold in stratified_folds(truth, np.random.default_rng(repeat), _FOLDS):
                asked = self._own[fold[large[fold]]]
                if len(asked):
                    parts.append(self._similarities(asked, ~np.isin(self._picture, self._picture[asked])))
        return np.concatenate(parts) if parts else np.zeros(0)

    def left_out_classes(self) -> np.ndarray:
        """Similarities of the pictures of each class to a model that was never taught it: strangers."""
        truth = self._truth[self._own]
        if self._rows < _LEAST_STRANGERS:
            return np.zeros(0)
        return np.concatenate(
            [self._similarities(self._own[truth == row], self._truth != row) for row in np.unique(truth)]
        )

    def _similarities(self, asked: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Of the samples `asked` to a model of the samples `used` (a mask)."""
        places = np.flatnonzero(used)
        means, away = self._fit(places)
        to_means = self._units[asked] @ means.T
        products = (self._products[np.ix_(asked, places)] + to_means[:, self._truth[places]]) / 2
        return (products - self._to_others[np.ix_(asked, places)]).max(axis=1) - self._units[asked] @ away

    def _fit(self, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of some samples: the class means (rows, size), and the direction (size,) of what was not taught."""
        truth = self._truth[used]
        means = class_means(self._units[used], truth, self._rows)
        if self._typical is None or self._near is None:
            return means, np.zeros(self._units.shape[1], np.float32)
        to_means = self._typical @ means.T
        familiar = ((self._near[:, used] + to_means[:, truth]) / 2).max(axis=1)
        unrelated = np.clip(1 - familiar / _UNRELATED, 0, 1)
        return means, self._away * unit(unrelated @ self._typical)


def _threshold(similarities: np.ndarray, known: float, usual: float, least: float = _LEAST) -> float:
    """What `known` of new pictures reach in the mean, and with few pictures so much less that hardly ever more than
    twice the others do not (a tolerance limit; Wilks 1941).

    The lowest of few pictures say little about what lies below them; mean and spread of all say more. 1 - similarity
    is a distance, and taken as gamma-distributed; its spread is drawn to the usual one. With next to no pictures the
    `usual` threshold counts. `least` is the lowest value of one that is measured.
    """
    if len(similarities) == 0:
        return usual
    pictures = max(1, round(len(similarities) / _REPEATS))
    distances = 1 - similarities
    mean, both = float(distances.mean()), pictures + _SPREAD_PICTURES
    spread = math.sqrt((pictures * float(distances.var()) + _SPREAD_PICTURES * _SPREAD**2) / both)
    shape = max((mean / spread) ** 2, 0.1)
    limit = _gamma_quantile(known, shape)
    if (most := 1 - MOST_LOST * (1 - known)) > 0:
        far = _gamma_quantile(most, shape)
        limit = max(limit, far + _ERRORS * math.sqrt((1 + max(far, 0) ** 2 / 2) / pictures))
    measured = max(1 - mean - limit * spread, least)
    weight = 1.0 if pictures >= _SOME else (pictures / _ENOUGH) ** 2
    return weight * measured + (1 - weight) * min(measured, usual)


def _gamma_quantile(share: float, shape: float) -> float:
    """In standard deviations from the mean; the cube root is nearly normal (Wilson and Hilferty 1931)."""
    root = 1 - 1 / (9 * shape) + NormalDist().inv_cdf(share) / (3 * math.sqrt(shape))
    return math.sqrt(shape) * (max(root, 0.0) ** 3 - 1)


def negative_pictures(seed: int = 0) -> list[np.ndarray]:
    """RGB uint8 224x224x3: noise in grains of 1 to 56 pixels, a dark sensor's noise, plain grey, a gradient."""
    random = np.random.default_rng(seed)
    shown = [noise(random, grain) for grain in _GRAINS]
    shown.append(random.integers(0, 6, (_SIDE, _SIDE, 3), dtype=np.uint8))
    shown += [np.full((_SIDE, _SIDE, 3), grey, np.uint8) for grey in _GREYS]
    ramp = np.linspace(0, 255, _SIDE).astype(np.uint8)
    shown.append(np.repeat(np.tile(ramp, (_SIDE, 1))[:, :, np.newaxis], 3, axis=2))
    return shown


def noise(random: np.random.Generator, grain: int, height: int = _SIDE, width: int = _SIDE) -> np.ndarray:
    """RGB uint8 of about that size: squares of `grain` pixels, each of a colour of its own."""
    grains = random.integers(0, 256, (height // grain, width // grain, 3), dtype=np.uint8)
    return np.kron(grains, np.ones((grain, grain, 1), np.uint8))
