"""What crashes native code in a well-formed model: checked on the graph before a runtime sees it.

Each rule stands for a crash that was seen with ai-edge-litert 2.3 or tflite-runtime 2.14: a stride of 0 divides by
zero, an infinite scale or a missing bias is followed without a look, options of another operator are read as if they
were the right ones. Numbers of operators, options and fields are those of the TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.tflite.wire_formats import Damaged, Layout, Table

CUSTOM = 32

LAYOUTS: dict[str, Layout] = {
    "Model": {0: 4, 1: ("tables", "OperatorCode"), 2: ("tables", "SubGraph"), 3: "text", 4: ("tables", "Buffer"),
        5: ("vector", 4), 6: ("tables", "Metadata"), 7: ("tables", "SignatureDef")},
    "OperatorCode": {0: 1, 1: "text", 2: 4, 3: 4},
    "SubGraph": {0: ("tables", "Tensor"), 1: ("vector", 4), 2: ("vector", 4), 3: ("tables", "Operator"),
        4: "text", 5: 4},
    "Tensor": {0: ("vector", 4), 1: 1, 2: 4, 3: "text", 4: ("table", "Quantization"), 5: 1,
        6: ("table", "Sparsity"), 7: ("vector", 4), 8: 1},
    "Quantization": {0: ("vector", 4), 1: ("vector", 4), 2: ("vector", 4), 3: ("vector", 8), 4: 1,
        5: ("table", ""), 6: 4},
    "Sparsity": {0: ("vector", 4), 1: ("vector", 4), 2: ("tables", "Dimension")},
    "Dimension": {0: 1, 1: 4, 2: 1, 3: ("table", "Indices"), 4: 1, 5: ("table", "Indices")},
    "Indices": {0: ("vector", 1)},
    "Operator": {0: 4, 1: ("vector", 4), 2: ("vector", 4), 3: 1, 4: ("table", ""), 5: ("vector", 1), 6: 1,
        7: ("vector", 1), 8: ("vector", 4), 9: 8, 10: 8, 11: 1, 12: ("table", "")},
    "Buffer": {0: ("vector", 1), 1: 8, 2: 8},
    "Metadata": {0: "text", 1: 4},
    "SignatureDef": {0: ("tables", "TensorMap"), 1: ("tables", "TensorMap"), 2: "text", 4: 4},
    "TensorMap": {0: "text", 1: 4},
}  # fmt: skip

_ITEM_BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 11: 8, 12: 8, 15: 4, 16: 2}
"""Bytes an element by TensorType; types of no fixed size (strings, resources, packed int4) are left out."""

_RANGE = {3: (0, 255), 7: (-32768, 32767), 9: (-128, 127), 2: (-(2**31), 2**31 - 1)}
_FLOATS = (0, 1)
_QUANTIZED = (3, 9)
_MOST_TENSOR_BYTES = 1 << 30


@dataclass(frozen=True)
class Tensor:
    """`kind` is the TensorType; `scales` their count; `stored`: bytes of constant data; `open`: a size is not fixed."""

    shape: Sequence[int]
    kind: int
    scales: int
    stored: int
    variable: bool
    open: bool


@dataclass(frozen=True)
class Operator:
    code: int
    inputs: Sequence[int]
    outputs: Sequence[int]


@dataclass(frozen=True)
class _Rule:
    """What a builtin operator needs: its type of options (None: none), how many inputs at least and at most, and the
    fields of its options that must be positive, small enumerations, as (number, default)."""

    options: Optional[int]
    least: int
    most: int
    positive: tuple[tuple[int, int], ...] = ()
    padding: Optional[int] = None
    activation: Optional[int] = None


_UNARY = _Rule(None, 1, 1)
_CONV, _DEPTHWISE, _CONNECTED, _FAKE_QUANT = 3, 4, 9, 80
_RULES = {
    0: _Rule(11, 2, 2, activation=0),  # ADD
    1: _Rule(5, 1, 1, ((1, 0), (2, 0), (3, 0), (4, 0)), padding=0, activation=5),  # AVERAGE_POOL_2D
    2: _Rule(10, 1, 10_000, activation=1),  # CONCATENATION
    _CONV: _Rule(1, 2, 3, ((1, 0), (2, 0), (4, 1), (5, 1)), padding=0, activation=3),
    _DEPTHWISE: _Rule(2, 2, 3, ((1, 0), (2, 0), (3, 0), (5, 1), (6, 1)), padding=0, activation=4),
    5: _Rule(None, 1, 1, ((0, 0),)),  # DEPTH_TO_SPACE
    6: _UNARY,  # DEQUANTIZE
    8: _UNARY,  # FLOOR
    _CONNECTED: _Rule(8, 2, 3, activation=0),
    11: _Rule(12, 1, 1),  # L2_NORMALIZATION
    12: _Rule(5, 1, 1, ((1, 0), (2, 0), (3, 0), (4, 0)), padding=0, activation=5),  # L2_POOL_2D
    14: _UNARY,  # LOGISTIC
    17: _Rule(5, 1, 1, ((1, 0), (2, 0), (3, 0), (4, 0)), padding=0, activation=5),  # MAX_POOL_2D
    18: _Rule(21, 2, 2, activation=0),  # MUL
    19: _UNARY,  # RELU
    20: _UNARY,  # RELU_N1_TO_1
    21: _UNARY,  # RELU6
    22: _Rule(17, 1, 2),  # RESHAPE
    23: _Rule(15, 2, 2),  # RESIZE_BILINEAR
    25: _Rule(9, 1, 1),  # SOFTMAX
    26: _Rule(19, 1, 1, ((0, 0),)),  # SPACE_TO_DEPTH
    28: _UNARY,  # TANH
    34: _Rule(22, 2, 2),  # PAD
    36: _Rule(23, 2, 2),  # GATHER
    39: _Rule(26, 2, 2),  # TRANSPOSE
    40: _Rule(27, 2, 2),  # MEAN
    41: _Rule(28, 2, 2),  # SUB
    42: _Rule(29, 2, 2),  # DIV
    43: _Rule(30, 1, 1),  # SQUEEZE
    45: _Rule(32, 4, 4),  # STRIDED_SLICE
    54: _Rule(None, 2, 2),  # PRELU
    65: _Rule(None, 3, 3),  # SLICE
    67: _Rule(None, 2, 4, ((1, 0), (2, 0)), padding=0),  # TRANSPOSE_CONV
    74: _Rule(27, 2, 2),  # SUM
    82: _Rule(27, 2, 2),  # REDUCE_MAX
    98: _Rule(None, 1, 1),  # LEAKY_RELU
    _FAKE_QUANT: _Rule(58, 1, 1),
    114: _UNARY,  # QUANTIZE
    117: _UNARY,  # HARD_SWISH
}
_POOLS = (1, 12, 17)
_INTEGER_VECTOR_OPTIONS = (17, 30)
"""Options whose field 0 is a vector of int32: RESHAPE's shape, SQUEEZE's dimensions."""


def check_subgraph(subgraph: Table, codes: Sequence[int], buffers: Sequence[int]) -> None:
    """Look through a verified subgraph. Raises Damaged where a runtime would come to harm."""
    tensors = [_tensor(table, buffers) for table in subgraph.tables(0)]
    inputs, outputs = subgraph.numbers(1, "i"), subgraph.numbers(2, "i")
    if any(not 0 <= index < len(tensors) for index in (*inputs, *outputs)):
        raise Damaged("its inputs or outputs do not exist")
    ready = {row for row, tensor in enumerate(tensors) if tensor.stored or tensor.variable} | set(inputs)
    for table in subgraph.tables(3):
        operator = _operator(table, codes, tensors)
        # Without constants (a stub, a compiled model) a tensor of no elements needs nobody to make it.
        if any(index >= 0 and index not in ready and _elements(tensors[index].shape) for index in operator.inputs):
            raise Damaged("an operator reads what no other has made")
        ready.update(operator.outputs)
    if any(index not in ready for index in outputs):
        raise Damaged("its output is made by no operator")


def _tensor(table: Table, buffers: Sequence[int]) -> Tensor:
    shape = table.numbers(0, "i")
    kind = table.scalar(1, "<b")
    buffer = table.scalar(2, "<I")
    # Buffer 0 is the empty one by convention, and a model without constants may leave it out.
    if buffer and buffer >= len(buffers):
        raise Damaged("a tensor has no buffer")
    if any(n < -1 for n in shape) or len(shape) > 8:
        raise Damaged("a tensor has an impossible shape")
    stored = buffers[buffer] if buffers else 0
    size = _elements(shape) * _ITEM_BYTES.get(kind, 1)
    if size > _MOST_TENSOR_BYTES:
        raise Damaged(f"a tensor would need {size / 1e9:.1f} GB")
    if stored and kind in _ITEM_BYTES and table.table(6) is None and stored != size:
        raise Damaged("a tensor's weights do not fit its shape")
    signature = table.numbers(7, "i")
    is_open = len(signature) == len(shape) and min(signature[1:], default=1) < 0
    return Tensor(shape, kind, _scales(table, shape, kind), stored, bool(table.scalar(5, "<B")), is_open)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for n in shape:
        count *= abs(n)
    return count


def _scales(table: Table, shape: Sequence[int], kind: int) -> int:
    quantization = table.table(4)
    if quantization is None:
        return 0
    scales, zero_points = quantization.numbers(2, "f"), quantization.numbers(3, "q")
    # A sum of float32 numbers is finite in float64 only where each of them is.
    if scales and not (math.isfinite(sum(scales)) and min(scales) >= 0):
        raise Damaged("a tensor's scale is no number above 0")
    low, high = _RANGE.get(kind, (-(2**63), 2**63))
    if zero_points and not low <= min(zero_points) <= max(zero_points) <= high:
        raise Damaged("a tensor's zero point is out of range")
    dimension = quantization.scalar(6, "<i")
    if len(zero_points) not in (0, 1, len(scales)):
        raise Damaged("a tensor's quantization does not fit its shape")
    if len(scales) > 1 and not (0 <= dimension < len(shape) and shape[dimension] == len(scales)):
        raise Damaged("a tensor's quantization does not fit its shape")
    return len(scales)


def _operator(table: Table, codes: Sequence[int], tensors: Sequence[Tensor]) -> Operator:
    number = table.scalar(0, "<I")
    inputs, outputs = table.numbers(1, "i"), table.numbers(2, "i")
    if number >= len(codes):
        raise Damaged("an operator is of no known kind")
    if any(not -1 <= index < len(tensors) for index in (*inputs, *table.numbers(8, "i"))) or any(
        not 0 <= index < len(tensors) for index in outputs
    ):
        raise Damaged("an operator reads a tensor that does not exist")
    kind = table.scalar(3, "<B")
    options = table.table(4)
    if options is not None and kind in _INTEGER_VECTOR_OPTIONS:
        options.vector(0, 4)
    operator = Operator(codes[number], inputs, outputs)
    rule = _RULES.get(operator.code)
    if rule is not None:
        _check_rule(operator, rule, kind, options)
        if operator.code == _FAKE_QUANT and any(
            tensors[index].kind != 0 for index in (*operator.inputs, *operator.outputs)
        ):
            raise Damaged("an operator for floats is given something else")
        if operator.code in (_CONV, _DEPTHWISE, _CONNECTED):
            _check_weights(operator, tensors)
        if options is not None and operator.code in (_CONV, _DEPTHWISE, *_POOLS):
            _check_window(operator, options, tensors)
    return operator


def _check_rule(operator: Operator, rule: _Rule, kind: int, options: Optional[Table]) -> None:
    inputs = operator.inputs
    if not rule.least <= len(inputs) <= rule.most or min(inputs[: rule.least]) < 0 or len(operator.outputs) != 1:
        raise Damaged("an operator has not the inputs and outputs that it needs")
    if rule.options is not None and kind not in (0, rule.options):
        raise Damaged("an operator has the options of another")
    for field, default in rule.positive:
        if not 0 < (options.scalar(field, "<i", default) if options is not None else default) < 1 << 16:
            raise Damaged("an operator has a stride or size that is impossible")
    for enumeration, most in ((rule.padding, 1), (rule.activation, 5)):
        if enumeration is not None and options is not None and not 0 <= options.scalar(enumeration, "<b") <= most:
            raise Damaged("an operator has options that do not exist")


def _check_weights(operator: Operator, tensors: Sequence[Tensor]) -> None:
    """CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: all quantized alike, or all floating point."""
    source, weights, result = (tensors[index] for index in (*operator.inputs[:2], operator.outputs[0]))
    if (source.kind in _QUANTIZED or result.kind in _QUANTIZED) and source.kind != result.kind:
        raise Damaged("an operator's input and output are of different types")
    if source.kind in _QUANTIZED:
        if not (source.scales == 1 and result.scales == 1 and weights.scales >= 1):
            raise Damaged("an operator's tensors lack their quantization")
        bias = operator.inputs[2] if len(operator.inputs) == 3 else -1
        if bias >= 0 and tensors[bias].kind not in (2, 4):
            raise Damaged("an operator's bias is of a wrong type")


def _check_window(operator: Operator, options: Table, tensors: Sequence[Tensor]) -> None:
    """A convolution's or pool's result has the size that follows from its input, window, stride and padding.

    Per axis, with the window `k`, stride `s`, dilation `d`: ceil(n / s) for SAME, ceil((n - (k - 1) d) / s) for VALID.
    A stride that does not belong here divides by zero in the kernels that come after.
    """
    before, after = tensors[operator.inputs[0]], tensors[operator.outputs[0]]
    source, result = before.shape, after.shape
    if len(source) != 4 or len(result) != 4 or min(*source, *result) < 1 or before.open or after.open:
        return
    if operator.code in _POOLS:
        window = options.scalar(4, "<i"), options.scalar(3, "<i")
        dilation, channels = (1, 1), source[3]
    else:
        weights = tensors[operator.inputs[1]].shape
        if len(weights) != 4:
            raise Damaged("an operator's weights do not fit it")
        window = weights[1], weights[2]
        first = 4 if operator.code == _CONV else 5
        dilation = options.scalar(first + 1, "<i", 1), options.scalar(first, "<i", 1)
        channels = weights[0 if operator.code == _CONV else 3]
    valid = options.scalar(0, "<b") == 1
    for axis in (0, 1):
        stride = options.scalar(2 - axis, "<i")
        room = source[1 + axis] - ((window[axis] - 1) * dilation[axis] if valid else 0)
        if result[1 + axis] != -(-room // stride):
            raise Damaged("an operator's stride or window does not fit its result")
    if result[3] != channels:
        raise Damaged("an operator's weights do not fit its result")
