"""How a model's input is scaled: what people or the file say, else what the graph shows, else what is assumed.

Real input = (pixel - mean) / std, in pixel units (0 to 255), one number a channel. The graph shows it by constants
before the first layer, by the quantization of the input, or by the size of the first convolution's weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

import numpy as np

from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.model_graph import Key, ModelGraph, Node
from edge_mnv2.runtime.preprocess import quantization_table
from edge_mnv2.runtime.table import TensorSpec

Channels = tuple[float, ...]
Scaling = tuple[Channels, Channels]
"""Mean and standard deviation."""

SIGNED: Scaling = ((127.5,), (127.5,))
FRACTION: Scaling = ((0.0,), (255.0,))
PIXELS: Scaling = ((0.0,), (1.0,))
IMAGENET: Scaling = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""For -1 to 1, 0 to 1, 0 to 255, and those of torchvision and timm."""

_RANGES = (SIGNED, FRACTION, PIXELS)
_NAMES = {SIGNED: "-1 to 1", FRACTION: "0 to 1", PIXELS: "0 to 255", IMAGENET: "ImageNet's mean and std"}
_SAY = "--input-range, or --mean and --std, say otherwise"
_SMALL_WEIGHTS = 0.06
"""The filters of a first convolution have a norm around 1 for inputs around 1, and around 1/128 for pixels."""
_EPSILON = 1e-5
"""What a batch normalization adds to its variance, if it does not say so."""
_MOST_STEPS = 64
_LEAST_STEPS = 32
"""Fewer whole numbers than that are no picture any more: such a scaling is done inside the graph."""


def in_pixels(mean: Channels, std: Channels) -> Scaling:
    """Mean and std in pixel units; those of fractions (torchvision's 0.485, ...) have every std below 1."""
    if max(std) < 1 and max(mean) <= 1:
        return tuple(255.0 * n for n in mean), tuple(255.0 * n for n in std)
    return tuple(map(float, mean)), tuple(map(float, std))


def integer_input(
    path: str, tensor: TensorSpec, said: Optional[tuple[Scaling, str]], channels: int, notes: list[str]
) -> tuple[Scaling, str, bool]:
    """(mean and std, origin, whether pixels go in as they are) of a uint8 or int8 input.

    `said`: what people or metadata say. The quantization decides what integers mean; where it contradicts, `notes` get
    a sentence.
    """
    first = -128 if tensor.dtype.name == "int8" else 0
    if not tensor.quantized:
        if said is None:
            return PIXELS, "graph", True
        low, high = _limits(said[0])
        if high - low >= _LEAST_STEPS:
            return said[0], said[1], False
        notes.append(
            f"{path}: its input takes whole numbers, of which mean and std of the {said[1]} leave {low:.3g} to "
            f"{high:.3g}; pixels go in as they are"
        )
        return PIXELS, "graph", True
    # Pixels as they are mean: real = scale * (pixel + first - zero point).
    direct: Scaling = ((float(tensor.zero_point - first),), (1 / tensor.scale,))
    low, high = _limits(direct)
    if said is None:
        usual = min(_RANGES, key=lambda one: _distance((low, high), _limits(one)))
        if _overlap((low, high), _limits(usual)) > 0.9 or _distance((low, high), _limits(IMAGENET)) < 0.35:
            return direct, "graph", True
        notes.append(
            f"{path}: its input's scale covers {low:.3g} to {high:.3g}; pixels are taken as {_NAMES[usual]}; {_SAY}"
        )
        return usual, "assumed", False
    scaling, source = said
    wanted = _limits(scaling)
    overlap = _overlap((low, high), wanted)
    if overlap < 0.8:
        # No model is calibrated so far from its own input: such metadata describe another form of it.
        unfit = overlap < 0.25 and source == "metadata"
        notes.append(
            f"{path}: its input's scale covers {low:.3g} to {high:.3g}, but mean and std of the {source} give "
            f"{wanted[0]:.3g} to {wanted[1]:.3g}; the {'scale' if unfit else source} is used"
        )
        if unfit:
            return direct, "graph", True
    return scaling, source, _same_integers(tensor, scaling, channels)


def _same_integers(tensor: TensorSpec, scaling: Scaling, channels: int) -> bool:
    """Whether mean and std give the pixels themselves, but for one step of rounding."""
    table = quantization_table(tensor, *scaling, channels).astype(int)
    identity = np.arange(256) - (128 if tensor.dtype.name == "int8" else 0)
    return bool(np.abs(table - identity).max() <= 1)


def said_scaling(
    words: Sequence[tuple[Optional[Sequence[float]], Optional[Sequence[float]], str]], channels: int
) -> Optional[tuple[Scaling, str]]:
    """(mean and std, who says them) by the first of `words` (mean, std, source) that has any. Raises UsageError."""
    for mean, std, source in words:
        if mean is None and std is None:
            continue
        values = in_pixels(tuple(mean or (0.0,)), tuple(std or (1.0,)))
        if channels == 1:
            values = ((float(np.mean(values[0])),), (float(np.mean(values[1])),))
        numbers = (*values[0], *values[1])
        if {len(one) for one in values} <= {1, channels} and min(values[1]) > 0 and all(map(math.isfinite, numbers)):
            return values, source
        if source != "metadata":
            raise UsageError(f"mean and std need one number or {channels}, std above 0; the {source} has other ones")
    return None


def float_input(path: str, graph: Optional[ModelGraph], notes: list[str]) -> tuple[Scaling, str]:
    """(mean and std, origin) of a float input of which nobody says anything."""
    if graph is not None and len(graph.inputs) == 1:
        scaled, key, normalized = _scaling(graph)
        if scaled is not None:
            likeliest = min(_RANGES, key=lambda one: _unnatural(scaled, one))
            if not normalized or likeliest != SIGNED:
                return likeliest, "graph"
            # Inputs around 0 are normalized in training too: -1 to 1, or by ImageNet's mean.
            key = graph.inputs[0]
        if (affine := _quantized_next(graph, key)) is not None:
            scale, zero, dtype = affine
            limits = np.iinfo(np.dtype(dtype))
            covered = scale * (limits.min - zero), scale * (limits.max - zero)
            usual = min((*_RANGES, IMAGENET), key=lambda one: _distance(covered, _limits(one)))
            if _overlap(covered, _limits(usual)) > 0.9:
                return usual, "graph"
        if (norm := _first_filters(graph, key)) is not None and norm < _SMALL_WEIGHTS:
            notes.append(f"{path}: the weights of its first convolution scale pixels: it is fed 0 to 255; {_SAY}")
            return PIXELS, "graph"
    usual = IMAGENET if graph is not None and graph.packed.producer.lower().startswith("pytorch") else SIGNED
    notes.append(f"{path} does not say how its input is scaled: {_NAMES[usual]} is assumed; {_SAY}")
    return usual, "assumed"


def _scaling(graph: ModelGraph) -> tuple[Optional[tuple[np.ndarray, np.ndarray]], Key, bool]:
    """(factor, offset) of the arithmetic with constants between the input and the first layer, None where there is
    none; the tensor that the first layer reads; and whether a batch normalization is part of it."""
    key = graph.inputs[0]
    factor, offset, changed, normalized = np.ones(1), np.zeros(1), False, False
    for _ in range(_MOST_STEPS):
        users = graph.users(key)
        if len(users) != 1 or not users[0].outputs:
            break
        node = users[0]
        if node.kind in ("mul", "add", "sub", "div") and len(node.inputs) == 2:
            constant = graph.constant(node.inputs[1 if node.inputs[0] == key else 0])
            if constant is None or constant.size not in (1, 3) or not np.isfinite(constant).all():
                break
            step = _applied(node, key, constant.reshape(-1), factor, offset)
            if step is None:
                break
            (factor, offset), changed = step, True
        elif node.kind == "batchnorm" and len(node.inputs) == 5:
            constants = [graph.constant(one) for one in node.inputs[1:]]
            if any(one is None or one.size not in (1, 3) for one in constants):
                break
            gain, bias, mean, variance = (np.asarray(one, float).reshape(-1) for one in constants)
            gain = gain / np.sqrt(variance + _EPSILON)
            factor, offset = factor * gain, (offset - mean) * gain + bias
            changed = normalized = True
        elif node.kind not in ("cast", "reshape", "transpose", "identity", "pad", "resize", "pool", "part"):
            break
        key = node.outputs[0]
    changed = changed and not (np.allclose(factor, 1) and np.allclose(offset, 0))
    return ((factor, offset) if changed else None), key, normalized


def _applied(
    node: Node, key: Key, constant: np.ndarray, factor: np.ndarray, offset: np.ndarray
) -> Optional[tuple[np.ndarray, np.ndarray]]:
    first = node.inputs[0] == key
    if node.kind == "mul":
        return factor * constant, offset * constant
    if node.kind == "add":
        return factor, offset + constant
    if node.kind == "sub":
        return (factor, offset - constant) if first else (-factor, constant - offset)
    return (factor / constant, offset / constant) if first and np.all(constant) else None


def _quantized_next(graph: ModelGraph, key: Key) -> Optional[tuple[float, int, str]]:
    """The quantization of a float input's integers, where the graph quantizes it first."""
    users = graph.users(key)
    return graph.affine(users[0].outputs[0]) if len(users) == 1 and users[0].kind == "quantize" else None


def _first_filters(graph: ModelGraph, key: Key) -> Optional[float]:
    """The upper quartile of the norms of the first convolution's filters, None where another operator comes first."""
    users = graph.users(key)
    if len(users) != 1 or users[0].kind != "conv" or len(users[0].inputs) < 2:
        return None
    weights = graph.constant(users[0].inputs[1])
    if weights is None or weights.ndim != 4 or not np.isfinite(weights).all():
        return None
    return float(np.quantile(np.sqrt(np.square(weights).sum((1, 2, 3))), 0.75))


def _limits(scaling: Scaling) -> tuple[float, float]:
    """Real values of black and of white, on average over the channels."""
    mean, std = (np.asarray(values, float) for values in scaling)
    return float(np.mean(-mean / std)), float(np.mean((255 - mean) / std))


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Intersection over union of two ranges."""
    both = min(one[1], other[1]) - max(one[0], other[0])
    return max(0.0, both) / (max(one[1], other[1]) - min(one[0], other[0]))


def _distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    """How far apart two ranges are: their centres, in units of the wider one, and the ratio of their widths."""
    wide, other_wide = one[1] - one[0], other[1] - other[0]
    centres = abs(sum(one) - sum(other)) / 2 / max(wide, other_wide)
    return centres + abs(math.log(wide / other_wide))


def _unnatural(scaled: tuple[np.ndarray, np.ndarray], candidate: Scaling) -> float:
    """How far the first layer would be from inputs around 0 of width 2, as every convention has them."""
    ends = np.array([scaled[0] * end + scaled[1] for end in _limits(candidate)])
    width = float(np.mean(np.abs(ends[1] - ends[0])))
    if 0.99 < abs(float(np.mean(scaled[0]))) < 1.01 and float(np.mean(scaled[1])) < -64:
        # Only the mean pixel is subtracted: the convention of Caffe.
        return 0.0 if candidate == PIXELS else 10.0
    return float(np.abs(ends.mean())) + abs(math.log(max(width, 1e-9) / 2))
