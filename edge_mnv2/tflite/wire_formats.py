"""The two binary formats of model files: flatbuffers (`.tflite`) with every access checked, and protobuf (`.onnx`).

Flatbuffers: https://flatbuffers.dev/internals/. A table begins with the (signed) distance back to its vtable, the
vtable holds its own size, the table's size and the place of each field in the table; strings, vectors and tables are
reached by unsigned offsets that only lead forward, so there are no cycles. `verify` walks a whole file against a layout
before anything else does. Protobuf: https://protobuf.dev/programming-guides/encoding/; ONNX files are written too,
without the package `onnx`, by the field numbers of onnx.proto3.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np

Data = Union[bytes, mmap.mmap]

_MOST_TABLES = 400_000
"""Small files can refer to the same table over and over; a model has a few thousand."""


class Damaged(Exception):
    """The data are no flatbuffer of the layout that was asked for; the text says why, as the end of a sentence."""


class Flatbuffer:
    """The bytes, and the vtables that have been checked already."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.size = len(data)
        self._vtables: dict[int, tuple[int, tuple[int, ...]]] = {}

    def read(self, form: str, position: int) -> int:
        """One little-endian number. Raises Damaged outside the data."""
        if position < 0 or position + struct.calcsize(form) > self.size:
            raise Damaged("it points outside itself")
        return struct.unpack_from(form, self.data, position)[0]

    def root(self) -> Table:
        return Table(self, self.read("<I", 0))

    def vtable(self, position: int) -> tuple[int, tuple[int, ...]]:
        """(size of the table in bytes, offset of each field in it or 0) of the vtable at `position`."""
        known = self._vtables.get(position)
        if known is not None:
            return known
        size, table_size = self.read("<H", position), self.read("<H", position + 2)
        if size < 4 or size % 2 or table_size < 4 or position % 2 or position + size > self.size:
            raise Damaged("a table has no valid description")
        offsets = struct.unpack_from(f"<{(size - 4) // 2}H", self.data, position + 4)
        if any(offset and not 4 <= offset < table_size for offset in offsets):
            raise Damaged("a table's field lies outside the table")
        self._vtables[position] = (table_size, offsets)
        return table_size, offsets


class Table:
    """A table at `position`; fields by their number in the schema."""

    __slots__ = ("_offsets", "_size", "buffer", "position")

    def __init__(self, buffer: Flatbuffer, position: int) -> None:
        self.buffer = buffer
        self.position = position
        self._size, self._offsets = buffer.vtable(position - buffer.read("<i", position))
        if position % 4 or position + self._size > buffer.size:
            raise Damaged("a table lies outside the file")

    @property
    def fields(self) -> int:
        """How many fields the table has room for."""
        return len(self._offsets)

    def field(self, number: int, size: int = 1) -> int:
        """Absolute position of a field of `size` bytes, 0 where it is not set."""
        offset = self._offsets[number] if number < len(self._offsets) else 0
        if offset and offset + size > self._size:
            raise Damaged("a table's field lies outside the table")
        return self.position + offset if offset else 0

    def scalar(self, number: int, form: str, default: int = 0) -> int:
        position = self.field(number, struct.calcsize(form))
        return self.buffer.read(form, position) if position else default

    def vector(self, number: int, item: int) -> tuple[int, int]:
        """(position of the first element, count) of a vector of `item`-byte elements; (0, 0) where it is not set."""
        position = self.field(number, 4)
        if not position:
            return 0, 0
        start = position + self.buffer.read("<I", position)
        count = self.buffer.read("<I", start)
        if start % 4 or start + 4 + count * item > self.buffer.size:
            raise Damaged("a part of it lies beyond its end")
        return start + 4, count

    def table(self, number: int) -> Optional[Table]:
        position = self.field(number, 4)
        return Table(self.buffer, position + self.buffer.read("<I", position)) if position else None

    def tables(self, number: int) -> list[Table]:
        start, count = self.vector(number, 4)
        offsets = struct.unpack_from(f"<{count}I", self.buffer.data, start) if count else ()
        return [Table(self.buffer, start + 4 * row + offset) for row, offset in enumerate(offsets)]

    def numbers(self, number: int, form: str) -> Sequence:
        """A vector of numbers; `form` is one letter of `struct`."""
        start, count = self.vector(number, struct.calcsize(f"<{form}"))
        return struct.unpack_from(f"<{count}{form}", self.buffer.data, start) if count else ()

    def text(self, number: int) -> str:
        start, count = self.vector(number, 1)
        return bytes(self.buffer.data[start : start + count]).decode(errors="replace")


Layout = Mapping[int, Union[int, str, tuple[str, Union[int, str]]]]
"""Field number → bytes of a scalar, "text", ("vector", bytes of an element), ("tables", layout's name), ("table",
layout's name; "" for one of any layout)."""


def verify(root: Table, name: str, layouts: Mapping[str, Layout]) -> None:
    """Walk everything that `layouts[name]` reaches from `root`. Raises Damaged for what lies outside the data."""
    waiting = [(root, name)]
    visited = 0
    while waiting:
        table, layout = waiting.pop()
        for number, kind in layouts.get(layout, {}).items():
            if isinstance(kind, int):
                table.field(number, kind)
            elif kind == "text":
                _verify_text(table, number)
            elif kind[0] == "vector":
                assert isinstance(kind[1], int)
                table.vector(number, kind[1])
            elif kind[0] == "tables":
                inner = table.tables(number)
                visited += len(inner)
                waiting += [(one, str(kind[1])) for one in inner]
            elif (single := table.table(number)) is not None:
                visited += 1
                waiting.append((single, str(kind[1])))
        if visited > _MOST_TABLES:
            raise Damaged("it has more parts than a model can have")


def _verify_text(table: Table, number: int) -> None:
    # Native code takes strings as C strings: without the zero it would read on.
    start, count = table.vector(number, 1)
    if start and table.buffer.read("<B", start + count) != 0:
        raise Damaged("a name in it has no end")


Fields = dict[int, list[Any]]


def message_fields(message: Any, skip: int = 0) -> Fields:
    """A protobuf message's fields by number: int, or bytes for all that is no varint; field `skip` is left empty.

    Raises ValueError or IndexError where it is no message; nothing else of it is checked.
    """
    fields: Fields = {}
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        value: Any
        if wire == 0:
            value, place = _varint(message, place)
        else:
            size = {1: 8, 5: 4}.get(wire, 0)
            if wire == 2:
                size, place = _varint(message, place)
            if wire not in (1, 2, 5) or place + size > end:
                raise ValueError("no protobuf message")
            value = message[place : place + size] if number != skip else b""
            place += size
        fields.setdefault(number, []).append(value)
    return fields


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("no number of protobuf")


def whole_numbers(values: Sequence[Any]) -> Iterator[int]:
    """Signed whole numbers of a repeated field, packed or not."""
    for value in values:
        numbers, place = [value] if isinstance(value, int) else [], 0
        while not isinstance(value, int) and place < len(value):
            number, place = _varint(value, place)
            numbers.append(number)
        yield from (number - (1 << 64) if number >= 1 << 63 else number for number in numbers)


def whole_number(fields: Fields, number: int) -> int:
    """A field that is a number, 0 where it is not set."""
    return int(fields.get(number, [0])[-1])


def constant_tensor(attribute: Fields) -> bytes:
    """The TensorProto of an attribute of ONNX's `Constant`; numbers that stand there without one become doubles."""
    if 5 in attribute:
        return attribute[5][0]
    floats = b"".join([*attribute.get(2, ()), *attribute.get(7, ())])
    whole = whole_numbers([*attribute.get(3, ()), *attribute.get(8, ())])
    numbers = [*struct.unpack(f"<{len(floats) // 4}f", floats), *whole]
    # proto3 leaves out a number that is zero.
    if not numbers and whole_number(attribute, 20) in (1, 2):
        numbers = [0.0]
    return _message((1, len(numbers)), (2, 11), (9, struct.pack(f"<{len(numbers)}d", *numbers))) if numbers else b""


def texts(fields: Fields, number: int) -> list[str]:
    """A repeated field of texts."""
    return [value.decode(errors="replace") for value in fields.get(number, ())]


def text(fields: Fields, number: int) -> str:
    """A field that is a text, "" where it is not set."""
    return (texts(fields, number) or [""])[-1]


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

    def constant(self, values: np.ndarray, name: str = "") -> str:
        """A tensor with the shape, dtype and content of `values`; its name is made up where none is asked for."""
        values = np.asarray(values, order="C")
        name = name or f"c{len(self._constants)}"
        shape = ((1, n) for n in values.shape)
        self._constants.append(_message(*shape, (2, _TYPES[values.dtype.name]), (8, name), (9, values.tobytes())))
        return name

    def number(self, value: float) -> str:
        """A constant of one float32."""
        return self.constant(np.array(value, np.float32))

    def serialize(
        self,
        inputs: Mapping[str, tuple[str, Sequence[int]]],
        outputs: Mapping[str, tuple[str, Sequence[int]]],
        name: str = "main",
        properties: Optional[Mapping[str, str]] = None,
    ) -> bytes:
        """The file; `inputs` and `outputs` are name → (dtype, shape), `properties` the file's metadata."""
        graph = _message(
            *((1, node) for node in self._nodes),
            (2, name),
            *((5, constant) for constant in self._constants),
            *((11, _value(one, *described)) for one, described in inputs.items()),
            *((12, _value(one, *described)) for one, described in outputs.items()),
        )
        operators = _message((1, ""), (2, OPSET))
        listed = ((14, _message((1, key), (2, value))) for key, value in (properties or {}).items())
        return _message((1, IR_VERSION), (2, "edge-mnv2"), (7, graph), (8, operators), *listed)


def _value(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    dimensions = _message(*((1, _message((1, n))) for n in shape))
    return _message((1, name), (2, _message((1, _message((1, _TYPES[dtype]), (2, dimensions))))))


def _message(*fields: tuple[int, Union[int, str, bytes]]) -> bytes:
    parts = []
    for number, value in fields:
        if isinstance(value, (int, np.integer)):
            parts += [_varint_bytes(number << 3), _varint_bytes(int(value) & (1 << 64) - 1)]
        else:
            content = value.encode() if isinstance(value, str) else value
            parts += [_varint_bytes(number << 3 | 2), _varint_bytes(len(content)), content]
    return b"".join(parts)


def _varint_bytes(value: int) -> bytes:
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)
