"""The int8 file's arithmetic in PyTorch: the integers of `build`, multiplied and rounded as the plain
kernels of TensorFlow Lite do it. With it a network is validated as the board will run it, in batches.

Requantization is Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 2.2: a real factor as a 31-bit integer and a shift, with one rounding after each of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Union

import numpy as np
import torch
from torch.nn import functional

from edge_mnv2.builder.inference import INPUT, LOGITS, MEAN, STD, Operation, operations
from edge_mnv2.builder.quantization import INPUT_ZERO, Affine
from edge_mnv2.builder.tflite_model import numbers
from edge_mnv2.network.network import Network

_LEAST, _MOST = -128, 127
_BITS = 31
_ADD_SHIFT = 20
_EXACT_FLOAT32 = 1 << 24
"""Sums of integers below this are exact in float32, which is several times faster."""

_UPPER = {"linear": None, "relu": None, "relu6": 6.0}


class IntegerNetwork:
    """What `build` would write from `tensors` (a state dict) and activation `ranges`.

    Called with normalized pictures (batch, 3, height, width) it gives the dequantized outputs (batch, outputs).
    """

    def __init__(
        self, network: Network, tensors: Mapping[str, np.ndarray], ranges: Mapping[str, tuple[float, float]]
    ) -> None:
        self._steps = operations(network, tensors)
        self._scales, constants = numbers(network, self._steps, ranges)
        self._weights = {}
        for step in self._steps:
            if step.output in constants:
                one, source = constants[step.output], self._scales[step.inputs[0]]
                ratio = np.float32(source.scale).astype(np.float64) * one.weight_scale.astype(np.float64)
                factor = quantized_multiplier(ratio / np.float64(np.float32(self._scales[step.output].scale)))
                weights = torch.from_numpy(np.ascontiguousarray(_torch_order(step, one.weights))).to(torch.float32)
                self._weights[step.output] = weights, torch.from_numpy(one.bias.astype(np.int64)), factor

    @property
    def output(self) -> Affine:
        """Scale and zero point of the answer."""
        return self._scales[LOGITS]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        std, mean = (torch.tensor(one, dtype=x.dtype, device=x.device).view(1, 3, 1, 1) for one in (STD, MEAN))
        pixels = torch.round((x * std + mean) * 255.0)
        # Every tensor is held without its zero point: zeros around a picture are then zeros.
        values = {INPUT: (pixels - INPUT_ZERO).to(torch.int64)}
        for step in self._steps:
            values[step.output] = self._step(step, [values[name] for name in step.inputs])
        return values[LOGITS].to(x.dtype) * self.output.scale

    def _step(self, step: Operation, inputs: list[torch.Tensor]) -> torch.Tensor:
        if step.kind == "pad":
            around = (step.before, step.after)
            return functional.pad(inputs[0], (*around, *around))
        if step.kind == "add":
            return self._clamped(step, self._sum(step, *inputs))
        source, target = self._scale(step.inputs[0]), self._scale(step.output)
        if step.kind == "mean":
            count = inputs[0].shape[2] * inputs[0].shape[3]
            factor = _divided(quantized_multiplier(np.array([source / target])), count)
            return self._clamped(step, requantized(inputs[0].sum((2, 3)), factor))
        weights, bias, factor = self._weights[step.output]
        weights, bias = weights.to(inputs[0].device), bias.to(inputs[0].device)
        total = _product(step, inputs[0], weights)
        shape = (1, -1) if step.kind == "linear" else (1, -1, 1, 1)
        return self._clamped(step, requantized(total + bias.view(shape), factor, shape))

    def _sum(self, step: Operation, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        one, other = (self._scale(name) for name in step.inputs)
        twice = 2 * max(one, other)
        parts = [
            _away_from_zero(values << _ADD_SHIFT, quantized_multiplier(np.array([scale / twice])))
            for values, scale in ((first, one), (second, other))
        ]
        factor = quantized_multiplier(np.array([twice / ((1 << _ADD_SHIFT) * self._scale(step.output))]))
        return _away_from_zero(parts[0] + parts[1], factor)

    def _scale(self, name: str) -> float:
        return float(np.float32(self._scales[name].scale))

    def _clamped(self, step: Operation, values: torch.Tensor) -> torch.Tensor:
        zero, scale = self._scales[step.output].zero_point, self._scale(step.output)
        least, most = _LEAST - zero, _MOST - zero
        if step.activation != "linear":
            least = max(least, 0)
            upper = _UPPER[step.activation]
            most = most if upper is None else min(most, math.floor(upper / scale + 0.5))
        return values.clamp(least, most)


def quantized_multiplier(real: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive factors float64 (n,) as integers below 2^31 and exponents: factor = integer * 2^(exponent - 31)."""
    share, exponent = np.frexp(real)
    integer = np.floor(share * (1 << _BITS) + 0.5).astype(np.int64)
    full = integer == 1 << _BITS
    return (
        torch.from_numpy(np.where(full, integer // 2, integer)),
        torch.from_numpy(exponent.astype(np.int64) + full),
    )


def _divided(factor: tuple[torch.Tensor, torch.Tensor], count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The factor of a sum that stands for the mean of `count`, as the kernel makes it: its integer is divided, without
    being brought to 31 bits again. That leaves one bit less before the second rounding unless `count` is a power of
    two."""
    integer, exponent = factor
    left = min(count.bit_length() - 1, _BITS + int(exponent))
    return (integer << left) // count, exponent - left


def requantized(
    values: torch.Tensor, factor: tuple[torch.Tensor, torch.Tensor], shape: Union[tuple[int, ...], tuple[()]] = ()
) -> torch.Tensor:
    """int64 `values` times `factor`, rounded to the nearest integer twice, halves upwards: after the product's upper
    half is taken, and after the shift. `shape` places the factors along the channels."""
    integer, exponent = (one.to(values.device).view(shape) for one in factor)
    # Nothing is left of an int64 after 62 places; more are not defined.
    left, right = exponent.clamp_min(0), (-exponent).clamp(0, _BITS * 2)
    high = ((values << left) * integer + (1 << (_BITS - 1))) >> _BITS
    half = torch.where(right > 0, torch.ones_like(right) << (right - 1).clamp_min(0), torch.zeros_like(right))
    return (high + half) >> right


def _away_from_zero(values: torch.Tensor, factor: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """`requantized` with halves away from zero, as the kernel of sums has them."""
    return requantized(values.abs(), factor) * values.sign()


def _product(step: Operation, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    bound = float(weights.abs().flatten(1).sum(1).max()) * float(values.abs().max())
    exact = torch.float32 if bound < _EXACT_FLOAT32 else torch.float64
    values, weights = values.to(exact), weights.to(exact)
    if step.kind == "linear":
        return functional.linear(values, weights).to(torch.int64)
    values = values.contiguous(memory_format=torch.channels_last)
    groups = len(weights) if step.kind == "depthwise" else 1
    padding = weights.shape[2] // 2 if step.same else 0
    return functional.conv2d(values, weights, None, step.stride, padding, groups=groups).to(torch.int64)


def _torch_order(step: Operation, weights: np.ndarray) -> np.ndarray:
    if step.kind == "linear":
        return weights
    return weights.transpose(3, 0, 1, 2) if step.kind == "depthwise" else weights.transpose(0, 3, 1, 2)
