"""What a class head reads and learns from, chosen for each lesson by repeated cross-validation.

Features: the embedding alone, or with it the evidence of the backbone's own classes, which knows the kinds of things
that photographs show, and nothing about printed digits or surfaces. Augmentation: all variations of a picture, or those
that are not mirrored.

The measure is ridge regression on one-hot answers, which needs only products between pictures: cheap enough for a small
board. The simpler choice stays unless the other one is at least as accurate and its squared error is less by more than
one standard error of the paired difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.builder.float_heads import ClassHead, Linear, unit_evidence
from edge_mnv2.teach.class_head import stratified_folds
from edge_mnv2.teach.linear_fit import gram

_REPEATS = 8
_DECAYS = 10.0 ** np.arange(-6, 1)
_USUAL_DECAY = 1e-3
_ROUNDING = 1e-6
_MOST_PICTURES = 300
"""Of more pictures so many decide: products between them grow with their square."""
_MOST_SAMPLES = 600


@dataclass(frozen=True)
class LeftOut:
    """Cross-validated results (pictures,): the share of right answers, the squared error; and the best weight decay."""

    right: np.ndarray
    square: np.ndarray
    decay: float

    def better_than(self, simpler: LeftOut) -> bool:
        """Whether this choice is worth more than a simpler one."""
        gain = simpler.square - self.square
        # What differs by rounding alone does not differ.
        margin = max(float(gain.std() / np.sqrt(len(gain))), _ROUNDING * float(simpler.square.mean()))
        return float(np.mean(self.right - simpler.right)) >= 0 and float(gain.mean()) > margin


def choose_features(
    blocks: Mapping[str, np.ndarray], candidates: Sequence[tuple[str, ...]], truth: np.ndarray, rows: int, seed: int = 0
) -> tuple[tuple[str, ...], float, dict[str, float]]:
    """Which of `candidates` to read, the simplest first; its best weight decay; the cross-validated accuracy of each.

    `blocks` are features by name (pictures, size); `truth` (pictures,) int. Without a class of two pictures there is
    nothing to choose by: the simplest.
    """
    some = _some(truth, _MOST_PICTURES, seed)
    truth = truth[some]
    folds = _splits(truth, _REPEATS, seed)
    if not folds:
        return candidates[0], _USUAL_DECAY, {}
    products = {name: _products(block[some]) for name, block in blocks.items()}
    picture = np.arange(len(truth))
    results = {
        names: left_out([products[name] for name in names], picture, truth, rows, folds, _DECAYS)
        for names in candidates
    }
    best = candidates[0]
    for names in candidates[1:]:
        if results[names].better_than(results[best]):
            best = names
    accuracy = {"+".join(names): round(float(result.right.mean()), 4) for names, result in results.items()}
    return best, results[best].decay, accuracy


def choose_samples(
    blocks: Sequence[np.ndarray],
    picture: np.ndarray,
    truth: np.ndarray,
    rows: int,
    mirrored: np.ndarray,
    decay: float = _USUAL_DECAY,
    seed: int = 0,
) -> np.ndarray:
    """Which samples to learn from (samples,) bool: all of them, or those that are not `mirrored`.

    `blocks` are the chosen features of all samples, `picture` (samples,) says which picture each is of, its own first;
    `decay` is the weight decay that was best for the features.
    """
    everything = np.ones(len(picture), bool)
    if not mirrored.any() or len(picture) > 4 * _MOST_SAMPLES:
        return everything
    some = np.flatnonzero(np.isin(picture, _some(truth, _MOST_SAMPLES * len(truth) // len(picture), seed)))
    _, renumbered = np.unique(picture[some], return_inverse=True)
    own_truth = truth[np.unique(picture[some])]
    folds = _splits(own_truth, 2, seed)
    if not folds:
        return everything
    products = [_products(block[some]) for block in blocks]
    plain = ~mirrored[some]
    results = []
    for used in (np.ones(len(some), bool), plain):
        parts = [whole[np.ix_(used, used)] for whole in products]
        results.append(left_out(parts, renumbered[used], own_truth, rows, folds, np.array([decay])))
    return ~mirrored if results[1].better_than(results[0]) else everything


def left_out(
    products: Sequence[np.ndarray],
    picture: np.ndarray,
    truth: np.ndarray,
    rows: int,
    folds: Sequence[np.ndarray],
    decays: np.ndarray,
) -> LeftOut:
    """Ridge regression on one-hot answers: every picture of each of `folds` by a model of the others.

    `products` (samples, samples), one matrix a block of features, are products between samples; each block is centred
    and brought to a mean squared length of 1 by the pictures that are learned from, and counts alike.
    """
    right, square = np.zeros((len(decays), len(truth))), np.zeros((len(decays), len(truth)))
    turns = np.zeros(len(truth))
    wanted = np.eye(rows)[truth]
    first = np.unique(picture, return_index=True)[1]
    for asked in folds:
        used = np.flatnonzero(~np.isin(picture, asked))
        rest = np.concatenate([used, first[asked]])
        kernel = np.mean([_centred(whole[np.ix_(rest, used)], len(used)) for whole in products], axis=0)
        answers = wanted[picture[used]]
        mean = answers.mean(axis=0)
        for place, coefficients in enumerate(_solutions(kernel[: len(used)], answers - mean, decays * len(used))):
            predicted = kernel[len(used) :] @ coefficients + mean
            right[place, asked] += predicted.argmax(axis=1) == truth[asked]
            square[place, asked] += np.sum((predicted - wanted[asked]) ** 2, axis=1)
        turns[asked] += 1
    asked = turns > 0
    right, square = right[:, asked] / turns[asked], square[:, asked] / turns[asked]
    best = int(square.mean(axis=1).argmin())
    return LeftOut(right[right.mean(axis=1).argmax()], square[best], float(decays[best]))


def _solutions(kernel: np.ndarray, answers: np.ndarray, decays: np.ndarray) -> Iterator[np.ndarray]:
    """(kernel + decay)^-1 answers for each of `decays`."""
    if len(decays) == 1:
        yield np.linalg.solve(kernel + decays[0] * np.eye(len(kernel)), answers)
        return
    squares, vectors = np.linalg.eigh(kernel)
    along = vectors.T @ answers
    for decay in decays:
        yield vectors @ (along / (np.maximum(squares, 0) + decay)[:, None])


def _centred(products: np.ndarray, count: int) -> np.ndarray:
    """Products (count + asked, count) after centring by the first `count` samples, with a mean square of 1."""
    columns = products[:count].mean(axis=0)
    centred = products - columns - products.mean(axis=1, keepdims=True) + columns.mean()
    return centred / (float(np.trace(centred[:count])) / count or 1.0)


def _products(block: np.ndarray) -> np.ndarray:
    # Centred before the product: what all pictures have in common would cost the digits of what they differ by.
    block = block - block.mean(axis=0)
    return gram(block).astype(np.float64)


def _splits(truth: np.ndarray, repeats: int, seed: int) -> list[np.ndarray]:
    return [
        fold for repeat in range(repeats) for fold in stratified_folds(truth, np.random.default_rng((seed, repeat)))
    ]


def _some(truth: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Places of at most `most` pictures, in turn of every class."""
    if len(truth) <= most:
        return np.arange(len(truth))
    order = np.random.default_rng(seed).permutation(len(truth))
    turn = np.zeros(len(truth), int)
    for row in np.unique(truth):
        members = order[truth[order] == row]
        turn[members] = np.arange(len(members))
    return np.sort(order[np.argsort(turn[order], kind="stable")[:most]])


@dataclass(frozen=True)
class HeadFeatures:
    """What a class head reads: the embedding, or with it the evidence, both of the same spread."""

    evidence: Optional[Linear]
    scales: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, embeddings: np.ndarray, evidence: Optional[Linear]) -> HeadFeatures:
        if evidence is None:
            return cls(None)
        blocks = embeddings, unit_evidence(evidence, embeddings)
        return cls(evidence, tuple(1 / (float(np.sqrt(np.sum(np.var(block, axis=0)))) or 1.0) for block in blocks))

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        if self.evidence is None:
            return embeddings
        size = embeddings.shape[1]
        features = np.empty((len(embeddings), size + len(self.evidence.bias)), np.float32)
        features[:, :size] = embeddings * self.scales[0]
        features[:, size:] = unit_evidence(self.evidence, embeddings) * self.scales[1]
        return features

    def blocks(self, features: np.ndarray) -> list[np.ndarray]:
        """The parts of `features` that were put side by side."""
        if self.evidence is None:
            return [features]
        return np.split(features, [self.evidence.weights.shape[1]], axis=1)

    def unfold(self, head: Linear) -> ClassHead:
        """A head on these features as one on the embedding and the evidence themselves."""
        if self.evidence is None:
            return ClassHead(head)
        size = self.evidence.weights.shape[1]
        plain = Linear(head.weights[:, :size] * self.scales[0], head.bias)
        return ClassHead(plain, self.evidence, head.weights[:, size:] * self.scales[1])
