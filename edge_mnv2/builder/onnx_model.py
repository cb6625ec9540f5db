"""A trained network as an ONNX file, in floats or with the integers of the int8 `.tflite`.

Input `image` is the picture itself: uint8 (1, rows, columns, 3), RGB. Normalization and the change to channels-first
are in the graph. Output `logits` (`probabilities`, `value` with such a head) is float32 (1, outputs) in both forms.

The integer form is QDQ: every activation passes QuantizeLinear and DequantizeLinear, which ONNX Runtime merges into
integer kernels. Weights, biases, scales and zero points are those of the `.tflite`, activations shifted to uint8; so
the two differ only by how their kernels round. (uint8 activations with int8 weights are what ONNX Runtime is fastest
with. Its kernels for x86 without VNNI add pairs of such products in 16 bits and may saturate.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

import numpy as np

from edge_mnv2.builder.inference import IMAGENET_PICTURES, INPUT, LOGITS, Normalization, Operation, same_zeros
from edge_mnv2.builder.quantization import Affine, Integers, weight_axis
from edge_mnv2.network.network import Network
from edge_mnv2.tflite.wire_formats import OnnxFile

_FLOAT = 1
_SHIFT = 128
"""From int8 to uint8: zero points move with the values, so the real values stay."""


def onnx_model(
    network: Network,
    steps: list[Operation],
    integers: Optional[tuple[Mapping[str, Affine], Mapping[str, Integers]]] = None,
    metadata: Optional[Mapping[str, str]] = None,
    pictures: Normalization = IMAGENET_PICTURES,
) -> bytes:
    """The ONNX file of `network`, whose operations are `steps`; `integers` are scales and constants of the int8 form.

    `metadata` becomes the file's metadata properties.
    """
    writer = _Writer(integers)
    writer.picture(pictures)
    for step in steps:
        writer.operation(step)
    output = writer.head(network)
    return writer.file.serialize(
        {"image": ("uint8", (1, *network.input))},
        {output: ("float32", (1, network.outputs))},
        network.name,
        metadata,
    )


class _Writer:
    """Collects nodes and constants. Activations keep the names that they have in the `.tflite`."""

    def __init__(self, integers: Optional[tuple[Mapping[str, Affine], Mapping[str, Integers]]]) -> None:
        self.file = OnnxFile()
        self._scales: Optional[Mapping[str, Affine]] = integers[0] if integers is not None else None
        self._integers: Mapping[str, Integers] = integers[1] if integers is not None else {}
        self._padded: dict[str, tuple[str, list[int]]] = {}
        self._relu6: Optional[tuple[str, str]] = None
        self.node = self.file.node

    def constant(self, name: str, values: np.ndarray) -> str:
        return self.file.constant(values, name)

    def picture(self, pictures: Normalization) -> None:
        """From `image` to `INPUT`: channels first, normalized."""
        turned = self.node("Transpose", ["image"], "image.channels_first", perm=[0, 3, 1, 2])
        if self._scales is not None:
            self.node("DequantizeLinear", [turned, *self._affine(INPUT, self._scales[INPUT])], INPUT)
            return
        numbers = self.node("Cast", [turned], "image.float", to=_FLOAT)
        mean, std = (np.array(values).reshape(1, 3, 1, 1) for values in (pictures.mean, pictures.std))
        scale = self.constant("image.scale", (1.0 / (255.0 * std)).astype(np.float32))
        shift = self.constant("image.shift", (-mean / std).astype(np.float32))
        self.node("Add", [self.node("Mul", [numbers, scale], "image.scaled"), shift], INPUT)

    def operation(self, step: Operation) -> None:
        """Append `step`, whose inputs are there already."""
        if step.kind == "pad":
            # ONNX convolutions take any number of zeros on each side: no operator of their own.
            self._padded[step.output] = step.inputs[0], [step.before] * 2 + [step.after] * 2
            return
        result = f"{step.output}.exact" if self._scales is not None else step.output
        if step.kind == "add":
            self._activated(step, self.node("Add", list(step.inputs), self._raw(step, result)), result)
        elif step.kind == "mean":
            self.node("GlobalAveragePool", list(step.inputs), result)
        elif step.kind == "linear":
            # As a 1x1 convolution: ONNX Runtime has an integer kernel for that with one scale a channel, not for Gemm.
            weights, bias = self._parameters(step)
            result = f"{step.output}.exact" if step.output == LOGITS else result
            raw = self.node("Conv", [step.inputs[0], weights, bias], self._raw(step, result), kernel_shape=[1, 1])
            self._activated(step, raw, result)
        else:
            self._convolution(step, result)
        self._finish(step, result)

    def head(self, network: Network) -> str:
        """From the logits to what the network answers, in floats."""
        head = network.head
        if head.softmax:
            return self.node("Softmax", [LOGITS], "probabilities", axis=1)
        if head.bounds is None:
            return LOGITS
        low, high = head.bounds
        span = self.constant("span", np.array([high - low], np.float32))
        start = self.constant("low", np.array([low], np.float32))
        fraction = self.node("Sigmoid", [LOGITS], "fraction")
        return self.node("Add", [self.node("Mul", [fraction, span], "scaled"), start], "value")

    def _convolution(self, step: Operation, result: str) -> None:
        assert step.weights is not None
        source, pads = self._padded.get(step.inputs[0], (step.inputs[0], None))
        kernel = step.weights.shape[1]
        if pads is None:
            rows, columns = (same_zeros(size, kernel, step.stride) for size in step.size)
            pads = [rows[0], columns[0], rows[1], columns[1]]
        weights, bias = self._parameters(step)
        raw = self.node(
            "Conv",
            [source, weights, bias],
            self._raw(step, result),
            kernel_shape=[kernel, kernel],
            strides=[step.stride, step.stride],
            pads=pads,
            group=step.shape[2] if step.kind == "depthwise" else 1,
        )
        self._activated(step, raw, result)

    def _raw(self, step: Operation, result: str) -> str:
        return f"{result}.linear" if self._clip(step) is not None else result

    def _activated(self, step: Operation, raw: str, result: str) -> None:
        clip = self._clip(step)
        if clip == "Relu":
            self.node("Relu", [raw], result)
        elif clip == "Clip":
            low, high = self._limits()
            self.node("Clip", [raw, low, high], result)

    def _clip(self, step: Operation) -> Optional[str]:
        """The operator of the activation function, None where there is none or quantization does the same."""
        if step.activation == "linear":
            return None
        if self._scales is not None:
            scale, zero = self._scales[step.output].scale, self._scales[step.output].zero_point
            highest = scale * (127 - zero)
            if zero == -128 and (step.activation == "relu" or highest <= 6.0 + scale / 2):
                return None
        return "Relu" if step.activation == "relu" else "Clip"

    def _limits(self) -> tuple[str, str]:
        if self._relu6 is None:
            low, high = (np.array(value, np.float32) for value in (0.0, 6.0))
            self._relu6 = self.constant("relu6.low", low), self.constant("relu6.high", high)
        return self._relu6

    def _finish(self, step: Operation, result: str) -> None:
        """Quantize and dequantize `result` in the integer form; logits become a row."""
        row = step.output == LOGITS
        if self._scales is None:
            if row:
                self.node("Flatten", [result], step.output, axis=1)
            return
        scale, zero = self._affine(step.output, self._scales[step.output])
        coarse = self.node("QuantizeLinear", [result, scale, zero], f"{step.output}.quantized")
        if row:
            coarse = self.node("Flatten", [coarse], f"{step.output}.row", axis=1)
        self.node("DequantizeLinear", [coarse, scale, zero], step.output)

    def _affine(self, name: str, affine: Affine) -> tuple[str, str]:
        """The constants of a quantization, for `name` and once only."""
        return (
            self.constant(f"{name}.scale", np.array(affine.scale, np.float32)),
            self.constant(f"{name}.zero_point", np.array(affine.zero_point + _SHIFT, np.uint8)),
        )

    def _parameters(self, step: Operation) -> tuple[str, str]:
        """Weights and bias in ONNX's layout (outputs, inputs, rows, columns), dequantized where they are integers."""
        assert step.weights is not None and step.bias is not None
        name = step.output
        if self._scales is None:
            weights = self.constant(f"{name}.weights", _onnx_layout(step, step.weights).astype(np.float32))
            return weights, self.constant(f"{name}.bias", step.bias.astype(np.float32))
        values, source = self._integers[name], self._scales[step.inputs[0]]
        scale = self.constant(f"{name}.weights.scale", values.weight_scale)
        weights = self.node(
            "DequantizeLinear",
            [self.constant(f"{name}.weights.quantized", _onnx_layout(step, values.weights)), scale],
            f"{name}.weights",
            axis=0,
        )
        both = values.weight_scale.astype(np.float64) * source.scale
        bias_scale = self.constant(f"{name}.bias.scale", both.astype(np.float32))
        bias = self.node(
            "DequantizeLinear",
            [self.constant(f"{name}.bias.quantized", values.bias), bias_scale],
            f"{name}.bias",
            axis=0,
        )
        return weights, bias


def _onnx_layout(step: Operation, weights: np.ndarray) -> np.ndarray:
    if step.kind == "linear":
        return weights[:, :, None, None]
    return np.moveaxis(weights, weight_axis(step), 0).transpose(
        (0, 1, 2, 3) if step.kind == "depthwise" else (0, 3, 1, 2)
    )
