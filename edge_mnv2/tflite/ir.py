"""A model as a graph: tensors, operators, signatures. What `graph.read` gives and `graph.write` takes.

Operators refer to their tensors as objects, so that cutting and appending needs no renumbering; `write` numbers them.
Whatever the schema knows and these classes do not name travels along in `extra`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.tflite.schema import Record

PADDING_SAME, PADDING_VALID = 0, 1

PIXELS = "edge-mnv2.pixels"
"""The metadata entry of a model of ours that says `mean std` of its input, in pixel units, as text."""
ACTIVATION_NONE, ACTIVATION_RELU, ACTIVATION_RELU_N1_TO_1, ACTIVATION_RELU6 = 0, 1, 2, 3

_FIXED_SIZE = {
    **{name: np.dtype(name).newbyteorder("<") for name in ("float16", "float32", "float64", "complex64", "complex128")},
    **{
        kind + bits: np.dtype(kind + bits).newbyteorder("<")
        for kind in ("int", "uint")
        for bits in ("8", "16", "32", "64")
    },
    "bool": np.dtype("bool"),
}


@dataclass
class Quantization:
    """Affine quantization: real = scale * (q - zero_point), per tensor (one value) or per slice along `axis`.

    `scale` float32 (n,), `zero_point` int64 (n,); both empty where the file only notes `minimum` and `maximum`.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0
    minimum: Optional[np.ndarray] = None
    maximum: Optional[np.ndarray] = None
    extra: Record = field(default_factory=dict)

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int = 0) -> Quantization:
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int64))

    @classmethod
    def per_channel(cls, scale: np.ndarray, axis: int) -> Quantization:
        """Symmetric: every zero point is 0."""
        return cls(np.asarray(scale, np.float32), np.zeros(len(scale), np.int64), axis)


@dataclass(eq=False)
class Tensor:
    """A value of the graph. `data` holds a constant's little-endian bytes, None for what is computed.

    `dtype` is the schema's type in lower case ("float32", "int8", "string", "int4", ...). `shape_signature` has -1
    where a dimension is dynamic; None where the file says nothing.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Any = None
    quantization: Optional[Quantization] = None
    shape_signature: Optional[tuple[int, ...]] = None
    is_variable: bool = False
    extra: Record = field(default_factory=dict)

    @classmethod
    def constant(cls, name: str, values: np.ndarray, quantization: Optional[Quantization] = None) -> Tensor:
        """A constant with the shape, dtype and content of `values`."""
        dtype = values.dtype.name
        return cls(name, values.shape, dtype, np.ascontiguousarray(values, _FIXED_SIZE[dtype]).tobytes(), quantization)

    @property
    def quantized(self) -> bool:
        return self.quantization is not None and len(self.quantization.scale) > 0

    @property
    def dynamic(self) -> bool:
        return any(n < 0 for n in self.shape_signature or self.shape)

    def array(self) -> np.ndarray:
        """A constant's values in its own dtype (read-only). Raises ModelError where there are none or do not fit."""
        if self.data is None:
            raise ModelError(f"tensor '{self.name}' is not a constant")
        dtype = _FIXED_SIZE.get(self.dtype)
        if dtype is None:
            raise ModelError(f"tensor '{self.name}' is of type {self.dtype}, which has no plain values")
        content = memoryview(self.data).cast("B") if not isinstance(self.data, np.ndarray) else self.data
        count = int(np.prod(self.shape, dtype=np.int64)) if min(self.shape, default=0) >= 0 else -1
        if len(content) != count * dtype.itemsize:
            raise ModelError(f"tensor '{self.name}' has {len(content)} bytes for shape {list(self.shape)} {self.dtype}")
        return np.frombuffer(content, dtype).reshape(self.shape)

    def real(self) -> np.ndarray:
        """A constant's real values as float64, dequantized where it is quantized. Raises ModelError like `array`."""
        values = self.array().astype(np.float64)
        if self.quantization is None or not self.quantized:
            return values
        scale, zero = self.quantization.scale.astype(np.float64), self.quantization.zero_point.astype(np.float64)
        if len(scale) > 1:
            axis = self.quantization.axis
            if not 0 <= axis < values.ndim or values.shape[axis] != len(scale):
                raise ModelError(f"tensor '{self.name}' has {len(scale)} scales for shape {list(self.shape)}")
            along = tuple(-1 if dimension == axis else 1 for dimension in range(values.ndim))
            scale, zero = scale.reshape(along), zero.reshape(along)
        return scale * (values - zero)


@dataclass(eq=False)
class Operator:
    """One node. `kind` is the schema's name ("CONV_2D"), "CUSTOM" for one that `custom_code` names.

    `options` are the fields of the schema's table `options_table` ("Conv2DOptions") in snake_case, enumerations as
    numbers. A missing optional input is None. `version` is the operator's version as the runtime resolves it.
    """

    kind: str
    inputs: list[Optional[Tensor]]
    outputs: list[Tensor]
    options_table: Optional[str] = None
    options: Record = field(default_factory=dict)
    version: int = 1
    custom_code: Optional[str] = None
    custom_options: Optional[bytes] = None
    intermediates: list[Tensor] = field(default_factory=list)
    extra: Record = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it: the custom operator's own name, else `kind`."""
        return self.custom_code or self.kind if self.kind == "CUSTOM" else self.kind


@dataclass(eq=False)
class Subgraph:
    """Tensors and the operators that compute them, in execution order."""

    tensors: list[Tensor]
    inputs: list[Tensor]
    outputs: list[Tensor]
    operators: list[Operator]
    name: Optional[str] = None
    extra: Record = field(default_factory=dict)

    def used(self) -> Iterator[Tensor]:
        """Every tensor that an operator, the inputs or the outputs mention (with repetitions)."""
        yield from self.inputs
        yield from self.outputs
        for operator in self.operators:
            yield from (tensor for tensor in operator.inputs if tensor is not None)
            yield from operator.outputs
            yield from operator.intermediates

    def drop_unused(self) -> None:
        """Forget tensors that nothing mentions any more, and take in those that were appended with an operator."""
        mentioned = {id(tensor): tensor for tensor in self.used()}
        tensors = [tensor for tensor in self.tensors if id(tensor) in mentioned]
        known = {id(tensor) for tensor in tensors}
        self.tensors = tensors + [tensor for key, tensor in mentioned.items() if key not in known]


@dataclass(eq=False)
class Signature:
    """Names for a subgraph's inputs and outputs, as `get_signature_runner` offers them."""

    key: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    subgraph: int = 0


@dataclass(eq=False)
class Graph:
    """A whole model. `metadata` is name → content; `archive` a ZIP that is appended to the file (packed labels).

    `newer` names what the file has and the installed schema does not know; such a file can be looked at, not written.
    """

    subgraphs: list[Subgraph]
    description: str = ""
    metadata: dict[str, bytes] = field(default_factory=dict)
    signatures: list[Signature] = field(default_factory=list)
    version: int = 3
    archive: bytes = b""
    newer: list[str] = field(default_factory=list)

    @property
    def main(self) -> Subgraph:
        return self.subgraphs[0]

    @property
    def tensors(self) -> list[Tensor]:
        """Of the main subgraph, like the next three."""
        return self.main.tensors

    @property
    def operators(self) -> list[Operator]:
        return self.main.operators

    @property
    def inputs(self) -> list[Tensor]:
        return self.main.inputs

    @property
    def outputs(self) -> list[Tensor]:
        return self.main.outputs


_POOLS = ("MEAN", "AVERAGE_POOL_2D")


def last_pool(operators: list[Operator]) -> Optional[int]:
    """The place of the last operator that averages whole maps, None where there is none."""
    for place in range(len(operators) - 1, -1, -1):
        operator = operators[place]
        source = operator.inputs[0] if operator.inputs else None
        if operator.kind in _POOLS and source is not None and len(source.shape) == 4:
            shape = operator.outputs[0].shape
            return place if shape[-1] > 1 and int(np.prod(shape)) == source.shape[3] else None
    return None
