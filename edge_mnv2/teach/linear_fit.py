"""What every small fit of a head uses: features that a linear model is easily fitted to, and gradient methods."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edge_mnv2.builder.float_heads import Linear
from edge_mnv2.errors import UsageError

_EPSILON = 1e-8
_PART = 512
"""Columns that are worked on at a time where memory counts."""


def gram(rows: np.ndarray) -> np.ndarray:
    """`rows` @ `rows`.T of float32 (count, size): (count, count).

    numpy leaves the product of a matrix with its own transpose to BLAS's `syrk`. OpenBLAS computes that wrongly in
    float32 on Arm processors with SME or long vectors (OpenMathLib/OpenBLAS#5873); a copy makes it a general product.
    """
    return rows @ (np.array(rows) if platform.machine() == "aarch64" else rows).T


@dataclass(frozen=True)
class Features:
    """Embeddings centred, of one size, and in no more dimensions than there are pictures.

    `values` float64 (pictures, rank): the embeddings after centring and scaling, along their principal axes.

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
        center = embeddings.mean(axis=0, dtype=np.float64)
        # One scale for all channels: those that hardly move would be blown up, and with them the steps of the integers.
        centred = embeddings - center
        scale = float(np.sqrt(np.mean(np.einsum("ij,ij->i", centred, centred)))) or 1.0
        centred /= scale
        # Pictures span no more dimensions than there are of them, and an optimum with weight decay lies in their span.
        few = len(centred) < centred.shape[1]
        squares, vectors = np.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
        used = squares > squares[-1] * 1e-10
        vectors, lengths = vectors[:, used], np.sqrt(squares[used])
        if not few:
            return cls(centred @ vectors, center, scale, vectors)
        # The basis takes the place of the pictures, part by part: both together would be a lesson's largest arrays.
        for start in range(0, centred.shape[1], _PART):
            part = slice(start, start + _PART)
            centred[: len(lengths), part] = (vectors / lengths).T @ centred[:, part]
        return cls(vectors * lengths, center, scale, centred[: len(lengths)].T)

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Other `embeddings` in the same terms."""
        return ((embeddings - self.center) / self.scale) @ self.basis

    def unfold(self, weights: np.ndarray, bias: np.ndarray) -> Linear:
        """A linear model on `values` (`weights` (rows, rank)) as one on the embedding itself."""
        wide = (weights @ self.basis.T) / self.scale
        return Linear(wide, bias - wide @ self.center)


class Optimizer(Protocol):
    """One step: what to add to the parameters for a gradient of the same shape, float64."""

    def __call__(self, gradient: np.ndarray, rate: float) -> np.ndarray: ...


def _sgd() -> Optimizer:
    """Plain gradient descent: -rate * g."""
    return lambda gradient, rate: -rate * gradient


def _momentum(decay: float = 0.9) -> Optimizer:
    """Heavy ball (Polyak, 1964): v = decay * v - rate * g."""
    velocity: Any = 0.0

    def step(gradient: np.ndarray, rate: float) -> np.ndarray:
        nonlocal velocity
        velocity = decay * velocity - rate * gradient
        return velocity

    return step


def _adagrad() -> Optimizer:
    """-rate * g / sqrt(sum of g^2) (Duchi, Hazan and Singer, 2011)."""
    total: Any = 0.0

    def step(gradient: np.ndarray, rate: float) -> np.ndarray:
        nonlocal total
        total = total + gradient**2
        return -rate * gradient / (np.sqrt(total) + _EPSILON)

    return step


def _rmsprop(decay: float = 0.9) -> Optimizer:
    """-rate * g / sqrt(running mean of g^2) (Tieleman and Hinton, 2012)."""
    mean: Any = 0.0

    def step(gradient: np.ndarray, rate: float) -> np.ndarray:
        nonlocal mean
        mean = decay * mean + (1 - decay) * gradient**2
        return -rate * gradient / (np.sqrt(mean) + _EPSILON)

    return step


def _adam(first: float = 0.9, second: float = 0.999) -> Optimizer:
    """Both moments with bias correction (Kingma and Ba, 2015, algorithm 1)."""
    mean: Any = 0.0
    square: Any = 0.0
    steps = 0

    def step(gradient: np.ndarray, rate: float) -> np.ndarray:
        nonlocal mean, square, steps
        steps += 1
        mean = first * mean + (1 - first) * gradient
        square = second * square + (1 - second) * gradient**2
        return -rate * (mean / (1 - first**steps)) / (np.sqrt(square / (1 - second**steps)) + _EPSILON)

    return step


_OPTIMIZERS: dict[str, tuple[Callable[[], Optimizer], float]] = {
    "sgd": (_sgd, 1.0),
    "momentum": (_momentum, 0.1),
    "adagrad": (_adagrad, 0.5),
    "rmsprop": (_rmsprop, 0.05),
    "adam": (_adam, 0.1),
}
"""Name → what makes it, and its first rate if no second derivative is above 1."""

OPTIMIZERS = tuple(_OPTIMIZERS)


def make_optimizer(name: str) -> tuple[Optimizer, float]:
    """The optimizer `name` and its first rate. Raises UsageError for an unknown name."""
    if name not in _OPTIMIZERS:
        raise UsageError(f"--optimizer {name}", hint=f"one of {', '.join(('closed', *OPTIMIZERS))}")
    make, rate = _OPTIMIZERS[name]
    return make(), rate
