"""Read a `.tflite` file into a graph that can be changed, and write it again: our models and anybody else's."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.installed import pip
from edge_mnv2.tflite.ir import Graph, Operator, Quantization, Signature, Subgraph, Tensor
from edge_mnv2.tflite.schema import Record, Union, decode, encode, members, numbers

__all__ = ["Graph", "Operator", "Quantization", "Signature", "Subgraph", "Tensor", "read", "write"]


def read(data: bytes, name: str = "the model") -> Graph:
    """The graph in `data`. Raises ModelError, which calls the file `name`, where it is no sound `.tflite`.

    Constants are views of `data`, not copies.
    """
    root, newer = decode(bytes(data), name)
    reader = _Reader(name, bytes(data), root)
    subgraphs = [reader.subgraph(record) for record in root["subgraphs"] or []]
    if not subgraphs:
        raise reader.damaged("it has no subgraph")
    metadata = {}
    for record in root["metadata"] or []:
        metadata[record["name"] or ""] = _bytes(reader.buffer(record["buffer"]))
    return Graph(
        subgraphs,
        root["description"] or "",
        metadata,
        [reader.signature(record, subgraphs) for record in root["signature_defs"] or []],
        root["version"],
        _appended_archive(bytes(data)),
        newer,
    )


def _bytes(content: Any) -> bytes:
    return b"" if content is None else bytes(content)


def _appended_archive(data: bytes) -> bytes:
    # A ZIP ends within 64 kB of its end record; without the quick look every model would be searched as a ZIP.
    if b"PK\x05\x06" not in data[-66000:]:
        return b""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            start = min((member.header_offset for member in archive.infolist()), default=len(data))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return b""
    return data[start:] if start > 8 else b""


class _Reader:
    def __init__(self, name: str, data: bytes, root: Record) -> None:
        self._name = name
        self._data = data
        self._buffers: list[Record] = root["buffers"] or []
        self._codes: list[Record] = root["operator_codes"] or []
        self._contents: dict[int, Any] = {}

    def damaged(self, what: str) -> ModelError:
        return ModelError(f"{self._name} is damaged: {what}", hint="get the file again")

    def buffer(self, index: int) -> Any:
        """Content of a buffer, None where it is empty; the same object for the same index."""
        if not 0 <= index < len(self._buffers):
            raise self.damaged(f"buffer {index} of {len(self._buffers)}")
        if index not in self._contents:
            record = self._buffers[index]
            content: Any = record["data"] if record["data"] is not None and len(record["data"]) else None
            # Files above 2 GB keep their buffers behind the flatbuffer.
            start, size = record.get("offset", 0), record.get("size", 0)
            if content is None and start > 1:
                if start + size > len(self._data):
                    raise self.damaged(f"buffer {index} ends beyond the file")
                content = np.frombuffer(self._data, np.uint8, size, start)
            self._contents[index] = content
        return self._contents[index]

    def subgraph(self, record: Record) -> Subgraph:
        tensors = [self._tensor(entry) for entry in record["tensors"] or []]
        return Subgraph(
            tensors,
            self._pick(record["inputs"], tensors),
            self._pick(record["outputs"], tensors),
            [self._operator(entry, tensors) for entry in record["operators"] or []],
            record["name"],
            _rest(record, "tensors", "inputs", "outputs", "operators", "name"),
        )

    def signature(self, record: Record, subgraphs: list[Subgraph]) -> Signature:
        index = record["subgraph_index"]
        if not 0 <= index < len(subgraphs):
            raise self.damaged(f"a signature of subgraph {index} of {len(subgraphs)}")
        tensors = subgraphs[index].tensors
        named = [
            {entry["name"] or "": self._pick([entry["tensor_index"]], tensors)[0] for entry in record[side] or []}
            for side in ("inputs", "outputs")
        ]
        return Signature(record["signature_key"] or "", named[0], named[1], index)

    def _pick(self, indices: Any, tensors: list[Tensor]) -> list[Tensor]:
        picked = self._pick_optional(indices, tensors)
        if None in picked:
            raise self.damaged("an input or output without a tensor")
        return picked  # type: ignore[return-value]

    def _pick_optional(self, indices: Any, tensors: list[Tensor]) -> list[Optional[Tensor]]:
        picked: list[Optional[Tensor]] = []
        for index in [] if indices is None else indices:
            if not -1 <= index < len(tensors):
                raise self.damaged(f"tensor {index} of {len(tensors)}")
            picked.append(None if index == -1 else tensors[index])
        return picked

    def _tensor(self, record: Record) -> Tensor:
        quantization = None
        if (entry := record["quantization"]) is not None:
            scale = np.zeros(0, np.float32) if entry["scale"] is None else entry["scale"]
            zero = np.zeros(0, np.int64) if entry["zero_point"] is None else entry["zero_point"]
            if len(zero) == 0:
                zero = np.zeros(len(scale), np.int64)
            if len(zero) != len(scale):
                raise self.damaged(f"{len(scale)} scales and {len(zero)} zero points")
            quantization = Quantization(
                scale,
                zero,
                entry["quantized_dimension"],
                entry["min"],
                entry["max"],
                _rest(entry, "scale", "zero_point", "quantized_dimension", "min", "max"),
            )
        shape = () if record["shape"] is None else tuple(int(n) for n in record["shape"])
        signature = record["shape_signature"]
        return Tensor(
            record["name"] or "",
            shape,
            members("TensorType").get(record["type"], f"type{record['type']}").lower(),
            self.buffer(record["buffer"]) if record["buffer"] else None,
            quantization,
            None if signature is None else tuple(int(n) for n in signature),
            record["is_variable"],
            _rest(record, "name", "shape", "type", "buffer", "quantization", "shape_signature", "is_variable"),
        )

    def _operator(self, record: Record, tensors: list[Tensor]) -> Operator:
        index = record["opcode_index"]
        if not 0 <= index < len(self._codes):
            raise self.damaged(f"operator code {index} of {len(self._codes)}")
        code = self._codes[index]
        number = max(code["deprecated_builtin_code"], code["builtin_code"])
        options = record["builtin_options"] or record.get("builtin_options2")
        custom = record["custom_options"]
        start, size = record.get("large_custom_options_offset", 0), record.get("large_custom_options_size", 0)
        if custom is None and start > 1:
            custom = self._data[start : start + size]
        handled = "opcode_index inputs outputs intermediates builtin_options builtin_options_type builtin_options2 "
        handled += "builtin_options2_type custom_options large_custom_options_offset large_custom_options_size"
        return Operator(
            members("BuiltinOperator").get(number, f"BUILTIN_{number}"),
            self._pick_optional(record["inputs"], tensors),
            self._pick(record["outputs"], tensors),
            options.table if options else None,
            options.record if options else {},
            code["version"],
            code["custom_code"],
            None if custom is None else bytes(custom),
            self._pick(record["intermediates"], tensors),
            _rest(record, *handled.split()),
        )


def _rest(record: Record, *handled: str) -> Record:
    return {name: value for name, value in record.items() if name not in handled and value is not None}


def write(graph: Graph) -> bytes:
    """The `.tflite` file of `graph`; the same graph always gives the same bytes.

    Constants start at multiples of 16 bytes. Tensors that share one `data` object share one buffer. Raises ModelError
    where the graph does not hold together.
    """
    if graph.newer:
        raise ModelError(
            f"the model cannot be rewritten: it has {', '.join(graph.newer[:3])}, unknown to the installed schema",
            hint=f"{pip()} -U tflite",
        )
    writer = _Writer()
    subgraphs = [writer.subgraph(subgraph) for subgraph in graph.subgraphs]
    signatures = [_signature(signature, graph) for signature in graph.signatures]
    metadata = [{"name": name, "buffer": writer.buffer(content)} for name, content in graph.metadata.items()]
    root: Record = {
        "version": graph.version,
        "operator_codes": writer.codes,
        "subgraphs": subgraphs,
        "description": graph.description,
        "buffers": writer.buffers,
        "metadata": metadata or None,
        "signature_defs": signatures or None,
    }
    size = sum(len(buffer["data"]) + 48 for buffer in writer.buffers if buffer)
    return encode("Model", root, size_hint=size + (64 << 10)) + graph.archive


def _indices(tensors: Sequence[Optional[Tensor]], places: dict[int, int], owner: str) -> np.ndarray:
    indices = []
    for tensor in tensors:
        if tensor is not None and id(tensor) not in places:
            raise ModelError(f"tensor '{tensor.name}' of {owner} is not in its subgraph")
        indices.append(-1 if tensor is None else places[id(tensor)])
    return np.array(indices, np.int32)


def _signature(signature: Signature, graph: Graph) -> Record:
    places = {id(tensor): index for index, tensor in enumerate(graph.subgraphs[signature.subgraph].tensors)}
    sides = [
        [
            {"name": name, "tensor_index": _indices([tensor], places, f"signature '{signature.key}'")[0]}
            for name, tensor in side.items()
        ]
        for side in (signature.inputs, signature.outputs)
    ]
    return {
        "inputs": sides[0],
        "outputs": sides[1],
        "signature_key": signature.key,
        "subgraph_index": signature.subgraph,
    }


class _Writer:
    def __init__(self) -> None:
        # Buffer 0 is empty by convention: it stands for "no constant".
        self.buffers: list[Record] = [{}]
        self.codes: list[Record] = []
        self._buffer_of: dict[int, int] = {}
        self._code_of: dict[tuple, int] = {}

    def buffer(self, content: Any) -> int:
        if content is None:
            return 0
        if id(content) not in self._buffer_of:
            self._buffer_of[id(content)] = len(self.buffers)
            self.buffers.append({"data": np.frombuffer(content, np.uint8)})
        return self._buffer_of[id(content)]

    def subgraph(self, subgraph: Subgraph) -> Record:
        places = {id(tensor): index for index, tensor in enumerate(subgraph.tensors)}
        return {
            **subgraph.extra,
            "tensors": [self._tensor(tensor) for tensor in subgraph.tensors],
            "inputs": _indices(subgraph.inputs, places, "the inputs"),
            "outputs": _indices(subgraph.outputs, places, "the outputs"),
            "operators": [self._operator(operator, places) for operator in subgraph.operators],
            "name": subgraph.name,
        }

    def _tensor(self, tensor: Tensor) -> Record:
        quantization = None
        if (values := tensor.quantization) is not None:
            some = len(values.scale) > 0
            quantization = {
                **values.extra,
                "scale": values.scale if some else None,
                "zero_point": values.zero_point if some else None,
                "quantized_dimension": values.axis,
                "min": values.minimum,
                "max": values.maximum,
            }
        type_number = numbers("TensorType").get(tensor.dtype.upper())
        if type_number is None:
            raise ModelError(f"tensor '{tensor.name}' has the unknown type {tensor.dtype}")
        return {
            **tensor.extra,
            "name": tensor.name,
            "shape": np.array(tensor.shape, np.int32),
            "type": type_number,
            "buffer": self.buffer(tensor.data),
            "quantization": quantization,
            "shape_signature": None if tensor.shape_signature is None else np.array(tensor.shape_signature, np.int32),
            "is_variable": tensor.is_variable,
        }

    def _operator(self, operator: Operator, places: dict[int, int]) -> Record:
        owner = f"operator {operator.name}"
        record = {
            **operator.extra,
            "opcode_index": self._code(operator),
            "inputs": _indices(operator.inputs, places, owner),
            "outputs": _indices(operator.outputs, places, owner),
            "intermediates": _indices(operator.intermediates, places, owner) if operator.intermediates else None,
            "custom_options": None
            if operator.custom_options is None
            else np.frombuffer(operator.custom_options, np.uint8),
        }
        if operator.options_table is not None:
            first = operator.options_table in numbers("BuiltinOptions")
            options = Union(operator.options_table, operator.options)
            record["builtin_options" if first else "builtin_options2"] = options
        return record

    def _code(self, operator: Operator) -> int:
        key = (operator.kind, operator.custom_code, operator.version)
        if key not in self._code_of:
            number = numbers("BuiltinOperator").get(operator.kind)
            if number is None:
                raise ModelError(f"operator {operator.kind} is unknown to the installed schema")
            self._code_of[key] = len(self.codes)
            # Readers older than 127 operators look at the first number only.
            code = {"deprecated_builtin_code": min(number, 127), "builtin_code": number}
            self.codes.append({**code, "custom_code": operator.custom_code, "version": operator.version})
        return self._code_of[key]
