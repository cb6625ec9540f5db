"""Linear regression with mean squared error and weight decay: in closed form, or by one of the gradient methods.

A map has ten thousands of values, most of which show the background and not what is measured. Each is therefore
weighted by a power of its correlation with the value before the regression (screening; Fan and Lv, 2008), so that it is
cheap to use what follows the value and dear to use what does not. Which layer to read, that power and the weight decay
are those with the least error on pictures left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_mnv2.build.head import Linear
from edge_mnv2.teach.embedding import Layer
from edge_mnv2.teach.features import Features
from edge_mnv2.teach.optimizers import make

STEPS = 300
_DECAYS = 10.0 ** np.arange(-6, 0.01, 0.5)
_POWERS = (0, 1, 2, 3, 4)
_FOLDS = 5
_MOST_NUMBERS = 12_000_000
"""Layers with more values over all pictures are left out: a small board has little memory."""


@dataclass(frozen=True)
class Choice:
    """The layer to read, the power of the screening, the weight decay, and the RMSE that was measured with them."""

    layer: Layer
    power: int
    decay: float
    error: float


def choose(layers: Sequence[Layer], codes: np.ndarray, values: np.ndarray) -> Choice:
    """The choice with the least squared error on folds left out in turn.

    `codes` (pictures, all layers) are those of the pictures as they are, with their `values`.
    """
    fitting = [layer for layer in layers if layer.size * len(codes) <= _MOST_NUMBERS] or list(layers[-1:])
    order = np.argsort(values, kind="stable")
    # Neighbours in value go to different folds, so that each fold covers the range.
    folds = [order[number::_FOLDS] for number in range(min(_FOLDS, len(order)))]
    found = []
    for layer in fitting:
        inputs = layer.real(codes)
        for power in _POWERS:
            errors = np.zeros(len(_DECAYS))
            for left_out in folds:
                errors += _left_out_errors(inputs, values, left_out, power)
            place = int(np.argmin(errors))
            error = float(np.sqrt(errors[place] / len(values)))
            found.append(Choice(layer, power, float(_DECAYS[place]), error))
    return min(found, key=lambda choice: choice.error)


def fit(embeddings: np.ndarray, values: np.ndarray, choice: Choice, *, optimizer: str = "closed") -> Linear:
    """The head of one row that gives `values` (pictures,) for `embeddings` (pictures, size).

    It minimizes mean (f(x) - value)^2 + decay * |w|^2, with screened embeddings centred and scaled as in `Features`.
    """
    weight = _screen(embeddings, values, choice.power)
    features = Features.of(embeddings * weight)
    inputs, mean = features.values, float(values.mean())
    squares = np.mean(inputs**2, axis=0)
    slopes = inputs.T @ (values - mean) / len(values)
    # The columns are uncorrelated: the normal equations are one division each.
    weights = slopes / (squares + choice.decay)
    if optimizer != "closed":
        weights = _descend(squares, slopes, choice.decay, optimizer)
    screened = features.unfold(weights[np.newaxis], np.array([mean]))
    return Linear(screened.weights * weight, screened.bias)


def _screen(embeddings: np.ndarray, values: np.ndarray, power: int) -> np.ndarray:
    """|correlation with the value| to the `power` of each of the embedding's values, the largest 1."""
    if power == 0:
        return np.ones(embeddings.shape[1], np.float32)
    centred = embeddings - embeddings.mean(axis=0)
    aims = (values - values.mean()).astype(np.float32)
    length = np.sqrt(np.sum(centred**2, axis=0)) * float(np.linalg.norm(aims))
    correlation = np.abs(aims @ centred) / np.maximum(length, 1e-9)
    return (correlation / max(float(correlation.max()), 1e-9)) ** power


def _left_out_errors(inputs: np.ndarray, values: np.ndarray, left_out: np.ndarray, power: int) -> np.ndarray:
    """Sum of squared errors on `left_out` for each of `_DECAYS`, taught with the others."""
    taught = np.setdiff1d(np.arange(len(values)), left_out)
    weighted = inputs * _screen(inputs[taught], values[taught], power)
    weighted = weighted - weighted[taught].mean(axis=0)
    # Between pictures only products matter: the regression is solved in as many dimensions as there are pictures.
    products = (weighted @ weighted[taught].T).astype(np.float64)
    own = products[taught]
    own /= np.trace(own)
    products = products[left_out] / np.trace(products[taught])
    squares, vectors = np.linalg.eigh(own)
    mean = values[taught].mean()
    along = vectors.T @ (values[taught] - mean)
    errors = []
    for shrunk in _shrunk(squares, along):
        predicted = mean + products @ (vectors @ shrunk)
        errors.append(float(np.sum((predicted - values[left_out]) ** 2)))
    return np.array(errors)


def _shrunk(squares: np.ndarray, along: np.ndarray) -> Iterator[np.ndarray]:
    for decay in _DECAYS:
        yield along / (np.maximum(squares, 0) + decay)


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
