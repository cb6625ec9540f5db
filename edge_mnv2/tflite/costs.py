"""What a graph's operators cost: multiply-accumulates (MACs), parameters, activation memory.

Only convolutions and matrix products have MACs; additions, pooling and activations count as 0, as in the published
tables of MobileNet. None means unknown and makes every sum that contains it unknown.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Optional

from edge_mnv2.tflite.ir import Operator, Subgraph, Tensor

ARENA_ALIGNMENT = 64

_BITS = {
    "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64, "int2": 2, "int4": 4, "uint4": 4, "int8": 8,
    "uint8": 8, "bool": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64,
    "complex64": 64, "complex128": 128,
}  # fmt: skip

_BIAS_POSITION = {
    "CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3, "CONV_3D": 2,
    "CONV_3D_TRANSPOSE": 3,
}  # fmt: skip

_OPAQUE = {
    "CUSTOM", "DELEGATE", "IF", "WHILE", "CALL", "CALL_ONCE", "LSTM", "RNN", "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN", "CONCAT_EMBEDDINGS", "DILATE", "RFFT2D",
}  # fmt: skip


def elements(shape: Sequence[int]) -> int:
    """Number of elements of `shape`; a dimension that is not known counts as 1."""
    return math.prod(max(n, 1) if n < 0 else n for n in shape)


def unknown_size(tensor: Tensor) -> bool:
    """Whether a dimension other than the batch is dynamic: the shape in the file then says nothing about the cost."""
    signature = tensor.shape_signature or tensor.shape
    return any(n < 0 for n in signature[1:])


def tensor_bytes(tensor: Tensor) -> Optional[int]:
    """Bytes of a tensor's content for batch 1; None for strings, resources and unknown sizes."""
    bits = _BITS.get(tensor.dtype)
    if bits is None or unknown_size(tensor):
        return None
    return (elements(tensor.shape) * bits + 7) // 8


def operator_macs(operator: Operator) -> Optional[int]:
    """Multiply-accumulates of one execution with batch 1 where the batch is dynamic. None where it cannot be told."""
    formula = _FORMULAS.get(operator.kind)
    if formula is None:
        hidden = operator.kind in _OPAQUE or operator.kind.startswith(("STABLEHLO", "TYPE"))
        return None if hidden else 0
    if any(tensor is not None and unknown_size(tensor) for tensor in (*operator.inputs, *operator.outputs)):
        return None
    try:
        return formula(operator)
    except (IndexError, ValueError):
        # Fewer inputs or dimensions than the operator needs: the runtime will refuse it, no cost can be given.
        return None


def _convolution(operator: Operator) -> int:
    _, height, width, depth = _shape(operator, 1)
    return elements(operator.outputs[0].shape) * height * width * depth


def _depthwise(operator: Operator) -> int:
    _, height, width, _ = _shape(operator, 1)
    return elements(operator.outputs[0].shape) * height * width


def _fully_connected(operator: Operator) -> int:
    return elements(operator.outputs[0].shape) * _shape(operator, 1)[-1]


def _transposed_convolution(operator: Operator) -> int:
    outputs, height, width, _ = _shape(operator, 1)
    return elements(_shape(operator, 2)) * height * width * outputs


def _convolution_3d(operator: Operator) -> int:
    depth, height, width, inputs, _ = _shape(operator, 1)
    return elements(operator.outputs[0].shape) * depth * height * width * inputs


def _transposed_convolution_3d(operator: Operator) -> int:
    depth, height, width, outputs, _ = _shape(operator, 1)
    return elements(_shape(operator, 2)) * depth * height * width * outputs


def _batched_product(operator: Operator) -> int:
    return elements(operator.outputs[0].shape) * _shape(operator, 0)[-2 if operator.options.get("adj_x") else -1]


_FORMULAS: dict[str, Callable[[Operator], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transposed_convolution,
    "CONV_3D": _convolution_3d,
    "CONV_3D_TRANSPOSE": _transposed_convolution_3d,
    "BATCH_MATMUL": _batched_product,
}


def _shape(operator: Operator, position: int) -> tuple[int, ...]:
    tensor = operator.inputs[position]
    if tensor is None:
        raise IndexError(position)
    return tensor.shape


def operator_parameters(operator: Operator, seen: Optional[set[int]] = None) -> int:
    """Weights and biases that `operator` reads: constants, without shapes, axes, paddings and other whole numbers.

    `seen` collects what was counted, so that a constant that several operators share counts once.
    """
    counted = 0
    bias = _BIAS_POSITION.get(operator.kind)
    for position, tensor in enumerate(operator.inputs):
        if tensor is None or tensor.data is None:
            continue
        if tensor.dtype in ("int32", "int64", "uint32", "bool", "string") and position != bias:
            continue
        if seen is not None:
            key = id(tensor.data)
            if key in seen:
                continue
            seen.add(key)
        counted += elements(tensor.shape)
    return counted


def total(values: Iterable[Optional[int]]) -> Optional[int]:
    """The sum, None where one of `values` is."""
    count = 0
    for value in values:
        if value is None:
            return None
        count += value
    return count


def arena_bytes(subgraph: Subgraph) -> Optional[int]:
    """Activation memory that a runtime plans for `subgraph`, without scratch buffers of kernels. None where unknown.

    An estimate after the planner of TensorFlow Lite: tensors by falling size, each at the lowest offset of the
    smallest gap that is free while it lives (greedy by size; Pisarchyk and Lee, Efficient Memory Management for Deep
    Neural Net Inference, 2020). Inputs, outputs and variables live throughout.
    """
    lives = _lives(subgraph)
    placed: list[tuple[int, int, int, int]] = []
    sizes = {}
    for key, (tensor, _, _) in lives.items():
        size = tensor_bytes(tensor)
        if size is None:
            return None
        sizes[key] = -(-size // ARENA_ALIGNMENT) * ARENA_ALIGNMENT
    for key in sorted(lives, key=lambda key: -sizes[key]):
        _, first, last = lives[key]
        at = _smallest_gap([place for place in placed if place[2] <= last and place[3] >= first], sizes[key])
        bisect.insort(placed, (at, at + sizes[key], first, last))
    return max((end for _, end, _, _ in placed), default=0)


def _smallest_gap(placed: Sequence[tuple[int, int, int, int]], size: int) -> int:
    """Offset of the smallest gap of `size` bytes between `placed` blocks (sorted by offset), else behind them all."""
    offset = 0
    best: Optional[tuple[int, int]] = None
    for start, end, _, _ in placed:
        if start - offset >= size and (best is None or start - offset < best[0]):
            best = (start - offset, offset)
        offset = max(offset, end)
    return offset if best is None else best[1]


def _lives(subgraph: Subgraph) -> dict[int, tuple[Tensor, int, int]]:
    """Each computed tensor with the first and last step in which it is needed."""
    end = len(subgraph.operators)
    lives: dict[int, tuple[Tensor, int, int]] = {}
    for step, operator in enumerate(subgraph.operators):
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor is not None and tensor.data is None:
                first = lives.get(id(tensor), (tensor, step, step))[1]
                lives[id(tensor)] = (tensor, first, step)
    whole = [*subgraph.inputs, *subgraph.outputs, *(tensor for tensor in subgraph.tensors if tensor.is_variable)]
    for tensor in whole:
        if tensor.data is None:
            lives[id(tensor)] = (tensor, 0, end)
    return lives
