"""Gradient methods for the small problems of a head: a few thousand numbers, on a small board."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from edge_mnv2.errors import UsageError


class Optimizer(Protocol):
    """One step: what to add to the parameters for a gradient of the same shape, float64."""

    def __call__(self, gradient: np.ndarray, rate: float) -> np.ndarray: ...


class Sgd:
    """Plain gradient descent: -rate * g."""

    def __call__(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        return -rate * gradient


class Momentum:
    """Heavy ball (Polyak, 1964): v = decay * v - rate * g."""

    def __init__(self, decay: float = 0.9) -> None:
        self._decay = decay
        self._velocity: np.ndarray = np.zeros(1)

    def __call__(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        self._velocity = self._decay * self._velocity - rate * gradient
        return self._velocity


class AdaGrad:
    """-rate * g / sqrt(sum of g^2) (Duchi, Hazan and Singer, 2011)."""

    def __init__(self) -> None:
        self._sum: np.ndarray = np.zeros(1)

    def __call__(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        self._sum = self._sum + gradient**2
        return -rate * gradient / (np.sqrt(self._sum) + 1e-8)


class RmsProp:
    """-rate * g / sqrt(running mean of g^2) (Tieleman and Hinton, 2012)."""

    def __init__(self, decay: float = 0.9) -> None:
        self._decay = decay
        self._mean: np.ndarray = np.zeros(1)

    def __call__(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        self._mean = self._decay * self._mean + (1 - self._decay) * gradient**2
        return -rate * gradient / (np.sqrt(self._mean) + 1e-8)


class Adam:
    """Both moments with bias correction (Kingma and Ba, 2015, algorithm 1)."""

    def __init__(self, first: float = 0.9, second: float = 0.999) -> None:
        self._decays = first, second
        self._first: np.ndarray = np.zeros(1)
        self._second: np.ndarray = np.zeros(1)
        self._steps = 0

    def __call__(self, gradient: np.ndarray, rate: float) -> np.ndarray:
        first, second = self._decays
        self._steps += 1
        self._first = first * self._first + (1 - first) * gradient
        self._second = second * self._second + (1 - second) * gradient**2
        mean = self._first / (1 - first**self._steps)
        spread = np.sqrt(self._second / (1 - second**self._steps))
        return -rate * mean / (spread + 1e-8)


_MADE: dict[str, tuple[Callable[[], Optimizer], float]] = {
    "sgd": (Sgd, 1.0),
    "momentum": (Momentum, 0.1),
    "adagrad": (AdaGrad, 0.5),
    "rmsprop": (RmsProp, 0.05),
    "adam": (Adam, 0.1),
}
"""Name → what makes it, and its first rate where no second derivative is above 1."""

OPTIMIZERS = tuple(_MADE)


def make(name: str) -> tuple[Optimizer, float]:
    """The optimizer `name` and its first rate. Raises UsageError for an unknown name."""
    if name not in _MADE:
        raise UsageError(f"--optimizer {name}", hint=f"one of {', '.join(('closed', *OPTIMIZERS))}")
    factory, rate = _MADE[name]
    return factory(), rate
