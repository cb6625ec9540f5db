"""Heads in float: what is appended to a backbone, and what its integers are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass(frozen=True)
class Linear:
    """`weights` float64 (rows, size) on the real embedding, `bias` (rows,)."""

    weights: np.ndarray
    bias: np.ndarray

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Real values (pictures, rows) of `embeddings` (pictures, size)."""
        return embeddings @ self.weights.T + self.bias


@dataclass(frozen=True)
class ClassHead:
    """Logits of classes: `linear` in the embedding, plus `weights` (rows, size of the evidence) on the rectified
    `evidence` of length one, if there is any."""

    linear: Linear
    evidence: Optional[Linear] = None
    weights: Optional[np.ndarray] = None

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Real logits (pictures, rows) of `embeddings` (pictures, size)."""
        logits = self.linear(embeddings)
        return logits if self.weights is None else logits + unit_evidence(self.evidence, embeddings) @ self.weights.T


@dataclass(frozen=True)
class ValueHead:
    """A measured value: `linear` of one row in the embedding, or with `states` (one row over a map's channels) in the
    states of the map's cells."""

    linear: Linear
    states: Optional[Linear] = None

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Values (pictures, 1) of `embeddings` (pictures, size)."""
        return self.linear(embeddings if self.states is None else cell_states(self.states, embeddings))


def cell_states(states: Linear, embeddings: np.ndarray) -> np.ndarray:
    """From 0 to 1 for each cell of maps (pictures, cells times channels)."""
    cells = embeddings.reshape(len(embeddings), -1, states.weights.shape[1])
    return np.clip(cells @ states.weights[0].astype(np.float32) + np.float32(states.bias[0]), 0, 1)


def unit_evidence(evidence: Optional[Linear], embeddings: np.ndarray) -> np.ndarray:
    """Rectified evidence (None: the embedding itself) of length one; zeros stay zeros."""
    values = np.maximum(embeddings if evidence is None else evidence(embeddings), 0)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


@dataclass(frozen=True)
class Familiarity:
    """How near a picture is to what was taught: `evidence` (None: the embedding itself) rectified and brought to length
    one, then its largest product with one of `prototypes` (prototypes, size of the evidence)."""

    evidence: Optional[Linear]
    prototypes: np.ndarray

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Familiarity of each picture, 1 at most; below 0 the integer graph says 0."""
        return (unit_evidence(self.evidence, embeddings) @ self.prototypes.T).max(axis=1)


@dataclass(frozen=True)
class Unknown:
    """ "Unknown" wins where `familiarity` is below `threshold`, by `slope` logits for each 1.0 that it is below."""

    familiarity: Familiarity
    threshold: float
    slope: float
