"""Look at a `.tflite` file before a native loader does.

The loaders trust their input: tflite-runtime dies on half a file, and a file that lacks its end loads and runs. This
module walks the flatbuffer's skeleton (tables, vectors, buffers, index ranges) with bounds checks in about a
millisecond, and on the way learns the few facts that the runtime needs: custom operators, and the operator that makes
the output. Field numbers are those of the TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.errors import ModelError

EDGETPU_OP = "edgetpu-custom-op"

_ITEM_BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 11: 8, 12: 8, 15: 4, 16: 2}
"""Bytes an element by TensorType; types of no fixed size (strings, resources, packed int4) are left out."""

_PASS_THROUGH = {6: "DEQUANTIZE", 22: "RESHAPE", 43: "SQUEEZE", 114: "QUANTIZE"}
_PROBABILITIES = {25: "SOFTMAX", 14: "LOGISTIC"}
_CUSTOM = 32
_MAX_DEPTH = 8


@dataclass(frozen=True)
class ModelFile:
    """What the skeleton says. `probabilities`: "SOFTMAX" or "LOGISTIC" where such an operator makes the first output,
    "" where another one does, None where it cannot be told (a compiled custom operator)."""

    path: str
    size: int
    subgraphs: int
    custom_ops: tuple[str, ...]
    probabilities: Optional[str]

    @property
    def edgetpu(self) -> bool:
        return EDGETPU_OP in self.custom_ops


class _Damaged(Exception):
    pass


class _Table:
    """A flatbuffer table at `position` of `data`, every access checked."""

    __slots__ = ("_vtable", "_vtable_size", "data", "position")

    def __init__(self, data: Union[bytes, mmap.mmap], position: int) -> None:
        self.data = data
        self.position = position
        self._vtable = position - _read(data, "<i", position)
        self._vtable_size = _read(data, "<H", self._vtable)
        if self._vtable_size < 4 or self._vtable + self._vtable_size > len(data):
            raise _Damaged("a table lies outside the file")

    def field(self, number: int) -> int:
        """Absolute position of a field, 0 where it is not set."""
        slot = 4 + 2 * number
        if slot + 2 > self._vtable_size:
            return 0
        offset = _read(self.data, "<H", self._vtable + slot)
        return self.position + offset if offset else 0

    def scalar(self, number: int, form: str, default: int = 0) -> int:
        position = self.field(number)
        return _read(self.data, form, position) if position else default

    def vector(self, number: int, item: int) -> tuple[int, int]:
        """(position of the first element, count) of a vector of `item`-byte elements."""
        position = self.field(number)
        if not position:
            return 0, 0
        start = position + _read(self.data, "<I", position)
        count = _read(self.data, "<I", start)
        if start + 4 + count * item > len(self.data):
            raise _Damaged("a part of it lies beyond its end")
        return start + 4, count

    def tables(self, number: int) -> list[_Table]:
        start, count = self.vector(number, 4)
        return [_Table(self.data, at + _read(self.data, "<I", at)) for at in range(start, start + 4 * count, 4)]

    def integers(self, number: int) -> Sequence[int]:
        start, count = self.vector(number, 4)
        return struct.unpack_from(f"<{count}i", self.data, start) if count else ()

    def text(self, number: int) -> str:
        start, count = self.vector(number, 1)
        return bytes(self.data[start : start + count]).decode(errors="replace")


def _read(data: Union[bytes, mmap.mmap], form: str, position: int) -> int:
    if position < 0 or position + struct.calcsize(form) > len(data):
        raise _Damaged("it points outside itself")
    return struct.unpack_from(form, data, position)[0]


def check(path: Union[Path, str]) -> ModelFile:
    """Check that `path` is a whole TensorFlow Lite model. Raises ModelError with what it is instead."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder, not a model", hint="name the .tflite file in it")
        size = path.stat().st_size
        if size == 0:
            raise ModelError(f"{path} is empty (0 bytes)", hint="copy or download the model again")
        if not path.is_file():
            raise ModelError(f"{path} is not a regular file")
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _check(str(path), data)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file", hint="see `edge-mnv2 models list` for known names") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read: {reason}") from error


def check_bytes(data: bytes, name: str = "model") -> ModelFile:
    """`check` for a model in memory."""
    return _check(name, data)


def _check(name: str, data: Union[bytes, mmap.mmap]) -> ModelFile:
    if bytes(data[4:8]) != b"TFL3":
        raise ModelError(f"{name} is not a TensorFlow Lite model: {_what_it_is(bytes(data[:4096]))}")
    try:
        return _walk(name, data)
    except (_Damaged, struct.error, OverflowError, MemoryError) as error:
        reason = error if isinstance(error, _Damaged) else "its structure is broken"
        raise ModelError(
            f"{name} is damaged or cut short ({len(data)} bytes): {reason}", hint="copy or download it again"
        ) from None


def _what_it_is(head: bytes) -> str:
    text = head.decode("utf-8", errors="ignore").lstrip("\ufeff \t\r\n")
    if text[:1] == "<":
        title = re.search(r"<title[^>]*>([^<]{1,80})", text, re.IGNORECASE)
        return f"an HTML or XML page{f' ({title.group(1).strip()})' if title else ''}; a login page may have answered"
    if text.startswith("version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run `git lfs pull` where it came from"
    if head[:2] == b"PK":
        return "a zip archive; unpack it first"
    if head[:2] == b"\x1f\x8b":
        return "a gzip archive; unpack it first"
    if head.strip(b"\0") == b"":
        return "it begins with zeros; the copy did not finish"
    return "the TFL3 mark is missing"


def _walk(name: str, data: Union[bytes, mmap.mmap]) -> ModelFile:
    model = _Table(data, _read(data, "<I", 0))
    version = model.scalar(0, "<I")
    if version != 3:
        raise ModelError(f"{name} has schema version {version}; only version 3 can be run")
    codes = []
    custom = []
    for code in model.tables(1):
        builtin = max(code.scalar(0, "<b"), code.scalar(3, "<i"))
        codes.append(builtin)
        if builtin == _CUSTOM:
            custom.append(code.text(1))
    buffers = [_buffer_size(buffer) for buffer in model.tables(4)]
    subgraphs = model.tables(2)
    if not subgraphs:
        raise ModelError(f"{name} has no graph in it")
    probabilities = None
    for number, subgraph in enumerate(subgraphs):
        operators = _check_subgraph(subgraph, codes, buffers)
        if number == 0:
            if not subgraph.integers(1) or not subgraph.integers(2):
                raise ModelError(f"{name} has no input or no output")
            probabilities = _output_operator(operators, subgraph.integers(2)[0])
    if _zip_tail_is_cut(data):
        raise _Damaged("the label file packed at its end is cut")
    for entry in model.tables(6):
        if entry.scalar(1, "<I") >= len(buffers):
            raise _Damaged("its metadata point nowhere")
    return ModelFile(name, len(data), len(subgraphs), tuple(custom), probabilities)


def _zip_tail_is_cut(data: Union[bytes, mmap.mmap]) -> bool:
    """Whether a zip archive of associated files is appended (as TFLite metadata do) and lacks its end record."""
    start = data.find(b"PK\x03\x04")
    if start < 0 or start + 30 > len(data):
        return False
    length = _read(data, "<H", start + 26)
    name = bytes(data[start + 30 : start + 30 + length])
    looks_like_a_name = 0 < length < 256 and name.isascii() and name.decode("ascii").isprintable()
    if not looks_like_a_name:
        return False
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))
    return end < 0 or end + 22 > len(data)


def _buffer_size(buffer: _Table) -> int:
    start, count = buffer.vector(0, 1)
    offset, size = buffer.scalar(1, "<Q"), buffer.scalar(2, "<Q")
    if offset > 1:  # a buffer that lies behind the flatbuffer, for files over 2 GB
        if offset + size > len(buffer.data):
            raise _Damaged("its weights are not all there")
        return size
    return count if start else 0


def _check_subgraph(
    subgraph: _Table, codes: Sequence[int], buffers: Sequence[int]
) -> list[tuple[int, Sequence[int], Sequence[int]]]:
    tensors = subgraph.tables(0)
    for tensor in tensors:
        _check_tensor(tensor, buffers)
    for number in (1, 2):
        if any(not 0 <= index < len(tensors) for index in subgraph.integers(number)):
            raise _Damaged("its inputs or outputs do not exist")
    operators = []
    for operator in subgraph.tables(3):
        code = operator.scalar(0, "<I")
        inputs, outputs = operator.integers(1), operator.integers(2)
        if code >= len(codes):
            raise _Damaged("an operator is of no known kind")
        if any(not -1 <= index < len(tensors) for index in inputs) or any(
            not 0 <= index < len(tensors) for index in outputs
        ):
            raise _Damaged("an operator reads a tensor that does not exist")
        if operator.field(4):
            position = operator.field(4)
            _Table(operator.data, position + _read(operator.data, "<I", position))
        operators.append((codes[code], inputs, outputs))
    return operators


def _check_tensor(tensor: _Table, buffers: Sequence[int]) -> None:
    shape = tensor.integers(0)
    kind = tensor.scalar(1, "<b")
    buffer = tensor.scalar(2, "<I")
    # Buffer 0 is the empty one by convention, and a model without constants may leave it out.
    if buffer and buffer >= len(buffers):
        raise _Damaged("a tensor has no buffer")
    tensor.text(3)
    if any(n < -1 for n in shape):
        raise _Damaged("a tensor has an impossible shape")
    elements = 1
    for n in shape:
        elements *= n
    stored = buffers[buffer] if buffers else 0
    sparse = tensor.field(6)
    if stored and kind in _ITEM_BYTES and not sparse and stored != elements * _ITEM_BYTES[kind]:
        raise _Damaged("a tensor's weights do not fit its shape")
    position = tensor.field(4)
    if position:
        quantization = _Table(tensor.data, position + _read(tensor.data, "<I", position))
        _, scales = quantization.vector(2, 4)
        _, zero_points = quantization.vector(3, 8)
        dimension = quantization.scalar(6, "<i")
        if zero_points not in (0, 1, scales):
            raise _Damaged("a tensor's quantization does not fit its shape")
        if scales > 1 and not (0 <= dimension < len(shape) and shape[dimension] == scales):
            raise _Damaged("a tensor's quantization does not fit its shape")


def _output_operator(operators: Sequence[tuple[int, Sequence[int], Sequence[int]]], tensor: int) -> Optional[str]:
    makers = {output: (code, inputs) for code, inputs, outputs in operators for output in outputs}
    for _ in range(_MAX_DEPTH):
        if tensor not in makers:
            return ""
        code, inputs = makers[tensor]
        if code in _PROBABILITIES:
            return _PROBABILITIES[code]
        if code == _CUSTOM:
            return None
        if code not in _PASS_THROUGH or not inputs:
            return ""
        tensor = inputs[0]
    return ""
