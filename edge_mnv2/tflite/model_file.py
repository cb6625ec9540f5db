"""Look at a `.tflite` file before a native loader does.

The loaders trust their input: tflite-runtime dies on half a file, and a file that lacks its end loads and runs. This
module walks the whole flatbuffer with bounds checks in a few milliseconds, has its graph looked at for what crashes
native code (`graph_check`), and learns on the way which custom operators it has. Field numbers are those of the
TensorFlow Lite schema, version 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.errors import ModelError
from edge_mnv2.files import LFS_POINTER, content
from edge_mnv2.tflite.graph_check import CUSTOM, LAYOUTS, check_subgraph
from edge_mnv2.tflite.wire_formats import Damaged, Flatbuffer, Table, verify

EDGETPU_OP = "edgetpu-custom-op"
_POOLS = (1, 40)
_WEIGHTS = "weights become a model with `edge-mnv2 build --weights FILE --out MODEL.tflite`"
_INSTEAD = {
    "a ZIP archive": f"unpack it where it is a download; {_WEIGHTS}",
    "a gzip archive": "unpack it",
    "an HDF5 file": _WEIGHTS,
    "a model that is compiled for a Rockchip NPU": "name the .tflite that it was compiled from",
}
"""AVERAGE_POOL_2D and MEAN."""


@dataclass(frozen=True)
class ModelFile:
    """What the skeleton says."""

    path: str
    size: int
    subgraphs: int
    custom_ops: tuple[str, ...]

    @property
    def edgetpu(self) -> bool:
        return EDGETPU_OP in self.custom_ops


def check(path: Union[Path, str]) -> ModelFile:
    """Check that `path` is a whole TensorFlow Lite model. Raises ModelError with what it is instead.

    Of a file called `.onnx` only the beginning is looked at: ONNX Runtime checks the rest itself.
    """
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


def with_pool_output(path: Path) -> Optional[bytes]:
    """The model in the file with its embedding, the average over its last maps, as one more output: the last one.

    None where there is no such average, or where it is an output already. The graph is not read and written anew: the
    list of outputs is replaced by a longer one behind the end. Raises OSError.
    """
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            model = Flatbuffer(data).root()
            graph, outputs, pool = model.tables(2)[0], model.tables(2)[0].numbers(2, "i"), _last_pool(model)
            if pool is None or pool in outputs:
                return None
            place = graph.field(2, 4)
            padding = bytes(-len(data) % 4)
            distance = struct.pack("<I", len(data) + len(padding) - place)
            longer = struct.pack(f"<I{len(outputs) + 1}i", len(outputs) + 1, *outputs, pool)
            with memoryview(data) as view, view[:place] as before, view[place + 4 :] as after:
                return b"".join((before, distance, after, padding, longer))
    except (Damaged, struct.error, LookupError, ValueError):
        return None


def pool_among_outputs(path: Path) -> Optional[int]:
    """The position among the outputs of the embedding, where the file has it there already. Raises OSError."""
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            model = Flatbuffer(data).root()
            return list(model.tables(2)[0].numbers(2, "i")).index(_last_pool(model))
    except (Damaged, struct.error, LookupError, ValueError):
        return None


def _last_pool(model: Table) -> Optional[int]:
    """The tensor of the last average over whole maps."""
    codes = [max(code.scalar(0, "<b"), code.scalar(3, "<i")) for code in model.tables(1)]
    graph = model.tables(2)[0]
    shapes = [tensor.numbers(0, "i") for tensor in graph.tables(0)]
    for operator in reversed(graph.tables(3)):
        inputs, outputs = operator.numbers(1, "i"), operator.numbers(2, "i")
        if codes[operator.scalar(0, "<I")] in _POOLS and inputs and len(shapes[inputs[0]]) == 4:
            channels = shapes[inputs[0]][3]
            return outputs[0] if channels > 1 and math.prod(shapes[outputs[0]]) == channels else None
    return None


def check_bytes(data: bytes, name: str = "model") -> ModelFile:
    """`check` for a model in memory."""
    return _check(name, data)


def _check(name: str, data: Union[bytes, mmap.mmap]) -> ModelFile:
    if name.lower().endswith(".onnx"):
        return _check_onnx(name, data)
    if bytes(data[4:8]) != b"TFL3":
        what = _what_it_is(bytes(data[:4096]))
        raise ModelError(f"{name} is not a TensorFlow Lite model: {what}", hint=_INSTEAD.get(what))
    try:
        return _walk(name, data)
    except (Damaged, struct.error, OverflowError, MemoryError) as error:
        reason = error if isinstance(error, Damaged) else "its structure is broken"
        raise ModelError(
            f"{name} is damaged or cut short ({len(data)} bytes): {reason}", hint="copy or download it again"
        ) from None


def _check_onnx(name: str, data: Union[bytes, mmap.mmap]) -> ModelFile:
    # A protobuf message whose first field is the ONNX version, a small number.
    head = bytes(data[:2])
    if len(head) < 2 or head[0] != 8 or head[1] > 32:
        raise ModelError(f"{name} is not an ONNX model: {_what_it_is(bytes(data[:4096]))}")
    return ModelFile(name, len(data), 1, ())


def _what_it_is(head: bytes) -> str:
    what = content(head)
    if what == LFS_POINTER:
        return f"{what}; run `git lfs pull` where it came from"
    if what is not None and "HTML" in what:
        return f"{what}; a login page may have answered"
    return what or "its mark is missing"


def _walk(name: str, data: Union[bytes, mmap.mmap]) -> ModelFile:
    model = Flatbuffer(data).root()
    version = model.scalar(0, "<I")
    if version != 3:
        raise ModelError(f"{name} has schema version {version}; only version 3 can be run")
    verify(model, "Model", LAYOUTS)
    codes = []
    custom = []
    for code in model.tables(1):
        builtin = max(code.scalar(0, "<b"), code.scalar(3, "<i"))
        codes.append(builtin)
        if builtin == CUSTOM:
            custom.append(code.text(1))
    buffers = [_buffer_size(buffer) for buffer in model.tables(4)]
    subgraphs = model.tables(2)
    if not subgraphs:
        raise ModelError(f"{name} has no graph in it")
    if not subgraphs[0].numbers(1, "i") or not subgraphs[0].numbers(2, "i"):
        raise ModelError(f"{name} has no input or no output")
    for subgraph in subgraphs:
        check_subgraph(subgraph, codes, buffers)
    if _zip_tail_is_cut(data):
        raise Damaged("the label file packed at its end is cut")
    _check_references(model, [len(subgraph.tables(0)) for subgraph in subgraphs], len(buffers))
    return ModelFile(name, len(data), len(subgraphs), tuple(custom))


def _check_references(model: Table, tensors: Sequence[int], buffers: int) -> None:
    """Metadata and signatures name buffers and tensors that exist."""
    for entry in model.tables(6):
        if entry.scalar(1, "<I") >= buffers:
            raise Damaged("its metadata point nowhere")
    for signature in model.tables(7):
        subgraph = signature.scalar(4, "<I")
        if subgraph >= len(tensors):
            raise Damaged("a signature points nowhere")
        for named in signature.tables(0) + signature.tables(1):
            if named.scalar(1, "<I") >= tensors[subgraph]:
                raise Damaged("a signature points nowhere")


def _zip_tail_is_cut(data: Union[bytes, mmap.mmap]) -> bool:
    """Whether a zip archive of associated files is appended (as TFLite metadata do) and lacks its end record."""
    start = data.find(b"PK\x03\x04")
    if start < 0 or start + 30 > len(data):
        return False
    length = struct.unpack_from("<H", data, start + 26)[0]
    name = bytes(data[start + 30 : start + 30 + length])
    looks_like_a_name = 0 < length < 256 and name.isascii() and name.decode("ascii").isprintable()
    if not looks_like_a_name:
        return False
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_557))
    return end < 0 or end + 22 > len(data)


def _buffer_size(buffer: Table) -> int:
    start, count = buffer.vector(0, 1)
    offset, size = buffer.scalar(1, "<Q"), buffer.scalar(2, "<Q")
    if offset > 1:  # a buffer that lies behind the flatbuffer, for files over 2 GB
        if offset + size > buffer.buffer.size:
            raise Damaged("its weights are not all there")
        return size
    return count if start else 0
