"""The ONNX twin of a full-integer `.tflite`: the same integers, for runtimes that read ONNX and not `.tflite`.

Weights, biases, scales and zero points are taken as they are, activations counted from 0 as uint8; so a twin differs
from its `.tflite` only by how kernels round. The form is QDQ, which the runtimes merge into integer kernels.

The twin takes the picture in the layout of the `.tflite` (NHWC; int8 becomes uint8) and answers in real numbers,
float32. Inside, every tensor has four dimensions, channels second: a row (1, N) is (1, N, 1, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.tflite import ir
from edge_mnv2.tflite.ir import Graph, Operator, Tensor
from edge_mnv2.tflite.wire_formats import OnnxFile

_SAME_VALUES = ("DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_BOUNDS = {ir.ACTIVATION_RELU: (0.0, np.inf), ir.ACTIVATION_RELU6: (0.0, 6.0), ir.ACTIVATION_RELU_N1_TO_1: (-1.0, 1.0)}
_LEAST_LENGTH = 1e-6
"""LiteRT's L2 normalization divides by no less."""


class NoTwin(ModelError):
    """The model cannot be written as ONNX with the same integers; the message says which part."""


@dataclass(frozen=True)
class TwinInput:
    """The twin's only input: `scale` 0.0 where it takes floats."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


def onnx_twin(graph: Graph) -> tuple[bytes, TwinInput]:
    """The ONNX file of `graph` and what it takes. Raises NoTwin for what it has no form for."""
    if len(graph.subgraphs) != 1 or len(graph.inputs) != 1 or not graph.outputs:
        raise NoTwin("it has several subgraphs or inputs")
    return TwinWriter().model(graph)


class TwinWriter:
    def __init__(self) -> None:
        self._file = OnnxFile()
        self._node, self._constant, self._number = self._file.node, self._file.constant, self._file.number
        self._names: dict[Tensor, str] = {}
        self._padded: dict[Tensor, tuple[Tensor, list[int]]] = {}

    def model(self, graph: Graph) -> tuple[bytes, TwinInput]:
        picture = self._picture(graph.inputs[0])
        for operator in graph.operators:
            self._operator(operator)
        outputs: dict[str, tuple[str, Sequence[int]]] = {}
        for number, tensor in enumerate(graph.outputs):
            shape = [1 if n < 0 else n for n in tensor.shape]
            rows = self._nhwc(tensor)
            self._node("Reshape", [rows, self._constant(np.array(shape, np.int64))], output=f"output{number}")
            outputs[f"output{number}"] = "float32", shape
        images = {"image": (picture.dtype, picture.shape)}
        return self._file.serialize(images, outputs), picture

    def _picture(self, tensor: Tensor) -> TwinInput:
        if len(tensor.shape) != 4 or tensor.dynamic:
            raise NoTwin("it takes no picture of a fixed size")
        turned = self._node("Transpose", ["image"], perm=[0, 3, 1, 2])
        if tensor.dtype == "float32":
            self._names[tensor] = turned
            return TwinInput(tensor.shape, "float32", 0.0, 0)
        scale, zero = affine(tensor)
        self._names[tensor] = self._node("DequantizeLinear", [turned, *self._scaling(scale, zero)])
        return TwinInput(tensor.shape, "uint8", scale, zero)

    # One operator

    def _operator(self, operator: Operator) -> None:
        output = operator.outputs[0]
        write = _WRITERS.get(operator.kind)
        if write is None:
            raise NoTwin(f"the operator {operator.name} has no ONNX form here")
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor is not None and tensor.data is None and tensor.dtype == "int16":
                raise NoTwin(f"{operator.name} computes in int16")
        result = write(self, operator)
        if not result:
            return
        if operator.kind not in _SAME_VALUES:
            result = self._activated(operator, result)
        self._names[output] = self._rounded(operator, result)

    def _rounded(self, operator: Operator, result: str) -> str:
        """`result` on the steps of the operator's output."""
        output = operator.outputs[0]
        if output.dtype == "int32" or operator.kind == "DEQUANTIZE":
            return result
        if not output.quantized:
            raise NoTwin(f"{operator.name} computes in {output.dtype}: it is no full-integer model")
        source = operator.inputs[0]
        if operator.kind in ("QUANTIZE", *_SAME_VALUES) and source is not None and source.quantized:
            if affine(source) == affine(output):
                return result
        scaling = self._scaling(*affine(output))
        return self._node("DequantizeLinear", [self._node("QuantizeLinear", [result, *scaling]), *scaling])

    def _activated(self, operator: Operator, result: str) -> str:
        """The fused activation function, where quantization does not cut off at the same values."""
        activation = operator.options.get("fused_activation_function", ir.ACTIVATION_NONE)
        if activation == ir.ACTIVATION_NONE:
            return result
        if activation not in _BOUNDS:
            raise NoTwin(f"{operator.name} has the activation function {activation}")
        return self._cut_off(operator, result, *_BOUNDS[activation])

    def _cut_off(self, operator: Operator, result: str, low: float, high: float) -> str:
        output = operator.outputs[0]
        if output.quantized and output.dtype in ("int8", "uint8"):
            scale, zero = affine(output)
            if -zero * scale >= low - scale / 2 and (255 - zero) * scale <= high + scale / 2:
                return result
        limits = [self._number(low), self._number(high)]
        return self._node("Relu", [result]) if high == np.inf else self._node("Clip", [result, *limits])

    def _convolution(self, operator: Operator) -> str:
        source, weights = operand(operator, 0), operand(operator, 1)
        options, depthwise = operator.options, operator.kind == "DEPTHWISE_CONV_2D"
        rows, columns = weights.shape[1:3]
        strides = [options.get("stride_h", 1), options.get("stride_w", 1)]
        dilations = [options.get("dilation_h_factor", 1), options.get("dilation_w_factor", 1)]
        pads = [0, 0, 0, 0]
        if options.get("padding") == ir.PADDING_SAME:
            reach = [(rows - 1) * dilations[0] + 1, (columns - 1) * dilations[1] + 1]
            pads = _same(source.shape[1:3], reach, strides)
        elif source in self._padded:
            # ONNX convolutions take any number of zeros on each side: no operator of their own.
            source, pads = self._padded[source]
        order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        groups = source.shape[3] // weights.shape[3] if not depthwise else source.shape[3]
        return self._node(
            "Conv",
            [self._real(source), *self._parameters(operator, source, order, 3 if depthwise else 0)],
            kernel_shape=[rows, columns],
            strides=strides,
            dilations=dilations,
            pads=pads,
            group=groups,
        )

    def _linear(self, operator: Operator) -> str:
        # As a 1x1 convolution: runtimes have an integer kernel for that with one scale a channel, not for Gemm.
        source = operand(operator, 0)
        if operator.options.get("weights_format"):
            raise NoTwin("FULLY_CONNECTED has shuffled weights")
        weights = operand(operator, 1)
        rows = self._row(source, weights.shape[1])
        return self._node("Conv", [rows, *self._parameters(operator, source, (0, 1), 0)], kernel_shape=[1, 1])

    def _parameters(self, operator: Operator, source: Tensor, order: tuple[int, ...], axis: int) -> list[str]:
        """Weights in ONNX's layout (outputs, inputs, rows, columns) and bias, both dequantized."""
        weights, bias = operand(operator, 1), operator.inputs[2] if len(operator.inputs) > 2 else None
        scaling = weights.quantization
        if not source.quantized or scaling is None or not weights.quantized or weights.dtype not in ("int8", "uint8"):
            raise NoTwin(f"{operator.name} has {weights.dtype} weights or float inputs: it is no full-integer model")
        values = weights.array().transpose(order)
        values = values.reshape(*values.shape, *(1,) * (4 - values.ndim))
        scale, zero = scaling.scale.astype(np.float32), scaling.zero_point
        if len(scale) > 1 and scaling.axis != axis:
            raise NoTwin(f"{operator.name} has one scale for each slice along axis {scaling.axis} of its weights")
        inputs = [self._constant(values)]
        if len(scale) > 1 or not zero.any():
            scale = np.broadcast_to(scale, len(values)).copy()
            inputs += [self._constant(scale), self._constant(np.broadcast_to(zero, len(values)).astype(values.dtype))]
            dequantized = self._node("DequantizeLinear", inputs, axis=0)
        else:
            inputs += [self._constant(scale[0]), self._constant(zero[0].astype(values.dtype))]
            dequantized = self._node("DequantizeLinear", inputs)
        if bias is None:
            return [dequantized]
        if bias.dtype != "int32":
            raise NoTwin(f"{operator.name} has a bias in {bias.dtype}")
        steps = scale.astype(np.float64) * affine(source)[0]
        steps = np.broadcast_to(steps, len(values)).astype(np.float32)
        numbers = [self._constant(bias.array()), self._constant(steps)]
        return [dequantized, self._node("DequantizeLinear", numbers, axis=0)]

    def _pad(self, operator: Operator) -> str:
        source, around = operand(operator, 0), operand(operator, 1).array().astype(int)
        if around.shape != (4, 2) or around[[0, 3]].any():
            raise NoTwin("PAD adds to the batch or to the channels")
        self._padded[operator.outputs[0]] = source, [*around[1:3, 0].tolist(), *around[1:3, 1].tolist()]
        return ""

    def _pool(self, operator: Operator) -> str:
        source, options = operand(operator, 0), operator.options
        size = [options["filter_height"], options["filter_width"]]
        strides = [options.get("stride_h", 1), options.get("stride_w", 1)]
        same = options.get("padding") == ir.PADDING_SAME
        pads = _same(source.shape[1:3], size, strides) if same else [0, 0, 0, 0]
        if operator.kind == "MAX_POOL_2D":
            return self._node("MaxPool", [self._real(source)], kernel_shape=size, strides=strides, pads=pads)
        if size == list(source.shape[1:3]) and not any(pads):
            return self._node("GlobalAveragePool", [self._real(source)])
        return self._node("AveragePool", [self._real(source)], kernel_shape=size, strides=strides, pads=pads)

    def _mean(self, operator: Operator) -> str:
        source, axes = operand(operator, 0), sorted(operand(operator, 1).array().reshape(-1).tolist())
        if len(source.shape) != 4 or [axis % 4 for axis in axes] != [1, 2]:
            raise NoTwin(f"MEAN runs over the axes {axes}")
        return self._node("GlobalAveragePool", [self._real(source)])

    def _elementwise(self, operator: Operator) -> str:
        kind = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}[operator.kind]
        return self._node(kind, [self._real(operand(operator, 0)), self._real(operand(operator, 1))])

    def _softmax(self, operator: Operator) -> str:
        logits = self._row(operand(operator, 0))
        if (beta := operator.options.get("beta", 1.0)) != 1.0:
            logits = self._node("Mul", [logits, self._number(beta)])
        return self._node("Softmax", [logits], axis=1)

    def _maximum(self, operator: Operator) -> str:
        source = operand(operator, 0)
        if len(source.shape) != 2 or [axis % 2 for axis in operand(operator, 1).array().reshape(-1).tolist()] != [1]:
            raise NoTwin("REDUCE_MAX runs over more than a row")
        return self._node("ReduceMax", [self._row(source)], axes=[1], keepdims=1)

    def _unit_length(self, operator: Operator) -> str:
        values = self._real(operand(operator, 0))
        length = self._node("ReduceL2", [values], axes=[1], keepdims=1)
        return self._node("Div", [values, self._node("Max", [length, self._number(_LEAST_LENGTH)])])

    def _joined(self, operator: Operator) -> str:
        dimensions = len(operator.outputs[0].shape)
        axis = operator.options.get("axis", 0) % dimensions
        axis = {4: (0, 2, 3, 1), 2: (0, 1)}.get(dimensions, (0,) * dimensions)[axis]
        tensors = [tensor for tensor in operator.inputs if tensor is not None]
        return self._node("Concat", [self._real(tensor) for tensor in tensors], axis=axis)

    def _rectified(self, operator: Operator) -> str:
        values = self._real(operand(operator, 0))
        return self._cut_off(operator, values, 0.0, 6.0 if operator.kind == "RELU6" else np.inf)

    def _cast(self, operator: Operator) -> str:
        """The same integers in a wider type: another real value where the zero points differ."""
        source, output = operand(operator, 0), operator.outputs[0]
        old, new = source.quantization, output.quantization
        if old is None or new is None or len(old.scale) != 1 or not np.array_equal(old.scale, new.scale):
            raise NoTwin("CAST changes the scale")
        moved = float(old.scale[0]) * (int(old.zero_point[0]) - int(new.zero_point[0]))
        return self._node("Add", [self._real(source), self._number(moved)]) if moved else self._real(source)

    def _same_values(self, operator: Operator) -> str:
        source, output = operand(operator, 0), operator.outputs[0]
        if source.shape == output.shape or _spatial(source) == _spatial(output) == 1:
            return self._real(source)
        if len(output.shape) == 2:
            return self._row(source)
        raise NoTwin(f"{operator.name} makes {list(output.shape)} of {list(source.shape)}")

    # Tensors

    def _real(self, tensor: Tensor) -> str:
        """The real values of a tensor, channels second."""
        if tensor in self._names:
            return self._names[tensor]
        if tensor in self._padded:
            source, pads = self._padded[tensor]
            amounts = [0, 0, *pads[:2], 0, 0, *pads[2:]]
            self._names[tensor] = self._node(
                "Pad", [self._real(source), self._constant(np.array(amounts, np.int64)), self._number(0.0)]
            )
        elif tensor.data is not None:
            values = tensor.real().astype(np.float32)
            values = values.reshape((1,) * (4 - values.ndim) + values.shape) if values.ndim != 2 else values
            turned = values[:, :, None, None] if values.ndim == 2 else values.transpose(0, 3, 1, 2)
            self._names[tensor] = self._constant(turned)
        else:
            raise NoTwin(f"the tensor '{tensor.name}' has no values")
        return self._names[tensor]

    def _nhwc(self, tensor: Tensor) -> str:
        real = self._real(tensor)
        return real if _spatial(tensor) == 1 else self._node("Transpose", [real], perm=[0, 2, 3, 1])

    def _row(self, tensor: Tensor, size: Optional[int] = None) -> str:
        """A tensor as (1, N, 1, 1), its values in the order of the `.tflite`."""
        if _spatial(tensor) == 1:
            return self._real(tensor)
        count = size or int(np.prod(tensor.shape[1:]))
        return self._node("Reshape", [self._nhwc(tensor), self._constant(np.array([1, count, 1, 1], np.int64))])

    def _scaling(self, scale: float, zero_point: int) -> list[str]:
        return [self._number(scale), self._constant(np.array(zero_point, np.uint8))]


_WRITERS: dict[str, Callable[[TwinWriter, Operator], str]] = {
    "CONV_2D": TwinWriter._convolution,
    "DEPTHWISE_CONV_2D": TwinWriter._convolution,
    "FULLY_CONNECTED": TwinWriter._linear,
    "PAD": TwinWriter._pad,
    "AVERAGE_POOL_2D": TwinWriter._pool,
    "MAX_POOL_2D": TwinWriter._pool,
    "MEAN": TwinWriter._mean,
    "ADD": TwinWriter._elementwise,
    "SUB": TwinWriter._elementwise,
    "MUL": TwinWriter._elementwise,
    "SOFTMAX": TwinWriter._softmax,
    "LOGISTIC": lambda writer, operator: writer._node("Sigmoid", [writer._real(operand(operator, 0))]),
    "RELU": TwinWriter._rectified,
    "RELU6": TwinWriter._rectified,
    "REDUCE_MAX": TwinWriter._maximum,
    "L2_NORMALIZATION": TwinWriter._unit_length,
    "CONCATENATION": TwinWriter._joined,
    "QUANTIZE": TwinWriter._same_values,
    "CAST": TwinWriter._cast,
    **dict.fromkeys(_SAME_VALUES, TwinWriter._same_values),
}


def operand(operator: Operator, position: int) -> Tensor:
    tensor = operator.inputs[position] if position < len(operator.inputs) else None
    if tensor is None:
        raise NoTwin(f"{operator.name} lacks its input number {position}")
    return tensor


def affine(tensor: Tensor) -> tuple[float, int]:
    """(scale, zero point) of a tensor that counts from 0, as uint8."""
    scaling = tensor.quantization
    if scaling is None or len(scaling.scale) != 1 or tensor.dtype not in ("int8", "uint8"):
        raise NoTwin(f"the tensor '{tensor.name}' is {tensor.dtype} without one scale: it is no full-integer model")
    return float(scaling.scale[0]), int(scaling.zero_point[0]) + (128 if tensor.dtype == "int8" else 0)


def _spatial(tensor: Tensor) -> int:
    """Rows times columns of a tensor; 1 for a row."""
    return int(np.prod(tensor.shape[1:-1], dtype=np.int64)) if len(tensor.shape) > 2 else 1


def _same(size: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[int]:
    """ONNX's `pads` of SAME: [rows before, columns before, rows after, columns after]."""
    lacking = [max(0, (-(-n // step) - 1) * step + far - n) for n, far, step in zip(size, reach, strides)]
    return [n // 2 for n in lacking] + [n - n // 2 for n in lacking]
