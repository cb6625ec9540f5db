"""Linear regression with mean squared error and weight decay: in closed form, or by one of the gradient methods.

A map has ten thousands of values, most of which show the background and not what is measured. Each is therefore
weighted by a power of its correlation with the value before the regression (screening; Fan and Lv, 2008), so that it is
cheap to use what follows the value and dear to use what does not. A pointer or a level looks much the same one cell on:
the weights may also be smooth over the map.

Where a boundary moves over the picture (a level, a bar, a blind), each cell is in one of two states, and what else
shows there is noise. One direction in the map's channels tells the states apart best (Fisher, 1936: products with the
value over the spread that the value does not explain); each cell's answer along it is clipped between the two states,
found as two means, and the regression reads those.

Which layer to read, states or channels, how smooth, that power and the weight decay are those with the least error on
pictures left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_mnv2.builder.float_heads import Linear, ValueHead, cell_states
from edge_mnv2.teach.embedding import Layer
from edge_mnv2.teach.linear_fit import gram, make_optimizer

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


_FOLLOWING_SHARE = 0.3
"""Cells whose products with the value are at least this share of the largest say what the two states are."""
_INSIDE = 0.15
"""What is so near to a state, as a share of the way to the other one, is that state."""
_SHRINKAGE = 0.01
_REGIONS, _LEAST_IN_REGION = 4, 5


@dataclass(frozen=True)
class Choice:
    """The layer to read, how often its cells are averaged with their neighbours, the power of the screening, the weight
    decay, whether `states` of cells are read, and the RMSE that was measured with them; `left_out` (pictures,) are the
    errors of the pictures by heads without them."""

    layer: Layer
    smoothing: int
    power: int
    decay: float
    error: float
    states: bool = False
    left_out: np.ndarray = field(default_factory=lambda: np.zeros(0))


def choose(layers: Sequence[Layer], codes: np.ndarray, values: np.ndarray) -> Choice:
    """The choice with the least squared error on folds left out in turn.

    `codes` (pictures, all layers) are those of the pictures as they are, with their `values`.
    """
    fitting = [layer for layer in layers if layer.size * len(codes) <= _MOST_NUMBERS] or list(layers[-1:])
    order = np.argsort(values, kind="stable")
    # Neighbours in value go to different folds, so that each fold covers the range.
    folds = [order[number::_FOLDS] for number in range(min(_FOLDS, len(order)))]
    choices: list[Choice] = []
    for layer in fitting:
        for states in (False, True) if _is_map(layer) else (False,):
            choices += _measured(layer, states, codes, values, folds)
    return min(choices, key=lambda choice: choice.error)


def _measured(
    layer: Layer, states: bool, codes: np.ndarray, values: np.ndarray, folds: Sequence[np.ndarray]
) -> Iterator[Choice]:
    """The best weight decay for each smoothing and power."""
    real = layer.real(codes)
    read = _read_layer(layer, states)
    # The state of a cell is worth nothing where it does not follow the value: there it is always screened.
    powers = _POWERS[1:] if states else _POWERS
    for smoothing in _SMOOTHINGS if _is_map(layer) else (0,):
        smooth = None if states else _smooth(real, read, smoothing)
        errors = np.zeros((len(powers), len(_DECAYS), len(values)))
        for left_out in folds:
            taught = np.setdiff1d(np.arange(len(values)), left_out)
            inputs = smooth
            if inputs is None:
                two = two_states(real[taught], values[taught], layer)
                inputs = _smooth(cell_states(two, real), read, smoothing)
            for place, power in enumerate(powers):
                errors[place][:, left_out] = _left_out_errors(inputs, values, read, left_out, power)
        squares = np.sqrt(np.mean(errors**2, axis=2))
        for place, power in enumerate(powers):
            best = int(np.argmin(squares[place]))
            decay, error = float(_DECAYS[best]), float(squares[place, best])
            yield Choice(layer, smoothing, power, decay, error, states, errors[place, best].copy())


def _read_layer(layer: Layer, states: bool) -> Layer:
    """What the regression reads of `layer`: all of it, or one state a cell."""
    return replace(layer, shape=(*layer.shape[:2], 1)) if states else layer


def two_states(maps: np.ndarray, values: np.ndarray, layer: Layer) -> Linear:
    """One row over the channels of `layer` that is 0 in one state of a cell and 1 in the other.

    `maps` (pictures, size of the layer) are real.
    """
    channels = layer.shape[-1]
    cells = maps.reshape(len(maps), -1, channels)
    aims = (values - values.mean()) / (float(values.std()) or 1.0)
    centred = cells - cells.mean(axis=0)
    products = np.einsum("p,pxc->xc", aims.astype(np.float32), centred) / len(maps)
    size = np.sum(products**2, axis=1)
    if not size.any():
        return Linear(np.zeros((1, channels)), np.zeros(1))
    rest = (centred - aims.astype(np.float32)[:, None, None] * products) * np.sqrt(size / size.sum())[:, None]
    spread = rest.reshape(-1, channels).T.astype(np.float64) @ rest.reshape(-1, channels) / len(maps)
    spread += np.eye(channels) * (_SHRINKAGE * float(np.trace(spread)) / channels + _LEAST_SQUARE)
    # The largest ratio of what follows the value to what does not, by the factor of the latter.
    inverse = np.linalg.inv(np.linalg.cholesky(spread))
    _, vectors = np.linalg.eigh(inverse @ gram(products.T) @ inverse.T)
    direction = inverse.T @ vectors[:, -1]
    seen = (cells[:, size >= _FOLLOWING_SHARE * size.max()] @ direction).reshape(-1)
    low, high = (float(end) for end in np.quantile(seen, (0.1, 0.9)))
    for _ in range(10):
        lower = seen < (low + high) / 2
        if lower.all() or not lower.any():
            break
        low, high = float(seen[lower].mean()), float(seen[~lower].mean())
    low, high = low + _INSIDE * (high - low), high - _INSIDE * (high - low)
    width = max(high - low, 1e-9)
    return Linear(direction[np.newaxis] / width, np.array([-low / width]))


def expected_errors(values: np.ndarray, errors: np.ndarray) -> list[tuple[float, float, float]]:
    """(lowest value, highest value, RMSE) of parts of the range with about as many pictures each, lowest first.

    `errors` (pictures,) are those of heads that were not taught the picture. Pictures of one value are in one part.
    """
    order = np.argsort(values, kind="stable")
    cuts: list[int] = []
    for part in np.array_split(order, max(1, min(_REGIONS, len(order) // _LEAST_IN_REGION))):
        cut = int(np.searchsorted(values[order], values[part[0]]))
        if cut >= _LEAST_IN_REGION + (cuts[-1] if cuts else 0):
            cuts.append(cut)
    parts = np.split(order, cuts)
    between = [float(values[one[-1]] + values[other[0]]) / 2 for one, other in zip(parts, parts[1:])]
    ends = [float(values.min()), *between, float(values.max())]
    return [(low, high, float(np.sqrt(np.mean(errors[part] ** 2)))) for low, high, part in zip(ends, ends[1:], parts)]


def fit(embeddings: np.ndarray, values: np.ndarray, choice: Choice, *, optimizer: str = "closed") -> ValueHead:
    """The head that gives `values` (pictures,) for `embeddings` (pictures, size of the layer)."""
    if not choice.states:
        return ValueHead(_fit_linear(embeddings, values, choice, optimizer))
    states = two_states(embeddings, values, choice.layer)
    read = replace(choice, layer=_read_layer(choice.layer, True))
    return ValueHead(_fit_linear(cell_states(states, embeddings), values, read, optimizer), states)


def _fit_linear(embeddings: np.ndarray, values: np.ndarray, choice: Choice, optimizer: str) -> Linear:
    """One row; it minimizes mean (f(x) - value)^2 + decay * |w|^2, with smoothed and screened embeddings centred, and
    scaled to a mean squared length of 1. Pictures that do not differ give the mean of the values.
    """
    inputs = _smooth(embeddings, choice.layer, choice.smoothing)
    weight = _screen(inputs, values, choice.layer, choice.power)
    inputs = inputs * weight
    center, mean = inputs.mean(axis=0), float(values.mean())
    inputs -= center
    # Between pictures only products matter: the regression is solved in as many dimensions as there are pictures.
    products = gram(inputs).astype(np.float64)
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
    """Errors (decays, pictures) on `left_out` for each of `_DECAYS`, taught with the others."""
    taught = np.setdiff1d(np.arange(len(values)), left_out)
    weighted = inputs * _screen(inputs[taught], values[taught], layer, power)
    weighted = weighted - weighted[taught].mean(axis=0)
    # Between pictures only products matter: the regression is solved in as many dimensions as there are pictures.
    products = (weighted @ weighted[taught].T).astype(np.float64)
    own, mean = products[taught], values[taught].mean()
    size = float(np.trace(own))
    if size <= 0:
        return np.tile(mean - values[left_out], (len(_DECAYS), 1))
    products = products[left_out] / size
    squares, vectors = np.linalg.eigh(own / size)
    along = vectors.T @ (values[taught] - mean)
    shrunk = along / (np.maximum(squares, 0) + _DECAYS[:, None])
    return np.asarray(mean + shrunk @ vectors.T @ products.T - values[left_out])


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
