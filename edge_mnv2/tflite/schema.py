"""The `.tflite` flatbuffer as plain dictionaries, read and written without any code per table.

The package `tflite` carries flatc's generated readers and no object API. What a table's fields are is learned from
those readers: each getter is called once with a stand-in for `flatbuffers.table.Table` that notes which slot and which
type it asks for. So every table of the installed schema is covered, operator options included.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.tflite.wire_formats import Damaged, Flatbuffer, Table

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
    """One field: `kind` is scalar, scalars, string, table, tables or union; `type` fits the kind."""

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

    def Get(self, flags: Any, _position: int) -> int:
        self.calls.setdefault("Get", flags)
        return 0

    def GetVectorAsNumpy(self, flags: Any, _position: int) -> None:
        self.calls["GetVectorAsNumpy"] = flags

    def Vector(self, _position: int) -> int:
        return 0

    def Indirect(self, _position: int) -> int:
        self.calls["Indirect"] = True
        return 0

    def String(self, _position: int) -> bytes:
        self.calls["String"] = True
        return b""

    def Union(self, _table: Any, _position: int) -> None:
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
    listed = []
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
                kind, type_ = "tables", type(value).__name__
        elif "Get" in probe.calls:
            kind, type_ = "scalar", probe.calls["Get"]
            default = _probe(cls, getter, arguments, present=False)[1]
        else:
            kind, type_ = ("string", None) if "String" in probe.calls else ("table", type(value).__name__)
        listed.append(Field(name, probe.slot, kind, type_, default))
    return tuple(sorted(listed, key=lambda field: field.slot))


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


def decode(data: bytes, name: str) -> tuple[Record, list[str]]:
    """The model in `data` as a record, and what of it the installed schema does not know.

    Every access is checked. Raises ModelError, which calls the file `name`, where it is no sound `.tflite`.
    """
    if data[4:8] != IDENTIFIER:
        hint = "its bytes 4 to 8 are not TFL3"
        if name.lower().endswith(".onnx"):
            hint = "only `run`, `classify`, `evaluate` and `profile` take ONNX; build a .tflite of the same weights"
        raise ModelError(f"{name} is not a .tflite model", hint=hint)
    # What a sound file of this size can hold at most; more means that its tables repeat themselves on purpose.
    decoder = _Decoder(min(len(data), 4_000_000))
    try:
        return decoder.record("Model", Flatbuffer(data).root()), sorted(set(decoder.newer))
    except Damaged as error:
        raise ModelError(f"{name} is damaged: {error}", hint="get the file again") from None


class _Decoder:
    """Makes records of tables; `newer` collects what the installed schema does not know."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.newer: list[str] = []

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise Damaged("its tables refer to each other without end")

    def record(self, name: str, table: Table) -> Record:
        """`table`, which is one of the schema's `name`."""
        self._spend(8)
        known = fields(name)
        record: Record = {}
        for field in known:
            record[field.name] = self._value(field, table, record) if table.field(field.slot) else field.default
        unknown = range(known[-1].slot + 1 if known else 0, table.fields)
        self._spend(len(unknown))
        self.newer += [f"field {slot} of {name}" for slot in unknown if table.field(slot)]
        return record

    def _value(self, field: Field, table: Table, record: Record) -> Any:
        data = table.buffer.data
        if field.kind == "scalar":
            form = "<" + field.type.packer_type.format.lstrip("<")
            return field.type.py_type(table.scalar(field.slot, form))
        if field.kind in ("table", "union"):
            name, inner = field.type, table.table(field.slot)
            assert inner is not None
            if field.kind == "table":
                return self.record(name, inner)
            tag = record[field.name + "_type"]
            kind = members(name).get(tag)
            if kind is None:
                self.newer.append(f"{name} number {tag}")
                return None
            return Union(kind, self.record(kind, inner)) if kind != "NONE" else None
        if field.kind == "tables":
            inside = table.tables(field.slot)
            self._spend(len(inside))
            return [self.record(field.type, one) for one in inside]
        start, count = table.vector(field.slot, 1 if field.kind == "string" else field.type.itemsize)
        if field.kind == "scalars":
            return np.frombuffer(data, field.type, count, start)
        self._spend(count)
        return bytes(data[start : start + count]).decode("utf-8", "surrogateescape")


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
            children = [_put_table(builder, field.type, child) for child in value]
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


def _put_scalars(builder: Any, values: np.ndarray, alignment: int) -> int:
    content = values.tobytes()
    builder.StartVector(values.dtype.itemsize, len(values), alignment)
    # One copy instead of a call per element; the builder fills its array from the end.
    builder.head -= len(content)
    builder.Bytes[builder.head : builder.head + len(content)] = content
    return builder.EndVector()
