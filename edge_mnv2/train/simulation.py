"""The integer model for training: every rounding of the int8 file, with gradients that pass through it.

Folding, ranges, scales, the first layer that takes pixels and the correction of biases are those of
`build.quantization`, so that what is trained here is what `build` writes; `integer_network` computes the same without
gradients. The gradient of a rounding is taken as 1 (Bengio, Leonard and Courville 2013, "Estimating or
Propagating Gradients Through Stochastic Neurons"); that of a value beyond its range is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Optional

import torch
from torch.nn import functional

from edge_mnv2.builder.calibration import rounded_ranges
from edge_mnv2.builder.inference import INPUT, LOGITS, MEAN, STD
from edge_mnv2.builder.quantization import (
    INPUT_SCALE,
    INPUT_STD,
    INPUT_ZERO,
    LOGIT_MARGIN,
    VALUE_MARGIN,
    Affine,
    affine,
)
from edge_mnv2.network.blocks import NORM_EPSILON, Convolution, Layer, Linear
from edge_mnv2.train.integer_network import IntegerNetwork
from edge_mnv2.train.module import NetworkModule, tensors_of

FEATURES = "features"

_LEAST, _MOST = -128, 127
_BOUNDS = {"linear": (None, None), "relu": (0.0, None), "relu6": (0.0, 6.0)}


class Simulation:
    """`module` as its int8 file computes, with activation `ranges` by the names of `build`'s tensors.

    Called like the module. In training it answers with gradients, out of training as the file does, by the plain
    kernels to the last bit. The ranges stay: ranges that follow what they have cut themselves shrink from batch to
    batch.
    """

    def __init__(self, module: NetworkModule, ranges: Mapping[str, tuple[float, float]]) -> None:
        self.module = module
        self.ranges = dict(ranges)
        self.training = False
        self._integers: Optional[IntegerNetwork] = None
        self._regression = module.network.head.task == "regression"

    def train(self, mode: bool = True) -> None:
        """The statistics of normalizations stay as they were trained in either case, and no feature is left out: a
        child is to answer as its parent does, which sees them all."""
        self.module.eval()
        self.training = mode
        self._integers = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.straight_through(x) if self.training else self.exact(x)

    def exact(self, x: torch.Tensor) -> torch.Tensor:
        """What the int8 file of the present weights and ranges answers."""
        if self._integers is None:
            network = self.module.network
            self._integers = IntegerNetwork(network, tensors_of(self.module), rounded_ranges(self.ranges))
        return self._integers(x)

    def straight_through(self, x: torch.Tensor) -> torch.Tensor:
        """The same but for the last bit of a rounding, with gradients."""
        std, mean = (torch.tensor(one, dtype=x.dtype, device=x.device).view(1, 3, 1, 1) for one in (STD, MEAN))
        pixels = torch.round((x * std + mean) * 255.0)
        source = _Activation((pixels - INPUT_ZERO) * INPUT_SCALE, INPUT_SCALE, pixels.new_zeros(3), INPUT)
        for block in self.module.network.blocks:
            entry = source
            source = self._path(block.path, source)
            if block.shortcut is not None:
                other = self._path(block.shortcut, entry)
                total, name = other.values + source.values, f"{source.name}.sum"
                means = other.means + source.means
                if block.activation != "linear":
                    means = means.clamp_min(0.0)
                source = self._quantized(total, name, block.activation, means)
        return source.values

    def _path(self, path: tuple[Layer, ...], source: _Activation) -> _Activation:
        for layer in path:
            if isinstance(layer, Convolution):
                source = self._convolution(layer, source)
            elif isinstance(layer, Linear):
                source = self._linear(layer, source)
            else:
                source = self._quantized(source.values.mean((2, 3)), FEATURES, "linear", source.means)
        return source

    def _convolution(self, layer: Convolution, source: _Activation) -> _Activation:
        norm = self.module.get_submodule(layer.norm)
        factor = norm.weight / torch.sqrt(norm.running_var + NORM_EPSILON)
        weights = self.module.get_submodule(layer.name).weight * factor[:, None, None, None]
        bias = norm.bias - norm.running_mean * factor
        if source.name == INPUT:
            weights, bias = _from_pixels(weights, bias)
        expected = source.means[None] if layer.groups == 1 else source.means[:, None]
        weights, bias = _integers(weights, bias, source.scale, expected)
        total = functional.conv2d(source.values, weights, bias, layer.stride, layer.padding, groups=layer.groups)
        means = _clipped_mean(norm.bias.detach(), norm.weight.detach().abs(), layer.activation)
        return self._quantized(total, layer.norm, layer.activation, means)

    def _linear(self, layer: Linear, source: _Activation) -> _Activation:
        classifier = self.module.get_submodule(layer.name)
        weights, bias = _integers(classifier.weight, classifier.bias, source.scale, source.means[None])
        total = functional.linear(source.values, weights, bias)
        return self._quantized(total, LOGITS, layer.activation, total.new_zeros(layer.channels))

    def _quantized(self, values: torch.Tensor, name: str, activation: str, means: torch.Tensor) -> _Activation:
        least, most = _BOUNDS[activation]
        if least is not None:
            values = values.clamp(least, most)
        low, high = self.ranges[name]
        if name == LOGITS:
            margin = VALUE_MARGIN if self._regression else LOGIT_MARGIN
            low, high = low * margin, high * margin
        grid = affine(low, high)
        return _Activation(_on_grid(values, grid, least, most), grid.scale, means, name)


class _Activation:
    """Values on their grid, the grid's scale, the expected mean of each channel, and the tensor's name."""

    def __init__(self, values: torch.Tensor, scale: float, means: torch.Tensor, name: str) -> None:
        self.values, self.scale, self.means, self.name = values, scale, means, name


def _straight(exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """The value of `rounded` with the gradient of `exact`."""
    return exact + (rounded - exact).detach()


def _on_grid(values: torch.Tensor, grid: Affine, least: Optional[float], most: Optional[float]) -> torch.Tensor:
    zero, scale = grid.zero_point, grid.scale
    first = _LEAST if least is None else max(_LEAST, zero + round(least / scale))
    last = _MOST if most is None else min(_MOST, zero + round(most / scale))
    inside = values.clamp((first - zero) * scale, (last - zero) * scale)
    rounded = (torch.round(values.detach() / scale) + zero).clamp(first, last)
    return _straight(inside, (rounded - zero) * scale)


def _integers(
    weights: torch.Tensor, bias: torch.Tensor, input_scale: float, expected: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights with one scale an output channel and biases on their grid, corrected for the mean error of the weights.

    `weights` (outputs, inputs, ...); `expected` (1 or outputs, inputs) are the means of the inputs.
    """
    flat = weights.detach().flatten(1)
    scale = (flat.abs().amax(1) / 127.0).to(torch.float32).to(weights.dtype)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    wide = scale.view(-1, *[1] * (weights.ndim - 1))
    rounded = torch.round(weights.detach() / wide).clamp(-127, 127) * wide
    error = (rounded - weights.detach()).flatten(2).sum(2) if weights.ndim > 2 else rounded - weights.detach()
    shift = (error * expected).sum(1)
    step = input_scale * scale
    corrected = torch.round((bias.detach() - shift) / step) * step
    return _straight(weights, rounded), _straight(bias, corrected)


def _from_pixels(weights: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `build.quantization` lets the first convolution take (pixel - INPUT_ZERO) * INPUT_SCALE."""
    std = torch.tensor(STD, dtype=weights.dtype, device=weights.device)
    mean = torch.tensor(MEAN, dtype=weights.dtype, device=weights.device)
    remains = (INPUT_ZERO / 255.0 - mean) / std
    offset = (weights.sum((2, 3)) * remains).sum(1)
    return weights * (INPUT_STD / std)[None, :, None, None], bias + offset


def _clipped_mean(centre: torch.Tensor, spread: torch.Tensor, activation: str) -> torch.Tensor:
    """Mean of a normal variable after `activation`: `build.expectation.clipped_mean`, with PyTorch's erf."""
    if activation == "linear":
        return centre
    mean = _above(centre, spread, 0.0)
    return mean - _above(centre, spread, 6.0) if activation == "relu6" else mean


def _above(centre: torch.Tensor, spread: torch.Tensor, level: float) -> torch.Tensor:
    distance = centre - level
    narrow = spread < 1e-12
    t = (distance / torch.where(narrow, torch.ones_like(spread), spread)).clamp(-12.0, 12.0)
    cumulative = 0.5 * (1.0 + torch.erf(t / math.sqrt(2.0)))
    density = torch.exp(-0.5 * t * t) / math.sqrt(2.0 * math.pi)
    return torch.where(narrow, distance.clamp_min(0.0), distance * cumulative + spread * density)
