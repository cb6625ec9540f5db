"""What `inspect` knows of a model file, or of a network that is not built, as one JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Optional

from edge_mnv2.errors import LabelsError
from edge_mnv2.inspect.delegation import Delegation
from edge_mnv2.inspect.inspection import Inspection, TensorFacts, printable
from edge_mnv2.network.network import Network, stage_table
from edge_mnv2.zoo.labels import fit_labels
from edge_mnv2.zoo.resolve import Resolved

Document = dict[str, Any]


def model_document(inspection: Inspection, resolved: Resolved, delegation: Delegation) -> Document:
    """Unknown values are None. `labels` are one name for each output row.

    `edgetpu`: compiled for the Edge TPU. Of a model that is not, `edgetpu_compiles` says whether the compiler would
    take it, `edgetpu_operators` how many operators the TPU would run, `edgetpu_problems` why not the others.
    """
    labels, labels_from, problem = labels_of(inspection, resolved)
    entry, verdict = resolved.entry, inspection.edgetpu_verdict
    left = [layer for layer in inspection.layers if layer.subgraph == 0 and layer.index not in delegation.operators]
    return {
        "file": inspection.file,
        "name": resolved.name,
        "sha256": resolved.sha256 or None,
        "bytes": inspection.bytes,
        "task": resolved.task if entry is not None or inspection.packed_labels else None,
        "inputs": [tensor_document(tensor) for tensor in inspection.inputs],
        "outputs": [tensor_document(tensor) for tensor in inspection.outputs],
        "operators": inspection.operators,
        "subgraphs": len(inspection.graph.subgraphs),
        "quantization": inspection.quantization,
        "parameters": inspection.parameters,
        "macs": inspection.macs,
        "arena_bytes": inspection.arena_bytes,
        "edgetpu": inspection.edgetpu,
        "edgetpu_compiles": verdict.compiles if verdict is not None else None,
        "edgetpu_operators": verdict.mapped if verdict is not None else None,
        "edgetpu_problems": list(map(printable, verdict.problems)) if verdict is not None else [],
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
        "layers": [{**asdict(layer), "shape": list(layer.shape)} for layer in inspection.layers],
        "notes": [*inspection.notes, *([problem] if problem else [])],
    }


def tensor_document(tensor: TensorFacts) -> Document:
    """`scale` and `zero_point` are None where the tensor is not quantized."""
    return {**asdict(tensor), "shape": list(tensor.shape)}


def labels_of(inspection: Inspection, resolved: Resolved) -> tuple[Optional[list[str]], Optional[str], Optional[str]]:
    """(one name for each output row, where they come from, what is wrong with them)."""
    rows = [n for n in inspection.outputs[0].shape if n > 1]
    count = rows[0] if len(rows) == 1 else None
    if resolved.labels is not None and count is not None:
        source = "registry" if resolved.entry is not None else "sidecar"
        try:
            names, _ = fit_labels(resolved.labels, count, background=resolved.background)
            return names, source, None
        except LabelsError as error:
            return None, None, error.message
    if inspection.packed_labels is not None and len(inspection.packed_labels[1]) == count:
        return inspection.packed_labels[1], f"packed in the file ({inspection.packed_labels[0]})", None
    return None, None, None


def network_document(network: Network, width: float, resolution: int) -> Document:
    """The stage table with its sums; shapes are height, width, channels."""
    return {
        "network": network.name,
        "width": width,
        "resolution": resolution,
        "parameters": network.parameters,
        "trained_parameters": network.trained_parameters,
        "macs": network.macs,
        "stages": [
            {**asdict(row), "input": list(row.input), "output": list(row.output)} for row in stage_table(network)
        ],
    }
