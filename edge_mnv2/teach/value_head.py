"""Linear regression with mean squared error and weight decay: in closed form, or by one of the gradient methods.

A map has ten thousands of values, most of which show the background and not what is measured. Each is therefore
weighted by a power of its correlation with the value before the regression (screening; Fan and Lv, 2008), so that it is
cheap to use what follows the value and dear to use what does not. A pointer or a level looks much the same one cell on:
the weights may also be smooth over the map. Which layer to read, how smooth, that power and the weight decay are those
with the least error on pictures left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_mnv2.builder.taught_head import Linear
from edge_mnv2.teach.embedding import Layer
from edge_mnv2.teach.linear_fit import make_optimizer

STEPS = 300
_DECAYS = 10.0 ** np.arange(-6, 0.01, 0.5)
_POWERS = (0, 1, 2, 3, 4)
_SMOOTHINGS = (0, 1, 3)
"""How often a map is averaged over 3 x 3 cells."""
_CHANCE = 1e-4
_LEAST_SQUARE = 1e-10
_FOLDS = 5
_MOST_NUMBERS = 12_000_000
"""Layers with more values over all pictures are left out: a small board has little memory."""


@dataclass(frozen=True)
class Choice:
    """The layer to read, how often its cells are averaged with their neighbours, the power of the screening, the weight
    decay, and the RMSE that was measured with them."""

    layer: Layer
    smoothing: int
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
    choices = []
    for layer in fitting:
        for smoothing in _SMOOTHINGS if _is_map(layer) else (0,):
            inputs = _smooth(layer.real(codes), layer, smoothing)
            for power in _POWERS:
                errors = np.zeros(len(_DECAYS))
                for left_out in folds:
                    errors += _left_out_errors(inputs, values, layer, left_out, power)
                place = int(np.argmin(errors))
                error = float(np.sqrt(errors[place] / len(values)))
                choices.append(Choice(layer, smoothing, power, float(_DECAYS[place]), error))
    return min(choices, key=lambda choice: choice.error)


def fit(embeddings: np.ndarray, values: np.ndarray, choice: Choice, *, optimizer: str = "closed") -> Linear:
    """The head of one row that gives `values` (pictures,) for `embeddings` (pictures, size).

    It minimizes mean (f(x) - value)^2 + decay * |w|^2, with smoothed and screened embeddings centred, and scaled to a
    mean squared length of 1. Pictures that do not differ give the mean of the values.
    """
    inputs = _smooth(embeddings, choice.layer, choice.smoothing)
    weight = _screen(inputs, values, choice.layer, choice.power)
    inputs = inputs * weight
    center, mean = inputs.mean(axis=0), float(values.mean())
    inputs -= center
    # Between pictures only products matter: the regression is solved in as many dimensions as there are pictures.
    products = (inputs @ inputs.T).astype(np.float64)
    size = float(np.trace(products))
    if size <= 0:
        return Linear(np.zeros((1, embeddings.shape[1])), np.array([mean]))
    squares, vectors = np.linalg.eigh(products / size)
    used = squares > squares[-1] * _LEAST_SQUARE
    squares, vectors = squares[used], vectors[:, used]
    slopes = np.sqrt(squares) * (vectors.T @ (values - mean)) / np.sqrt(len(values))
    # Along these axes the normal equations are one division each.
    along = slopes / (squares + choice.decay)
    if optimizer != "closed":
        along = _descend(squares, slopes, choice.decay, optimizer)
    shares = vectors @ (along / np.sqrt(squares)) * np.sqrt(len(values)) / size
    weights = (shares @ inputs).astype(np.float64)
    # Averaging is its own transpose: weights on an averaged map are averaged weights on the map itself.
    unfolded = _smooth((weights * weight)[np.newaxis], choice.layer, choice.smoothing)
    return Linear(unfolded, np.array([mean - float(weights @ center)]))


def _is_map(layer: Layer) -> bool:
    return len(layer.shape) == 3 and min(layer.shape[:2]) > 1


def _smooth(values: np.ndarray, layer: Layer, times: int) -> np.ndarray:
    """`values` (rows, size of `layer`) averaged so many times over 3 x 3 cells; beyond the border lie zeros."""
    maps = values.reshape(-1, *layer.shape)
    for _ in range(times):
        for axis in (1, 2):
            spread = maps.copy()
            along, before = np.moveaxis(spread, axis, 0), np.moveaxis(maps, axis, 0)
            along[1:] += before[:-1]
            along[:-1] += before[1:]
            maps = spread / 3
    return maps.reshape(values.shape)


def _screen(embeddings: np.ndarray, values: np.ndarray, layer: Layer, power: int) -> np.ndarray:
    """How much each of the embedding's values follows the `values`, the largest 1: |correlation| to the `power`.

    In a map this is multiplied by how far the mean squared correlation of the cell and its neighbours is above that of
    chance, 1 / pictures (as a root): one value of the background may follow by accident, a whole region does not.
    """
    if power == 0:
        return np.ones(embeddings.shape[1], np.float32)
    centred = embeddings - embeddings.mean(axis=0)
    aims = (values - values.mean()) / (float(values.std()) or 1.0)
    length = np.sqrt(np.sum(centred**2, axis=0) * len(values))
    correlation = np.abs(aims.astype(np.float32) @ centred) / np.maximum(length, 1e-9)
    if not correlation.any():
        return np.ones(embeddings.shape[1], np.float32)
    weight = (correlation / max(float(correlation.max()), 1e-9)) ** power
    if _is_map(layer):
        cells = np.mean(correlation.reshape(layer.shape) ** 2, axis=2, keepdims=True)
        above = np.maximum(cells - 1 / len(values), _CHANCE)
        region = np.sqrt(_smooth(above.reshape(1, -1), replace(layer, shape=above.shape), 1))
        weight = (weight.reshape(layer.shape) * (region / region.max()).reshape(above.shape)).reshape(-1)
    return weight


def _left_out_errors(
    inputs: np.ndarray, values: np.ndarray, layer: Layer, left_out: np.ndarray, power: int
) -> np.ndarray:
    """Sum of squared errors on `left_out` for each of `_DECAYS`, taught with the others."""
    taught = np.setdiff1d(np.arange(len(values)), left_out)
    weighted = inputs * _screen(inputs[taught], values[taught], layer, power)
    weighted = weighted - weighted[taught].mean(axis=0)
    # Between pictures only products matter: the regression is solved in as many dimensions as there are pictures.
    products = (weighted @ weighted[taught].T).astype(np.float64)
    own, mean = products[taught], values[taught].mean()
    size = float(np.trace(own))
    if size <= 0:
        return np.full(len(_DECAYS), np.sum((mean - values[left_out]) ** 2))
    products = products[left_out] / size
    squares, vectors = np.linalg.eigh(own / size)
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
    step, first_rate = make_optimizer(optimizer)
    weights = np.zeros_like(slopes)
    for number in range(STEPS):
        gradient = ((squares + decay) * weights - slopes) * units / size
        rate = first_rate * 0.5 * (1 + np.cos(np.pi * number / STEPS))
        weights = weights + step(gradient, rate) * units * size
    return weights
