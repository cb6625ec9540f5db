"""The `.tflite` flatbuffer as plain dictionaries, read and written without any code per table.

The package `tflite` carries flatc's generated readers and no object API. What a table's fields are is learned from
those readers: each getter is called once with a stand-in for `flatbuffers.table.Table` that notes which slot and which
type it asks for. So every table of the installed schema is covered, operator options included.
"""

from __future__ import annotations

import importlib
import re
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import ModelError

IDENTIFIER = b"TFL3"
BUFFER_ALIGNMENT = 16
"""Weights start at multiples of this many bytes: runtimes map them in place and use vector loads."""

_UNIONS = {
    "details": "QuantizationDetails",
    "array_segments": "SparseIndexVector",
    "array_indices": "SparseIndexVector",
}
_NOT_FIELDS = re.compile(r"^(Init|GetRootAs\w*|\w+BufferHasIdentifier)$")

Record = dict[str, Any]
"""One table: field name in snake_case → number, str, numpy vector, Record, list of them, or None where absent."""


@dataclass(frozen=True)
class Field:
    """One field: `kind` is scalar, scalars, string, strings, table, tables or union; `type` fits the kind."""

    name: str
    slot: int
    kind: str
    type: Any
    default: Any


@dataclass
class Union:
    """The value of a union field: the table's name and its content."""

    table: str
    record: Record


class _Probe:
    """Stands in for `flatbuffers.table.Table` and notes what a getter asks for first.

    First, because the getter of an operator's code falls back to the older field.
    """

    Pos = 0
    Bytes = b""

    def __init__(self, present: bool) -> None:
        self.present = present
        self.slot = -1
        self.calls: dict[str, Any] = {}

    def Offset(self, vtable_offset: int) -> int:
        if self.slot < 0:
            self.slot = (vtable_offset - 4) // 2
        return int(self.present)

    def Get(self, flags: Any, position: int) -> int:
        self.calls.setdefault("Get", flags)
        return 0

    def GetVectorAsNumpy(self, flags: Any, position: int) -> None:
        self.calls["GetVectorAsNumpy"] = flags

    def Vector(self, position: int) -> int:
        return 0

    def Indirect(self, position: int) -> int:
        self.calls["Indirect"] = True
        return 0

    def String(self, position: int) -> bytes:
        self.calls["String"] = True
        return b""

    def Union(self, table: Any, position: int) -> None:
        self.calls["Union"] = True


def _module(table: str) -> Any:
    return getattr(importlib.import_module(f"tflite.{table}"), table)


def _probe(cls: Any, getter: str, arguments: int, present: bool) -> tuple[_Probe, Any]:
    probe = _Probe(present)
    reader = cls()
    reader._tab = probe
    return probe, getattr(reader, getter)(*[0] * arguments)


@cache
def fields(table: str) -> tuple[Field, ...]:
    """The fields of `table` ("Conv2DOptions") in the order of their slots."""
    cls = _module(table)
    getters = {
        name: value.__code__.co_argcount - 1
        for name, value in vars(cls).items()
        if hasattr(value, "__code__") and not _NOT_FIELDS.match(name)
    }
    derived = {name + suffix for name in getters for suffix in ("Length", "AsNumpy", "IsNone")}
    found = []
    for getter in sorted(getters.keys() - derived):
        arguments = getters[getter]
        probe, value = _probe(cls, getter, arguments, present=True)
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", getter).lower()
        default = None
        kind: str
        type_: Any = None
        if "Union" in probe.calls:
            kind, type_ = "union", _UNIONS.get(name, getter)
        elif arguments:
            if getter + "AsNumpy" in getters:
                flags = _probe(cls, getter + "AsNumpy", 0, present=True)[0].calls["GetVectorAsNumpy"]
                kind, type_ = "scalars", _dtype(flags)
            else:
                kind, type_ = ("strings", None) if "String" in probe.calls else ("tables", type(value).__name__)
        elif "Get" in probe.calls:
            kind, type_ = "scalar", probe.calls["Get"]
            default = _probe(cls, getter, arguments, present=False)[1]
        else:
            kind, type_ = ("string", None) if "String" in probe.calls else ("table", type(value).__name__)
        found.append(Field(name, probe.slot, kind, type_, default))
    return tuple(sorted(found, key=lambda field: field.slot))


def _dtype(flags: Any) -> np.dtype:
    from flatbuffers import number_types

    return np.dtype(number_types.to_numpy_type(flags)).newbyteorder("<")


@cache
def members(enum: str) -> dict[int, str]:
    """An enumeration or the tags of a union: number → name."""
    return {value: name for name, value in vars(_module(enum)).items() if not name.startswith("_")}


@cache
def numbers(enum: str) -> dict[str, int]:
    """An enumeration or the tags of a union: name → number."""
    return {name: value for value, name in members(enum).items()}


class Decoder:
    """Reads tables of one flatbuffer. Every position is checked; anything outside raises ModelError.

    `newer` collects what the file has and the installed schema does not know.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        # What a sound file of this size can hold at most; more means that its tables repeat themselves on purpose.
        self._steps = min(len(data), 4_000_000)
        self.newer: list[str] = []

    def root(self, table: str) -> Record:
        """The file's root table. Raises ModelError where this is no TFLite file."""
        if self._data[4:8] != IDENTIFIER:
            hint = "its bytes 4 to 8 are not TFL3"
            if self._name.lower().endswith(".onnx"):
                hint = "only `run`, `classify`, `evaluate` and `profile` take ONNX; build a .tflite of the same weights"
            raise ModelError(f"{self._name} is not a .tflite model", hint=hint)
        return self._table(table, self._number("<I", 0))

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self._name} is damaged: {what}", hint="get the file again")

    def _number(self, format_: str, position: int) -> Any:
        if not 0 <= position <= len(self._data) - struct.calcsize(format_):
            raise self._damaged(f"it points to byte {position} of {len(self._data)}")
        return struct.unpack_from(format_, self._data, position)[0]

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise self._damaged("its tables refer to each other without end")

    def _table(self, table: str, position: int) -> Record:
        self._spend(8)
        vtable = position - self._number("<i", position)
        size = self._number("<H", vtable)
        known = fields(table)
        record: Record = {}
        for field in known:
            offset = self._number("<H", vtable + 4 + 2 * field.slot) if 6 + 2 * field.slot <= size else 0
            record[field.name] = self._value(field, position + offset, record) if offset else field.default
        for slot in range(known[-1].slot + 1 if known else 0, (size - 4) // 2):
            self._spend(1)
            if self._number("<H", vtable + 4 + 2 * slot):
                self.newer.append(f"field {slot} of {table}")
        return record

    def _value(self, field: Field, position: int, record: Record) -> Any:
        if field.kind == "scalar":
            return self._scalar(field.type, position)
        target = position + self._number("<I", position)
        if field.kind == "string":
            return self._string(target)
        if field.kind == "table":
            return self._table(field.type, target)
        if field.kind == "union":
            tag = record[field.name + "_type"]
            kind = members(field.type).get(tag)
            if kind is None:
                self.newer.append(f"{field.type} number {tag}")
                return None
            return Union(kind, self._table(kind, target)) if kind != "NONE" else None
        length = self._number("<I", target)
        if field.kind == "scalars":
            start, nbytes = target + 4, length * field.type.itemsize
            if start + nbytes > len(self._data):
                raise self._damaged(f"a vector of {length} values ends beyond the file")
            return np.frombuffer(self._data, field.type, length, start)
        self._spend(length)
        if target + 4 + 4 * length > len(self._data):
            raise self._damaged(f"a vector of {length} tables ends beyond the file")
        elements = [start + self._number("<I", start) for start in range(target + 4, target + 4 + 4 * length, 4)]
        if field.kind == "strings":
            return [self._string(element) for element in elements]
        return [self._table(field.type, element) for element in elements]

    def _scalar(self, flags: Any, position: int) -> Any:
        return flags.py_type(self._number("<" + flags.packer_type.format.lstrip("<"), position))

    def _string(self, position: int) -> str:
        length = self._number("<I", position)
        self._spend(length)
        if position + 4 + length > len(self._data):
            raise self._damaged(f"a name of {length} bytes ends beyond the file")
        return self._data[position + 4 : position + 4 + length].decode("utf-8", "surrogateescape")


def encode(table: str, record: Record, *, size_hint: int = 1024) -> bytes:
    """A flatbuffer with `record` as its root `table`. The same record always gives the same bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(size_hint)
    builder.Finish(_put_table(builder, table, record), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _put_table(builder: Any, table: str, record: Record) -> int:
    from flatbuffers.number_types import UOffsetTFlags

    known = fields(table)
    offsets = {}
    for field in known:
        value = record.get(field.name)
        if field.kind == "scalar" or value is None:
            continue
        if field.kind == "string":
            offsets[field.name] = builder.CreateString(value.encode("utf-8", "surrogateescape"))
        elif field.kind == "table":
            offsets[field.name] = _put_table(builder, field.type, value)
        elif field.kind == "union":
            offsets[field.name] = _put_table(builder, value.table, value.record)
        elif field.kind == "scalars":
            alignment = BUFFER_ALIGNMENT if table == "Buffer" else field.type.itemsize
            offsets[field.name] = _put_scalars(builder, np.ascontiguousarray(value, field.type), alignment)
        else:
            put = _put_string if field.kind == "strings" else _put_table
            children = [put(builder, field.type, child) for child in value]
            builder.StartVector(4, len(children), 4)
            for child in reversed(children):
                builder.PrependUOffsetTRelative(child)
            offsets[field.name] = builder.EndVector()
    builder.StartObject(known[-1].slot + 1 if known else 0)
    for field in known:
        if field.name in offsets:
            builder.PrependUOffsetTRelativeSlot(field.slot, UOffsetTFlags.py_type(offsets[field.name]), 0)
        elif field.kind == "scalar":
            tagged: Optional[Union] = record.get(field.name[: -len("_type")]) if field.name.endswith("_type") else None
            value = record.get(field.name, field.default)
            if isinstance(tagged, Union):
                value = numbers(_union_of(known, field.name))[tagged.table]
            builder.PrependSlot(field.type, field.slot, field.type.py_type(value), field.default)
    return builder.EndObject()


def _union_of(known: tuple[Field, ...], tag_name: str) -> str:
    return next(field.type for field in known if field.kind == "union" and field.name + "_type" == tag_name)


def _put_string(builder: Any, _: Any, value: str) -> int:
    return builder.CreateString(value.encode("utf-8", "surrogateescape"))


def _put_scalars(builder: Any, values: np.ndarray, alignment: int) -> int:
    content = values.tobytes()
    builder.StartVector(values.dtype.itemsize, len(values), alignment)
    # One copy instead of a call per element; the builder fills its array from the end.
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    return builder.EndVector()
