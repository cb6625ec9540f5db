"""A model file's graph, read without the packages that wrote it, as far as a picture's way in and the scores' way out
need it.

`.tflite`: the flatbuffer. `.onnx`: the protobuf message of onnx.proto3. Field numbers are those of these schemas. Both
become one `ModelGraph`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

import numpy as np

from edge_mnv2.runtime.packed import Packed, beside_onnx, beside_tflite
from edge_mnv2.tflite.wire_formats import (
    Damaged,
    Fields,
    Flatbuffer,
    Table,
    constant_tensor,
    message_fields,
    text,
    texts,
    whole_number,
    whole_numbers,
)

Key = Union[int, str]
"""What names a tensor: its number in a `.tflite`, its name in an `.onnx`."""

SAME_VALUES = frozenset({"cast", "reshape", "transpose", "identity", "quantize", "dequantize"})
"""Kinds of operators that hand on the values of their first input."""

_SAME_SHAPE = SAME_VALUES - {"reshape", "transpose"}
_SOFTMAXES = ("softmax", "logsoftmax")

_TFLITE = {
    0: "add", 1: "pool", 2: "concat", 3: "conv", 4: "depthwise", 6: "dequantize", 9: "linear", 11: "norm",
    14: "sigmoid", 17: "max", 18: "mul", 22: "reshape", 23: "resize", 25: "softmax", 32: "custom", 34: "pad",
    36: "part", 39: "transpose", 40: "pool", 41: "sub", 42: "div", 43: "reshape", 45: "part", 47: "exp", 48: "best",
    49: "part", 50: "logsoftmax", 53: "cast", 55: "max", 56: "best", 57: "min", 60: "pad", 65: "part", 70: "reshape",
    74: "sum", 79: "best", 82: "highest", 88: "part", 97: "resize", 100: "pad", 102: "part", 105: "part", 106: "add",
    107: "part", 114: "quantize", 116: "clip",
}  # fmt: skip
_ONNX = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Conv": "conv", "QLinearConv": "conv",
    "GlobalAveragePool": "pool", "AveragePool": "pool", "ReduceMean": "pool", "Gemm": "linear", "MatMul": "linear",
    "DequantizeLinear": "dequantize", "QuantizeLinear": "quantize", "Sigmoid": "sigmoid", "Softmax": "softmax",
    "LogSoftmax": "logsoftmax", "Exp": "exp", "ReduceSum": "sum", "ArgMax": "best", "Cast": "cast", "Pad": "pad",
    "Reshape": "reshape", "Flatten": "reshape", "Squeeze": "reshape", "Unsqueeze": "reshape", "Resize": "resize",
    "Transpose": "transpose", "Identity": "identity", "Dropout": "identity", "TopK": "best", "ReduceMax": "highest",
    "Slice": "part", "Gather": "part", "Clip": "clip", "Max": "max", "Min": "min", "Concat": "concat", "Sum": "add",
    "Mean": "mean", "QLinearSoftmax": "softmax", "QLinearSigmoid": "sigmoid", "QLinearGlobalAveragePool": "pool",
    "QGemm": "linear", "QLinearMatMul": "linear", "Split": "part", "Compress": "part", "GatherElements": "part",
    "HardSigmoid": "sigmoid", "Hardmax": "best", "Round": "clip", "Where": "where", "Reciprocal": "reciprocal",
    "GlobalMaxPool": "max", "MaxPool": "max", "BatchNormalization": "batchnorm", "LpNormalization": "norm",
}  # fmt: skip
_TFLITE_TYPES = {0: "f4", 1: "f2", 2: "i4", 3: "u1", 4: "i8", 7: "i2", 9: "i1"}
_ONNX_TYPES = {1: "f4", 2: "u1", 3: "i1", 5: "i2", 6: "i4", 7: "i8", 10: "f2", 11: "f8"}
_FAULTS = (Damaged, struct.error, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
"""What a damaged file may cause in a reader that believes its fields."""
_MOST_VALUES = 1 << 22
_MOST_STEPS = 64


@dataclass(frozen=True)
class Node:
    """One operator. `kind` is a word of the tables above, else the operator's own name or number; `axes` are those that
    a softmax runs over."""

    kind: str
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]
    axes: Optional[slice] = None


@dataclass
class ModelGraph:
    """Nodes in the order in which they run. `tensor` gives a constant's real values, None for what is computed;
    `affine` (scale, zero point, dtype) of a tensor that is quantized as a whole; `shape` is empty where the file does
    not say it, and below 1 where a length is left open."""

    inputs: list[Key]
    outputs: list[Key]
    nodes: list[Node]
    tensor: Callable[[Key], Optional[np.ndarray]]
    affine: Callable[[Key], Optional[tuple[float, int, str]]]
    packed: Packed = field(default_factory=Packed)
    shape: Callable[[Key], tuple[int, ...]] = lambda _: ()

    def __post_init__(self) -> None:
        self._makers = {output: node for node in self.nodes for output in node.outputs}
        self._users: dict[Key, list[Node]] = {}
        for node in self.nodes:
            for key in dict.fromkeys(node.inputs):
                self._users.setdefault(key, []).append(node)

    def users(self, key: Key) -> list[Node]:
        """The operators that read a tensor."""
        return self._users.get(key, [])

    def maker(self, key: Key) -> Optional[Node]:
        """The operator that makes a tensor's values, whatever form they are handed on in; None for an input."""
        for _ in range(_MOST_STEPS):
            node = self._makers.get(key)
            if node is None or node.kind not in SAME_VALUES or not node.inputs:
                return node
            key = node.inputs[0]
        return None

    def made_from(self, keys: Sequence[Key]) -> set[Key]:
        """The tensors that any of `keys` is made from."""
        seen: set[Key] = set()
        waiting = [*keys]
        while waiting:
            node = self._makers.get(waiting.pop())
            new = [one for one in node.inputs if one not in seen] if node is not None else []
            seen.update(new)
            waiting += new
        return seen

    def softmax_length(self, node: Node) -> int:
        """Over how many values a softmax runs, 0 where the file does not say it."""
        key = node.outputs[0] if node.axes is not None and node.outputs else ""
        while not (shape := self.shape(key)):
            users = self.users(key)
            if len(users) != 1 or users[0].kind not in _SAME_SHAPE or not users[0].outputs:
                return 0
            key = users[0].outputs[0]
        lengths = shape[node.axes] if node.axes is not None else ()
        return math.prod(lengths) if lengths and min(lengths) > 0 else 0

    def constant(self, key: Key) -> Optional[np.ndarray]:
        """Real values of a constant, through casts, reshapes and dequantization; None for what is computed."""
        for _ in range(_MOST_STEPS):
            values = self.tensor(key)
            if values is not None:
                return values
            node = self._makers.get(key)
            if node is None or node.kind not in SAME_VALUES or not node.inputs:
                return None
            if node.kind == "dequantize" and len(node.inputs) > 1:
                return self._dequantized(node)
            key = node.inputs[0]
        return None

    def dequantized_as(self, key: Key) -> Optional[tuple[float, int]]:
        """(scale, zero point) by which an ONNX graph reads an input of integers; None where it does otherwise."""
        for _ in range(_MOST_STEPS):
            users = self.users(key)
            if len(users) != 1 or not users[0].outputs:
                return None
            node = users[0]
            if node.kind == "dequantize" and len(node.inputs) > 1:
                scale = self.constant(node.inputs[1])
                zero = self.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
                if scale is None or zero is None or not scale.size == zero.size == 1:
                    return None
                return float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
            if node.kind not in ("transpose", "reshape", "identity"):
                return None
            key = node.outputs[0]
        return None

    def _dequantized(self, node: Node) -> Optional[np.ndarray]:
        """ONNX's DequantizeLinear of a constant; one scale a slice lies along the first axis."""
        values, scale = self.constant(node.inputs[0]), self.constant(node.inputs[1])
        zero = self.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
        if values is None or scale is None or zero is None:
            return None
        along = (-1, *(1,) * (values.ndim - 1)) if scale.size > 1 else ()
        return (values - zero.reshape(along if zero.size > 1 else ())) * scale.reshape(along)


def read_graph(path: Union[Path, str]) -> Optional[ModelGraph]:
    """The graph of a `.tflite` or `.onnx` file that was checked; None where it is neither, or not to be understood."""
    with contextlib.suppress(*_FAULTS):
        with Path(path).open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            # A copy: constants are looked up while the graph is used, and a mapped file may change below it.
            data = mapped[:]
        return _read_tflite(data) if data[4:8] == b"TFL3" else _read_onnx(data)
    return None


def _read_tflite(data: bytes) -> ModelGraph:
    model = Flatbuffer(data).root()
    codes = [max(code.scalar(0, "<b"), code.scalar(3, "<i")) for code in model.tables(1)]
    subgraph, buffers = model.tables(2)[0], model.tables(4)
    tensors = subgraph.tables(0)
    nodes = []
    for operator in subgraph.tables(3):
        code = codes[operator.scalar(0, "<I")]
        kind = _TFLITE.get(code, str(code))
        inputs = tuple(index for index in operator.numbers(1, "i") if index >= 0)
        axes = slice(-1, None) if kind in _SOFTMAXES else None
        nodes.append(Node(kind, inputs, tuple(operator.numbers(2, "i")), axes))

    def shape(key: Key) -> tuple[int, ...]:
        table = tensors[int(key)] if key != "" else None
        # In a shape, a length that is left open is 1; in the signature, it is -1.
        return tuple(table.numbers(7, "i") or table.numbers(0, "i")) if table is not None else ()

    def tensor(key: Key) -> Optional[np.ndarray]:
        table = tensors[int(key)]
        number, dtype = table.scalar(2, "<I"), _TFLITE_TYPES.get(table.scalar(1, "<b"))
        start, count = buffers[number].vector(0, 1) if 0 < number < len(buffers) else (0, 0)
        if not count or dtype is None or count > _MOST_VALUES:
            return None
        shape = [max(n, 1) for n in table.numbers(0, "i")]
        values = np.frombuffer(data, f"<{dtype}", count // np.dtype(dtype).itemsize, start).reshape(shape)
        return _real(table, values)

    def affine(key: Key) -> Optional[tuple[float, int, str]]:
        table = tensors[int(key)]
        quantization, dtype = table.table(4), _TFLITE_TYPES.get(table.scalar(1, "<b"), "")
        scales = quantization.numbers(2, "f") if quantization is not None else ()
        if quantization is None or len(scales) != 1 or not scales[0] or dtype[:1] not in ("u", "i"):
            return None
        zeros = quantization.numbers(3, "q")
        return float(scales[0]), int(zeros[0]) if zeros else 0, dtype

    packed = beside_tflite(data, model, buffers)
    first, last = (list(subgraph.numbers(number, "i")) for number in (1, 2))
    return ModelGraph(first, last, nodes, tensor, affine, packed, shape)


def _real(table: Table, values: np.ndarray) -> np.ndarray:
    quantization = table.table(4)
    scales = np.array(quantization.numbers(2, "f") if quantization is not None else ())
    if quantization is None or not scales.size:
        return values.astype(np.float64)
    zeros = np.array(quantization.numbers(3, "q") or [0] * scales.size, float)
    along = [1] * values.ndim
    if scales.size > 1:
        along[quantization.scalar(6, "<i")] = -1
    return (values - zeros.reshape(along if zeros.size > 1 else [1] * values.ndim)) * scales.reshape(along)


def _read_onnx(data: bytes) -> ModelGraph:
    model = message_fields(data)
    graph = message_fields(model[7][-1])
    properties = {text(pair, 1): text(pair, 2) for pair in map(message_fields, model.get(14, ()))}
    stored = {text(message_fields(one, skip=9), 8): one for one in graph.get(5, ())}
    sets = {text(one, 1): whole_number(one, 2) for one in map(message_fields, model.get(8, ()))}
    opset = sets.get("", sets.get("ai.onnx", 0))
    nodes = []
    for one in graph.get(1, ()):
        node = message_fields(one)
        kind, inputs, outputs = text(node, 4), texts(node, 1), texts(node, 2)
        values = [message_fields(attribute) for attribute in node.get(5, ())] if kind == "Constant" else []
        stored.update((outputs[0], constant_tensor(value)) for value in values if outputs)
        axes = _softmax_axes(node, opset) if _ONNX.get(kind) in _SOFTMAXES else None
        nodes.append(Node(_ONNX.get(kind, kind), tuple(inputs), tuple(outputs), axes))
    graph_inputs: list[Key] = [text(message_fields(one), 1) for one in graph.get(11, ())]

    @functools.cache
    def tensor(key: Key) -> Optional[np.ndarray]:
        return _onnx_values(stored[str(key)]) if key in stored else None

    shapes = {text(one, 1): _onnx_shape(one) for one in map(message_fields, [*graph.get(13, ()), *graph.get(12, ())])}
    quantized = {node.outputs[0]: node for node in nodes if node.kind == "quantize" and len(node.inputs) > 2}

    def affine(key: Key) -> Optional[tuple[float, int, str]]:
        node = quantized.get(str(key))
        scale, zero = (tensor(one) for one in node.inputs[1:3]) if node is not None else (None, None)
        if node is None or scale is None or zero is None or scale.size != 1:
            return None
        dtype = _ONNX_TYPES.get(whole_number(message_fields(stored[str(node.inputs[2])], skip=9), 2), "")
        return float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), dtype

    return ModelGraph(
        [key for key in graph_inputs if key not in stored],
        [text(message_fields(one), 1) for one in graph.get(12, ())],
        nodes,
        tensor,
        affine,
        beside_onnx(properties, text(model, 2)),
        lambda key: shapes.get(str(key), ()),
    )


def _softmax_axes(node: Fields, opset: int) -> slice:
    """Before version 13 a softmax runs over all axes from its `axis` on, later over that one alone."""
    numbers = {text(one, 1): list(whole_numbers(one.get(3, (0,))))[-1] for one in map(message_fields, node.get(5, ()))}
    opset = numbers.get("opset", opset)
    axis = numbers.get("axis", 1 if opset < 13 else -1)
    return slice(axis, None if opset < 13 or axis == -1 else axis + 1)


def _onnx_shape(value: Fields) -> tuple[int, ...]:
    """The shape in a ValueInfoProto; a length that is left open is 0."""
    fields = value
    for number in (2, 1, 2):
        if not fields.get(number):
            return ()
        fields = message_fields(fields[number][-1])
    return tuple(whole_number(message_fields(one), 1) for one in fields.get(1, ()))


def _onnx_values(content: bytes) -> Optional[np.ndarray]:
    """The values of a TensorProto float64; None where they are stored elsewhere or of a type without plain numbers."""
    fields = message_fields(content)
    dtype = _ONNX_TYPES.get(whole_number(fields, 2))
    shape = list(whole_numbers(fields.get(1, ())))
    if dtype is None or 13 in fields or np.prod(shape, dtype=float) > _MOST_VALUES:
        return None
    if 9 in fields:
        return np.frombuffer(fields[9][0], f"<{dtype}").reshape(shape).astype(np.float64)
    for number, form in ((4, "<f4"), (10, "<f8")):
        if packed := b"".join(one for one in fields.get(number, ()) if isinstance(one, bytes)):
            return np.frombuffer(packed, form).reshape(shape).astype(np.float64)
    whole = list(whole_numbers([*fields.get(5, ()), *fields.get(7, ())]))
    # Halves stand there by their bits.
    values = np.array(whole, np.uint16).view(np.float16) if dtype == "f2" else np.array(whole)
    return values.reshape(shape).astype(np.float64) if whole else None
