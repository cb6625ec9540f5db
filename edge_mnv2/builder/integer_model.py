"""The full-integer int8 `.tflite` of a trained network: raw pixels in, no floating-point tensor inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import numpy as np

from edge_mnv2.builder.emit import Emitter, head
from edge_mnv2.builder.inference import INPUT, Operation
from edge_mnv2.builder.quantization import (
    LOGIT_MARGIN,
    VALUE_MARGIN,
    Affine,
    Integers,
    Ranges,
    activation_scales,
    affine,
    quantize,
    weight_axis,
)
from edge_mnv2.network.network import Network
from edge_mnv2.tflite.graph import write
from edge_mnv2.tflite.ir import Quantization, Tensor


class _Integers:
    dtype = "int8"

    def __init__(self, scales: Mapping[str, Affine], constants: Mapping[str, Integers]) -> None:
        self._scales = scales
        self._constants = constants

    def quantization(self, name: str) -> Optional[Quantization]:
        return Quantization.per_tensor(self._scales[name].scale, self._scales[name].zero_point)

    def constants(self, operation: Operation) -> tuple[Tensor, Tensor]:
        values = self._constants[operation.output]
        bias_scale = values.weight_scale.astype(np.float64) * self._scales[operation.inputs[0]].scale
        return (
            Tensor.constant(
                f"{operation.output}.weights",
                values.weights,
                Quantization.per_channel(values.weight_scale, weight_axis(operation)),
            ),
            Tensor.constant(f"{operation.output}.bias", values.bias, Quantization.per_channel(bias_scale, 0)),
        )


Numbers = tuple[dict[str, Affine], dict[str, Integers]]
"""Scale and zero point of every activation, and the constants of every layer, by the names of tensors."""


def numbers(network: Network, steps: list[Operation], ranges: Ranges) -> Numbers:
    """The integers of `network`, whose operations are `steps`, with activations quantized for `ranges`."""
    margin = LOGIT_MARGIN if network.head.task == "classification" else VALUE_MARGIN
    scales = activation_scales(steps, ranges, margin)
    return scales, quantize(steps, scales)


def integer_model(
    network: Network,
    steps: list[Operation],
    numbers: Numbers,
    *,
    input_dtype: str = "uint8",
    output_dtype: str = "int8",
) -> bytes:
    """The `.tflite` of `network`, whose operations are `steps`, in the integers of `numbers`.

    The input is the pixel itself (uint8) or the pixel minus 128 (int8). The output is int8, or float32 by a last
    operator that dequantizes it.
    """
    scales = {**numbers[0], **_head_scales(network)}
    emitter = Emitter(_Integers(scales, numbers[1]))
    if input_dtype == "uint8":
        source = scales[INPUT]
        pixels = Quantization.per_tensor(source.scale, source.zero_point + 128)
        image = emitter.add_tensor(Tensor("image", (1, *network.input), "uint8", None, pixels))
        emitter.add_operator("QUANTIZE", [image], emitter.activation(INPUT, network.input), "QuantizeOptions")
    else:
        image = emitter.activation(INPUT, network.input)
    for step in steps:
        answer = emitter.operation(step)
    answer = head(emitter, network, answer, _exact)
    if output_dtype == "float32":
        real = emitter.add_tensor(Tensor(f"{answer.name}.real", answer.shape, "float32"))
        answer = emitter.add_operator("DEQUANTIZE", [answer], real, "DequantizeOptions")
    return write(emitter.graph([image], [answer], f"{network.name} int8"))


def _head_scales(network: Network) -> dict[str, Affine]:
    """Scales of what follows the logits. The kernels of SOFTMAX and LOGISTIC give 256ths of 1, nothing else."""
    scales = {"probabilities": Affine(1 / 256, -128), "fraction": Affine(1 / 256, -128)}
    if network.head.bounds is not None:
        low, high = network.head.bounds
        scales["scaled"] = Affine(float(np.float32((high - low) / 256)), -128)
        scales["value"] = affine(low, high) if low else scales["scaled"]
    return scales


def _exact(name: str, value: float) -> Tensor:
    """A constant of one value, which is the end of its own integer range."""
    stored = np.array([127 if value > 0 else -127], np.int8)
    return Tensor.constant(name, stored, Quantization.per_tensor(abs(value) / 127, 0))
