"""Embeddings as a linear model likes them: centred, of one size, and in no more dimensions than there are pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_mnv2.builder.taught_head import Linear


@dataclass(frozen=True)
class Features:
    """`values` float64 (pictures, rank): the embeddings after centring and scaling, along their principal axes.

    Columns are uncorrelated, and the mean squared length of a row is 1: a weight decay means the same for every
    backbone.
    """

    values: np.ndarray
    center: np.ndarray
    scale: float
    basis: np.ndarray

    @classmethod
    def of(cls, embeddings: np.ndarray) -> Features:
        """Learn centre, scale and basis from `embeddings` (pictures, size)."""
        wide = embeddings.astype(np.float64)
        center = wide.mean(axis=0)
        # One scale for all channels: those that hardly move would be blown up, and with them the steps of the integers.
        scale = float(np.sqrt(np.mean(np.sum((wide - center) ** 2, axis=1)))) or 1.0
        centred = (wide - center) / scale
        # Pictures span no more dimensions than there are of them, and an optimum with weight decay lies in their span.
        few = len(centred) < centred.shape[1]
        squares, vectors = np.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
        kept = squares > squares[-1] * 1e-10
        basis = centred.T @ (vectors[:, kept] / np.sqrt(squares[kept])) if few else vectors[:, kept]
        return cls(centred @ basis, center, scale, basis)

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Other `embeddings` in the same terms."""
        return ((embeddings - self.center) / self.scale) @ self.basis

    def unfold(self, weights: np.ndarray, bias: np.ndarray) -> Linear:
        """A linear model on `values` (`weights` (rows, rank)) as one on the embedding itself."""
        wide = (weights @ self.basis.T) / self.scale
        return Linear(wide, bias - wide @ self.center)
