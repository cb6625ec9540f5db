"""Linear regression with mean squared error and weight decay: in closed form, or by one of the gradient methods."""

from __future__ import annotations

import numpy as np

from edge_mnv2.build.head import Linear
from edge_mnv2.teach.features import Features
from edge_mnv2.teach.optimizers import make

_DECAYS = tuple(10.0**power for power in np.arange(-6, 0.01, 0.5))
STEPS = 300


def fit(embeddings: np.ndarray, values: np.ndarray, decay: float, *, optimizer: str = "closed") -> Linear:
    """The head of one row that gives `values` (pictures,) for `embeddings` (pictures, size).

    It minimizes mean (f(x) - value)^2 + decay * |w|^2, with embeddings centred and scaled as in `Features`.
    """
    features = Features.of(embeddings)
    inputs, mean = features.values, float(values.mean())
    squares = np.mean(inputs**2, axis=0)
    slopes = inputs.T @ (values - mean) / len(values)
    # The columns are uncorrelated: the normal equations are one division each.
    weights = slopes / (squares + decay)
    if optimizer != "closed":
        weights = _descend(squares, slopes, decay, optimizer)
    return features.unfold(weights[np.newaxis], np.array([mean]))


def choose_decay(embeddings: np.ndarray, values: np.ndarray) -> float:
    """The weight decay with the least squared error on pictures left out one at a time, in closed form.

    (Allen's PRESS: the error of a picture left out is its residual divided by 1 - leverage.)
    """
    inputs = Features.of(embeddings).values
    squares = np.mean(inputs**2, axis=0)
    centred = values - values.mean()
    count = len(values)
    errors = []
    for decay in _DECAYS:
        shrunk = inputs / (squares + decay)
        leverage = np.sum(inputs * shrunk, axis=1) / count + 1 / count
        residual = centred - shrunk @ (inputs.T @ centred) / count
        errors.append(float(np.mean((residual / np.maximum(1 - leverage, 1e-6)) ** 2)))
    return _DECAYS[int(np.argmin(errors))]


def _descend(squares: np.ndarray, slopes: np.ndarray, decay: float, optimizer: str) -> np.ndarray:
    """The same minimum by steps, in units in which the second derivative is 1 everywhere."""
    units = 1 / np.sqrt(squares + decay)
    size = float(np.linalg.norm(slopes * units)) or 1.0
    step, first_rate = make(optimizer)
    weights = np.zeros_like(slopes)
    for number in range(STEPS):
        gradient = ((squares + decay) * weights - slopes) * units / size
        rate = first_rate * 0.5 * (1 + np.cos(np.pi * number / STEPS))
        weights = weights + step(gradient, rate) * units * size
    return weights
