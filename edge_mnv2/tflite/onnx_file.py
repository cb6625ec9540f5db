"""Write an ONNX file without the package `onnx`: nodes and constants in, protobuf out.

Field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Union

import numpy as np

OPSET, IR_VERSION = 13, 8
"""Old enough for ONNX Runtime 1.8, the last that JetPack 4 can have; new enough for one scale a channel."""

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_INTEGER, _INTEGERS = 2, 7


class OnnxFile:
    """Collects a graph's nodes and constants. Adding returns the name of the tensor that it makes."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._numbers = itertools.count()

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Union[int, Sequence[int]]) -> str:
        """An operator of one output, whose name is made up where none is asked for."""
        output = output or f"t{next(self._numbers)}"
        listed = [
            _message((1, name), (3, value), (20, _INTEGER))
            if isinstance(value, int)
            else _message((1, name), *((8, one) for one in value), (20, _INTEGERS))
            for name, value in attributes.items()
        ]
        names = ((1, name) for name in inputs)
        self._nodes.append(_message(*names, (2, output), (3, output), (4, kind), *((5, one) for one in listed)))
        return output

    def constant(self, values: np.ndarray) -> str:
        """A tensor with the shape, dtype and content of `values`."""
        values = np.asarray(values, order="C")
        name = f"c{len(self._constants)}"
        shape = ((1, n) for n in values.shape)
        self._constants.append(_message(*shape, (2, _TYPES[values.dtype.name]), (8, name), (9, values.tobytes())))
        return name

    def number(self, value: float) -> str:
        """A constant of one float32."""
        return self.constant(np.array(value, np.float32))

    def serialize(
        self, inputs: Mapping[str, tuple[str, Sequence[int]]], outputs: Mapping[str, tuple[str, Sequence[int]]]
    ) -> bytes:
        """The file; `inputs` and `outputs` are name → (dtype, shape)."""
        graph = _message(
            *((1, node) for node in self._nodes),
            (2, "main"),
            *((5, constant) for constant in self._constants),
            *((11, _value(name, *described)) for name, described in inputs.items()),
            *((12, _value(name, *described)) for name, described in outputs.items()),
        )
        operators = _message((1, ""), (2, OPSET))
        return _message((1, IR_VERSION), (2, "edge-mnv2"), (7, graph), (8, operators))


def _value(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    dimensions = _message(*((1, _message((1, n))) for n in shape))
    return _message((1, name), (2, _message((1, _message((1, _TYPES[dtype]), (2, dimensions))))))


def _message(*fields: tuple[int, Union[int, str, bytes]]) -> bytes:
    parts = []
    for number, value in fields:
        if isinstance(value, (int, np.integer)):
            parts += [_varint(number << 3), _varint(int(value) & (1 << 64) - 1)]
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += [_varint(number << 3 | 2), _varint(len(content)), content]
    return b"".join(parts)


def _varint(value: int) -> bytes:
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)
