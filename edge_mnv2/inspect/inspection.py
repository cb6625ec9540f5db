"""What a `.tflite` file is: tensors, operators, quantization, costs by layer. Anybody's file, nothing is executed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.board import accelerators
from edge_mnv2.board.accelerators import Accelerator
from edge_mnv2.errors import EdgeMnv2Error, LabelsError, ModelError
from edge_mnv2.inspect.delegation import Delegation
from edge_mnv2.network.network import Network, stage_table
from edge_mnv2.runtime.model_graph import read_graph
from edge_mnv2.runtime.model_io import ModelIO, ModelSpec, describe
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.runtime.table import TensorSpec
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.tflite import costs, graph, model_file
from edge_mnv2.tflite.ir import Graph, Operator, Tensor
from edge_mnv2.zoo.labels import fit_labels
from edge_mnv2.zoo.resolve import Resolved

_NUMBERS = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class TensorFacts:
    """An input or output. -1 in `shape` is a dynamic dimension; `scale` and `zero_point` are None where the tensor is
    not quantized per tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: Optional[float]
    zero_point: Optional[int]


@dataclass(frozen=True)
class Layer:
    """One operator: `shape` and `dtype` of its first output; `macs` None where unknown; `detail` for a person."""

    index: int
    subgraph: int
    operator: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: Optional[int]
    macs: Optional[int]
    detail: str


@dataclass(frozen=True)
class Inspection:
    """`parameters`, `macs` and `arena_bytes` (activation memory) are None where unknown; costs are those of subgraph 0
    with batch 1. `compiled`: the accelerator that it is compiled for; `compilers`: what each of theirs would make of
    it, as `accelerators.judged` has it. `notes` are sentences for a person."""

    file: str
    graph: Graph
    bytes: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    operators: dict[str, int]
    layers: tuple[Layer, ...]
    quantization: str
    parameters: Optional[int]
    macs: Optional[int]
    arena_bytes: Optional[int]
    compiled: Optional[Accelerator]
    compilers: dict[str, Any]
    notes: tuple[str, ...]


def inspect(path: Path) -> Inspection:
    """Read `path`. Raises ModelError where it is no sound `.tflite` file."""
    facts = model_file.check(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    model = graph.read(data, str(path))
    layers = _layers(model)
    main = [layer for layer in layers if layer.subgraph == 0]
    compiled = accelerators.compiled_for(facts.custom_ops)
    return Inspection(
        file=str(path),
        graph=model,
        bytes=len(data),
        inputs=tuple(map(_tensor_facts, model.inputs)),
        outputs=tuple(map(_tensor_facts, model.outputs)),
        operators=dict(Counter(layer.operator for layer in layers)),
        layers=layers,
        quantization=f"compiled for the {compiled.title}" if compiled else quantization_scheme(model),
        parameters=costs.total(layer.parameters for layer in layers),
        macs=costs.total(layer.macs for layer in main),
        arena_bytes=costs.arena_bytes(model.main),
        compiled=compiled,
        compilers=accelerators.judged(model, compiled, printable),
        notes=tuple(_notes(model, compiled)),
    )


def quantization_scheme(model: Graph) -> str:
    """How numbers are kept, in the field's words: "full integer (int8)", "float16 weights, ...", "not quantized"."""
    borders = {id(tensor) for tensor in (*model.inputs, *model.outputs)}
    numeric = [tensor for tensor in _computed(model) if tensor.quantized or tensor.dtype in _FLOATS]
    inside = {tensor.dtype for tensor in numeric if id(tensor) not in borders} or {tensor.dtype for tensor in numeric}
    weights = [tensor for tensor in _weights(model) if tensor.dtype in ("int2", "int4", "int8", "uint8", "float16")]
    kinds = _joined({tensor.dtype for tensor in weights})
    floats, integers = inside & set(_FLOATS), inside - set(_FLOATS)
    if integers and not floats:
        return f"full integer ({_joined(integers)}){_other_borders(model, inside)}{_grain(weights)}"
    if integers:
        return f"mixed ({_joined(inside)}){_grain(weights)}"
    if any(tensor.quantized for tensor in weights):
        return f"dynamic range ({kinds} weights, {_joined(floats)} activations)"
    if weights:
        return f"{kinds} weights, {_joined(floats)} activations"
    return f"not quantized ({_joined(floats) or 'no numbers'})"


def _other_borders(model: Graph, inside: set[str]) -> str:
    """What an input or output is, where it is not what the graph computes with: ", uint8 input and output"."""
    sides: dict[str, list[str]] = {}
    for side, tensors in (("input", model.inputs), ("output", model.outputs)):
        for dtype in sorted({tensor.dtype for tensor in tensors} - inside):
            sides.setdefault(dtype, []).append(side)
    return "".join(f", {dtype} {' and '.join(names)}" for dtype, names in sides.items())


def _grain(weights: list[Tensor]) -> str:
    scales = [len(tensor.quantization.scale) for tensor in weights if tensor.quantization is not None]
    return "" if not scales else ", per-channel weights" if max(scales) > 1 else ", per-tensor weights"


def _joined(words: set[str]) -> str:
    return " and ".join(sorted(words))


def _computed(model: Graph) -> list[Tensor]:
    used = {id(tensor): tensor for tensor in model.main.used()}
    return [tensor for tensor in used.values() if tensor.data is None]


def _weights(model: Graph) -> list[Tensor]:
    """Constants of two or more dimensions: biases and scalars have types of their own."""
    used = {id(tensor): tensor for tensor in model.main.used()}
    return [tensor for tensor in used.values() if tensor.data is not None and len(tensor.shape) > 1]


def _tensor_facts(tensor: Tensor) -> TensorFacts:
    scale = zero_point = None
    if tensor.quantization is not None and len(tensor.quantization.scale) == 1:
        scale = float(tensor.quantization.scale[0])
        zero_point = int(tensor.quantization.zero_point[0])
        if scale == 0.0 or not math.isfinite(scale):
            scale = zero_point = None
    return TensorFacts(printable(tensor.name), shown_shape(tensor), tensor.dtype, scale, zero_point)


def printable(text: str) -> str:
    """A name from a file as terminals, JSON and XML can hold it: what is not UTF-8 or not visible is escaped."""
    decoded = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in decoded)


def shown_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape with -1 where a dimension is dynamic."""
    signature = tensor.shape_signature
    return signature if signature is not None and len(signature) == len(tensor.shape) else tensor.shape


def _layers(model: Graph) -> tuple[Layer, ...]:
    seen: set[int] = set()
    layers = []
    for number, subgraph in enumerate(model.subgraphs):
        for index, operator in enumerate(subgraph.operators):
            first = operator.outputs[0] if operator.outputs else None
            hidden = accelerators.compiled_for([operator.name]) is not None
            layers.append(
                Layer(
                    index=index,
                    subgraph=number,
                    operator=printable(operator.name),
                    name=printable(first.name) if first is not None else "",
                    shape=shown_shape(first) if first is not None else (),
                    dtype=first.dtype if first is not None else "",
                    parameters=None if hidden else costs.operator_parameters(operator, seen),
                    macs=costs.operator_macs(operator),
                    detail=detail(operator),
                )
            )
    return tuple(layers)


def detail(operator: Operator) -> str:
    """Kernel, stride and activation as a person writes them: "3x3 /2 relu6"."""
    words = []
    if operator.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV") and len(operator.inputs) > 1:
        weights = operator.inputs[1]
        if weights is not None and len(weights.shape) == 4:
            words.append(f"{weights.shape[1]}x{weights.shape[2]}")
    if operator.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        words.append(f"{operator.options.get('filter_height', '?')}x{operator.options.get('filter_width', '?')}")
    stride = operator.options.get("stride_h")
    if isinstance(stride, int) and stride > 1 and "POOL" not in operator.kind:
        words.append(f"/{stride}")
    activation = _ACTIVATIONS.get(operator.options.get("fused_activation_function", 0))
    if activation:
        words.append(activation)
    return " ".join(words)


_ACTIVATIONS = {1: "relu", 2: "relu -1..1", 3: "relu6", 4: "tanh", 5: "sign"}


def _notes(model: Graph, compiled: Optional[Accelerator]) -> list[str]:
    notes = []
    if len(model.subgraphs) > 1:
        notes.append(f"{len(model.subgraphs)} subgraphs: MACs and activation memory are those of the first")
    if any(tensor.dynamic for tensor in model.inputs):
        notes.append("dynamic input shape: costs are those of batch 1, unknown where another dimension is dynamic")
    custom = sorted(
        {operator.name for subgraph in model.subgraphs for operator in subgraph.operators if operator.kind == "CUSTOM"}
    )
    if compiled:
        device = f"{compiled.product} {compiled.title}"
        notes.append(f"compiled for the {device}: weights and operators are inside one custom operator")
        custom = [name for name in custom if name != compiled.operator]
    if custom:
        notes.append(f"custom operators that a plain runtime does not know: {', '.join(map(printable, custom))}")
    if model.newer:
        notes.append(f"newer than the installed schema: {', '.join(model.newer[:3])}")
    return notes


Document = dict[str, Any]


def model_document(
    inspection: Inspection, resolved: Resolved, delegation: Delegation, options: ModelOptions = ModelOptions()
) -> Document:
    """Unknown values are None. `labels` are one name for each output row; `input` and `output` say how the model is
    used, and who says so (see `runtime.model_io`).
    """
    notes = list(inspection.notes)
    spec = model_spec(resolved, options)
    io = _described(inspection, spec, notes)
    labels, labels_from = _labels(resolved, spec, io, notes)
    entry = resolved.entry
    left = [layer for layer in inspection.layers if layer.subgraph == 0 and layer.index not in delegation.operators]
    return {
        "file": inspection.file,
        "name": resolved.name,
        "sha256": resolved.sha256 or None,
        "bytes": inspection.bytes,
        "task": spec.task or ("classification" if io is not None and io.output.kind != "value" else None),
        "inputs": [asdict(tensor) for tensor in inspection.inputs],
        "outputs": [asdict(tensor) for tensor in inspection.outputs],
        **(io.as_document() if io is not None else {"input": None, "output": None}),
        "operators": inspection.operators,
        "subgraphs": len(inspection.graph.subgraphs),
        "quantization": inspection.quantization,
        "parameters": inspection.parameters,
        "macs": inspection.macs,
        "arena_bytes": inspection.arena_bytes,
        **inspection.compilers,
        "xnnpack": delegation.xnnpack,
        "runtime": {
            "name": delegation.runtime,
            "delegated": len(delegation.operators) if delegation.runtime else None,
            "parts": delegation.parts if delegation.runtime else None,
            "not_delegated": sorted({layer.operator for layer in left}) if delegation.runtime else None,
            "problem": delegation.problem,
        },
        "twin": {"cpu": entry.cpu, "tpu": entry.tpu} if entry is not None else None,
        "labels": labels,
        "labels_from": labels_from,
        "description": printable(inspection.graph.description) or None,
        "metadata": sorted(map(printable, inspection.graph.metadata)),
        "layers": [asdict(layer) for layer in inspection.layers],
        "notes": notes,
    }


def _described(inspection: Inspection, spec: ModelSpec, notes: list[str]) -> Optional[ModelIO]:
    """How the model is used as a picture classifier; None, and why in `notes`, where it is none."""
    inputs, outputs = (
        [
            TensorSpec(one.name, index, one.shape, np.dtype(one.dtype), one.scale or 0.0, one.zero_point or 0)
            for index, one in enumerate(side)
            if one.dtype in _NUMBERS
        ]
        for side in (inspection.inputs, inspection.outputs)
    )
    try:
        io = describe(inspection.file, inputs, outputs, read_graph(inspection.file), spec, ask=False)
    except EdgeMnv2Error as error:
        notes.append(str(error))
        return None
    notes += io.notes
    return io


def _labels(
    resolved: Resolved, spec: ModelSpec, io: Optional[ModelIO], notes: list[str]
) -> tuple[Optional[list[str]], Optional[str]]:
    """(one name for each output row, where they come from)."""
    names = spec.labels or (io.labels if io is not None else None)
    if io is None or names is None:
        return None, None
    try:
        fitted, note = fit_labels(names, io.output.rows, background=resolved.background)
    except LabelsError as error:
        notes.append(error.message)
        return None, None
    notes += [note] if note else []
    if spec.labels is None:
        return fitted, io.labels_origin
    return fitted, "option" if names is not resolved.labels else resolved.origin.get("labels", "sidecar")


def network_document(network: Network, width: float, resolution: int) -> Document:
    """The stage table with its sums; shapes are height, width, channels."""
    return {
        "network": network.name,
        "width": width,
        "resolution": resolution,
        "parameters": network.parameters,
        "trained_parameters": network.trained_parameters,
        "macs": network.macs,
        "stages": [asdict(row) for row in stage_table(network)],
    }
