"""A `.tflite` as ONNX in real numbers, for compilers of accelerators, which choose integers of their own.

Weights and biases are taken by their real values; where integers cut an activation off, so does the ONNX. Its input
`image` is what the first layer reads, float32 (1, channels, rows, columns): normalization is the compiler's.
"""

from __future__ import annotations

import numpy as np

from edge_mnv2.tflite import ir
from edge_mnv2.tflite.ir import Graph, Operator, Tensor
from edge_mnv2.tflite.onnx_twin import NoTwin, TwinInput, TwinWriter, affine, operand

_CUT = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL")
_MEANT = (1.0, 6.0)
"""Ends of a range from 0 that cut off on purpose, not because nothing larger was seen."""


def onnx_float(graph: Graph) -> bytes:
    """The ONNX file of `graph`. Raises NoTwin for what it has no form for."""
    if len(graph.subgraphs) != 1 or len(graph.inputs) != 1 or not graph.outputs:
        raise NoTwin("it has several subgraphs or inputs")
    return _FloatWriter().model(graph)[0]


class _FloatWriter(TwinWriter):
    def _picture(self, tensor: Tensor) -> TwinInput:
        if len(tensor.shape) != 4 or tensor.dynamic:
            raise NoTwin("it takes no picture of a fixed size")
        self._names[tensor] = "image"
        _, rows, columns, channels = tensor.shape
        return TwinInput((1, channels, rows, columns), "float32", 0.0, 0)

    def _rounded(self, operator: Operator, result: str) -> str:
        output = operator.outputs[0]
        fused = operator.options.get("fused_activation_function", ir.ACTIVATION_NONE)
        if operator.kind not in _CUT or fused != ir.ACTIVATION_NONE or not output.quantized:
            return result
        # A converter, and a taught head, may leave it to the range of the integers to be the activation function.
        scale, zero = affine(output)
        highest = next((one for one in _MEANT if abs(255 * scale - one) <= 2 * scale), np.inf)
        return self._clipped(result, 0.0, highest) if zero == 0 else result

    def _cut_off(self, operator: Operator, result: str, low: float, high: float) -> str:  # noqa: ARG002
        return self._clipped(result, low, high)

    def _clipped(self, result: str, low: float, high: float) -> str:
        limits = [self._number(low), self._number(high)]
        return self._node("Relu", [result]) if high == np.inf else self._node("Clip", [result, *limits])

    def _parameters(self, operator: Operator, source: Tensor, order: tuple[int, ...], _axis: int) -> list[str]:
        weights, bias = operand(operator, 1), operator.inputs[2] if len(operator.inputs) > 2 else None
        values = np.asarray(weights.real(), np.float32).transpose(order)
        values = values.reshape(*values.shape, *(1,) * (4 - values.ndim))
        if bias is None:
            return [self._constant(values)]
        numbers = bias.array().astype(np.float64)
        if bias.dtype == "int32":
            assert weights.quantization is not None
            numbers = numbers * weights.quantization.scale.astype(np.float64) * affine(source)[0]
        return [self._constant(values), self._constant(numbers.astype(np.float32))]
