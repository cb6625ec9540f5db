"""Open-set recognition: how similar a picture must be to the taught ones to be called one of their classes.

What a picture is compared by is the evidence that the backbone's own classifier finds in it: of its many published
classes only those count that stand out by more than `_STANDS_OUT` standard deviations of its logits, and the vector of
these is brought to length one. Pictures of one kind light up the same few of them; noise and plain surfaces none that
was taught.

A picture is as familiar as the nearest of the taught ones, each of these drawn half way to the mean of its class, less
what it shows of the published classes that resemble nothing taught. What a picture of such a class looks like follows
from the classifier's own weights: at the end of training a class's mean embedding lies along its weights (neural
collapse; Papyan, Han and Donoho 2020).
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from edge_mnv2.builder.backbone import Backbone
from edge_mnv2.builder.taught_head import Familiarity, Linear, Unknown, unit_evidence
from edge_mnv2.teach.class_head import class_means, unit

RECALL = 0.965
"""The share of taught pictures, left out in turn, that must stay known. Of new ones it is then about 0.95: what is
chosen by these pictures suits them better than others."""

REJECTED = 0.8
"""The share of pictures that show nothing which a rule must call unknown."""

_STANDS_OUT = 1.75
_LEAST_CLASSES = 100
"""A classifier with fewer classes tells too little of what else there is."""
_AWAY = 0.5
"""How much counts what speaks for classes that were not taught."""
_UNRELATED = 0.25
"""A published class less familiar than this begins to count among those."""
_STEEPNESS = 6.0
"""Logits by which "unknown" leads where nothing taught is seen at all."""
_USUAL = {True: 0.02, False: 0.5}
"""Threshold by evidence and by embedding where there are too few pictures to measure it."""
_LEAST = 0.08
"""Below this lies what shows next to nothing of the taught classes, whatever a few odd pictures would ask for."""
_ENOUGH = 20
_MOST = 600
"""So many pictures and variations are compared with: each is a row of the model's last layer."""
_TURNS = 20

_SIDE = 224
_GRAINS = (1, 4, 16, 56)
_GREYS = (0, 60, 128, 200, 255)


def calibrate(
    embeddings: np.ndarray,
    picture: np.ndarray,
    truth: np.ndarray,
    rows: int,
    negatives: np.ndarray,
    evidence: Optional[Linear],
) -> Unknown:
    """The rule for "unknown" from the taught `embeddings` (samples, size).

    `picture` (samples,) says which picture each is of, its own first and then its variations, `truth` (samples,) int
    its class. `negatives` are embeddings of pictures without any object: if the published classifier takes many of them
    for something taught (it may know birds only), the embeddings themselves are compared, if that is better.
    """
    some = _some(picture, truth)
    compared = embeddings[some], picture[some], truth[some], rows
    rule = _rule(evidence, *compared)
    if evidence is None or (share := rejected(rule, negatives)) >= REJECTED:
        return rule
    by_embedding = _rule(None, *compared)
    return by_embedding if rejected(by_embedding, negatives) > share else rule


def _rule(
    evidence: Optional[Linear], embeddings: np.ndarray, picture: np.ndarray, truth: np.ndarray, rows: int
) -> Unknown:
    shown = _Shown(Familiarity(evidence, np.zeros((1, 1))), embeddings, picture, truth, rows)
    threshold = _threshold(shown.left_out(), _USUAL[evidence is not None])
    return Unknown(Familiarity(evidence, shown.prototypes()), threshold, _STEEPNESS / threshold)


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
    logits = weights @ weights.T
    return unit(np.maximum(logits / logits.std(axis=1, keepdims=True) - _STANDS_OUT, 0))


class _Shown:
    """The taught samples as unit vectors of evidence, and the products of these that every leaving out needs again."""

    def __init__(
        self, description: Familiarity, embeddings: np.ndarray, picture: np.ndarray, truth: np.ndarray, rows: int
    ) -> None:
        self._units = unit_evidence(description.evidence, embeddings).astype(np.float32)
        self._picture, self._truth, self._rows = picture, truth, rows
        self._typical = _typical(description.evidence)
        self._near = None if self._typical is None else self._typical @ self._units.T

    def prototypes(self) -> np.ndarray:
        """(samples, size of the evidence): the largest product with one of them is a picture's familiarity."""
        means, away = self._fit(np.arange(len(self._units)))
        return ((self._units + means[self._truth]) / 2 - away).astype(np.float64)

    def left_out(self) -> np.ndarray:
        """Familiarity of each picture by the others, where its class has some; left out in `_TURNS` turns."""
        own = np.unique(self._picture, return_index=True)[1]
        own = own[np.argsort(self._truth[own], kind="stable")]
        gram = self._units @ self._units.T
        parts = []
        for turn in range(min(_TURNS, len(own))):
            asked = own[turn::_TURNS]
            used = np.flatnonzero(~np.isin(self._picture, self._picture[asked]))
            asked = asked[np.isin(self._truth[asked], self._truth[used])]
            if not len(asked):
                continue
            means, away = self._fit(used)
            to_means = self._units[asked] @ means.T
            products = (gram[np.ix_(asked, used)] + to_means[:, self._truth[used]]) / 2
            parts.append(products.max(axis=1) - self._units[asked] @ away)
        return np.concatenate(parts) if parts else np.zeros(0)

    def _fit(self, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of some samples: the class means (rows, size), and the direction (size,) of what was not taught."""
        truth = self._truth[used]
        means = class_means(self._units[used], truth, self._rows)
        if self._typical is None or self._near is None:
            return means, np.zeros(self._units.shape[1], np.float32)
        to_means = self._typical @ means.T
        familiar = ((self._near[:, used] + to_means[:, truth]) / 2).max(axis=1)
        unrelated = np.clip(1 - familiar / _UNRELATED, 0, 1)
        return means, _AWAY * unit(unrelated @ self._typical)


def _threshold(familiarity: np.ndarray, usual: float) -> float:
    """The quantile that keeps `RECALL`; the fewer pictures, the more the usual threshold counts."""
    if len(familiarity) == 0:
        return usual
    measured = max(float(np.quantile(familiarity, 1 - RECALL)), _LEAST)
    weight = min(1.0, (len(familiarity) / _ENOUGH) ** 2)
    return weight * measured + (1 - weight) * min(measured, usual)


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
