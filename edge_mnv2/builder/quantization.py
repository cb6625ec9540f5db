"""Post-training quantization: integer weights, scales and biases from trained weights and activation ranges.

The recipe (see docs/build.md for what each step is worth): weights symmetric with one scale an output channel,
activations affine with one scale a tensor from the mean of per-picture minima and maxima, biases corrected for the mean
error that rounded weights make, a wider range for the logits. Everything is elementwise float64 in a fixed order: the
same weights and ranges give the same integers on every machine and with every numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_mnv2.builder.inference import IMAGENET_PICTURES, INPUT, LOGITS, Normalization, Operation
from edge_mnv2.errors import ModelError

Ranges = Mapping[str, tuple[float, float]]

LOGIT_MARGIN = 2.0
"""Mean minima and maxima cut the strongest pictures' logits; so much wider, and they fit. From 1.8 to 2.5 the agreement
with the float model is the same; at 1.3 it is four points less."""

VALUE_MARGIN = 1.1
"""A regression's range is that of all calibration pictures, and a little for values beyond them."""

_MOST_BIAS = float(1 << 30)

INPUT_STD = IMAGENET_PICTURES.common_std
INPUT_SCALE = 1.0 / (255.0 * INPUT_STD)
INPUT_ZERO = IMAGENET_PICTURES.zero_pixel


@dataclass(frozen=True)
class Affine:
    """real = scale * (q - zero_point), q in -128..127."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Integers:
    """Constants of one convolution or linear layer: `weights` int8 as in the operation, `weight_scale` float32 one an
    output channel, `bias` int32 with scale `input scale * weight_scale`."""

    weights: np.ndarray
    weight_scale: np.ndarray
    bias: np.ndarray


def affine(low: float, high: float) -> Affine:
    """int8 scale and zero point that cover `low` to `high` and represent 0 exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-6) / 255.0))
    return Affine(scale, int(min(max(np.rint(-128.0 - low / scale), -128), 127)))


def activation_scales(
    steps: list[Operation], ranges: Ranges, margin: float = LOGIT_MARGIN, pictures: Normalization = IMAGENET_PICTURES
) -> dict[str, Affine]:
    """Tensor name → scale and zero point of every activation; `margin` widens the last one's range.

    Raises ModelError where `ranges` lacks one.
    """
    scale = 1.0 / (255.0 * pictures.common_std)
    scales = {INPUT: Affine(float(np.float32(scale)), pictures.zero_pixel - 128)}
    for step in steps:
        if step.kind == "pad":
            scales[step.output] = scales[step.inputs[0]]
            continue
        if step.output not in ranges:
            raise ModelError(
                f"the calibration ranges have no '{step.output}'", hint="they belong to another network; calibrate anew"
            )
        low, high = ranges[step.output]
        if not -math.inf < low <= high < math.inf:
            raise ModelError(
                f"'{step.output}' has values from {low:g} to {high:g}, which no integers can hold",
                hint="the weights are damaged or their training diverged; where --ranges says so, calibrate anew",
            )
        if step.output == LOGITS:
            low, high = low * margin, high * margin
        scales[step.output] = affine(low, high)
    return scales


def quantize(
    steps: list[Operation], scales: Mapping[str, Affine], pictures: Normalization = IMAGENET_PICTURES
) -> dict[str, Integers]:
    """Tensor name → the integer constants of the operation that makes it."""
    means = expected_activations(steps)
    return {
        step.output: _integers(step, scales[step.inputs[0]], means[step.inputs[0]], pictures)
        for step in steps
        if step.weights is not None
    }


def _integers(step: Operation, source: Affine, mean: np.ndarray, pictures: Normalization) -> Integers:
    assert step.weights is not None and step.bias is not None
    weights, bias = step.weights, step.bias
    if step.inputs[0].split(".")[0] == INPUT:
        weights, bias = _from_pixels(weights, bias, pictures)
    axis = weight_axis(step)
    channels = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    scale = weight_scale(np.abs(channels).max(axis=1), bias, source.scale)
    wide = scale.astype(np.float64)
    rounded = np.clip(np.rint(channels / wide[:, None]), -127, 127)
    error = rounded * wide[:, None] - channels
    # Columns run over rows, columns and inputs of the kernel, inputs last: the input channel of column k is k % inputs.
    inputs = 1 if step.kind == "depthwise" else len(mean)
    shift = np.zeros(len(channels))
    for column in range(channels.shape[1]):
        expected = mean if step.kind == "depthwise" else mean[column % inputs]
        shift = shift + error[:, column] * expected
    steps_of_bias = np.rint((bias - shift) / (source.scale * wide))
    bias32 = np.clip(steps_of_bias, -(2**31) + 1, 2**31 - 1).astype(np.int32)
    shape = np.moveaxis(weights, axis, 0).shape
    return Integers(np.ascontiguousarray(np.moveaxis(rounded.reshape(shape), 0, axis)).astype(np.int8), scale, bias32)


def weight_scale(largest: np.ndarray, bias: np.ndarray, source_scale: float) -> np.ndarray:
    """Scale float32 of each output channel: its `largest` weight becomes 127, and its `bias` fits into int32.

    Training switches channels off: weights near zero, and a bias that still counts. Their weights become 0 then.
    """
    scale = largest / 127.0
    least = np.abs(bias) / (source_scale * _MOST_BIAS)
    scale = np.where(scale < least, least, scale).astype(np.float32)
    scale[largest.astype(np.float32) / np.float32(127.0) == 0] = np.float32(1.0)
    return scale


def weight_axis(step: Operation) -> int:
    """The axis of `step.weights` that counts output channels."""
    return 3 if step.kind == "depthwise" else 0


def _from_pixels(weights: np.ndarray, bias: np.ndarray, pictures: Normalization) -> tuple[np.ndarray, np.ndarray]:
    """Let the first convolution take (pixel - zero pixel) / (255 common std) instead of (pixel / 255 - mean) / std.

    Both are linear in the pixel: the weights take the ratio of the slopes, the bias what remains of the offsets.
    """
    adapted = np.empty_like(weights)
    offset = np.zeros(len(weights))
    for colour, (mean, std) in enumerate(zip(pictures.mean, pictures.std)):
        adapted[..., colour] = weights[..., colour] * (pictures.common_std / std)
        remains = (pictures.zero_pixel / 255.0 - mean) / std
        for row in range(weights.shape[1]):
            for column in range(weights.shape[2]):
                offset = offset + weights[:, row, column, colour] * remains
    return adapted, bias + offset


_UPPER = {"relu": None, "relu6": 6.0}


def expected_activations(steps: list[Operation]) -> dict[str, np.ndarray]:
    """Tensor name → float64 mean of each channel, for everything that `steps` make. The input's mean is 0."""
    means: dict[str, np.ndarray] = {INPUT: np.zeros(3)}
    for step in steps:
        first = means[step.inputs[0]]
        if step.kind in ("pad", "mean"):
            means[step.output] = first
        elif step.kind == "add":
            total = first + means[step.inputs[1]]
            # The spread of a sum is not known; a clipped one has at least this mean.
            means[step.output] = total if step.activation == "linear" else np.maximum(total, 0.0)
        elif step.centre is not None and step.spread is not None:
            means[step.output] = clipped_mean(step.centre, step.spread, step.activation)
        else:
            means[step.output] = np.zeros(step.shape[2])
    return means


def clipped_mean(centre: np.ndarray, spread: np.ndarray, activation: str) -> np.ndarray:
    """Mean of a normal variable (mean `centre`, standard deviation `spread`) after `activation`."""
    if activation == "linear":
        return centre
    upper = _UPPER[activation]
    mean = _above(centre, spread, 0.0)
    return mean if upper is None else mean - _above(centre, spread, upper)


def _above(centre: np.ndarray, spread: np.ndarray, level: float) -> np.ndarray:
    """E[max(z - level, 0)] = (centre - level) * Phi(t) + spread * phi(t), with t = (centre - level) / spread."""
    narrow = spread < 1e-12
    distance = centre - level
    t = distance / np.where(narrow, 1.0, spread)
    cumulative, density = _normal(np.clip(t, -12.0, 12.0))
    smooth = distance * cumulative + spread * density
    return np.where(narrow, np.where(distance > 0, distance, 0.0), smooth)


def _normal(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative distribution and density of the standard normal at -12 <= t <= 12, to about 1e-15 absolute."""
    square = t * t
    density = 0.3989422804014327 * _exp_negative(square * 0.5)
    # Phi(t) = 1/2 + phi(t) * (t + t^3/3 + t^5/15 + ...): every term has the same sign, so nothing cancels.
    term, total = t.copy(), t.copy()
    for k in range(1, 260):
        term = term * square / (2 * k + 1)
        total = total + term
    return np.clip(0.5 + density * total, 0.0, 1.0), density


def _exp_negative(x: np.ndarray) -> np.ndarray:
    """exp(-x) for 0 <= x <= 80: a Taylor series of exp(x / 1024), squared ten times, inverted."""
    small = x / 1024.0
    total = np.ones_like(small)
    for k in range(12, 0, -1):
        total = 1.0 + total * small / k
    for _ in range(10):
        total = total * total
    return 1.0 / total
