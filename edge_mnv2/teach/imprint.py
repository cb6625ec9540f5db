"""Weight imprinting: a class's weights are the mean of its embeddings (Qi, Brown and Lowe, 2018)."""

from __future__ import annotations

import numpy as np

from edge_mnv2.builder.taught_head import Linear
from edge_mnv2.teach.losses import cross_entropy

_FACTORS = (5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0)
_USUAL = 20.0


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row at length one; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def imprint(embeddings: np.ndarray, truth: np.ndarray, rows: int, factor: float) -> Linear:
    """The head whose logits are `factor` times the cosine with each class's mean embedding.

    A division by the picture's own length would not change which class is best: the usual length stands in for it, so
    that the graph stays linear.
    """
    wide = embeddings.astype(np.float64)
    length = float(np.mean(np.linalg.norm(wide, axis=1))) or 1.0
    prototypes = class_means(unit(wide), truth, rows)
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
