"""`edge-mnv2 compile --target rknn:CHIP`: Rockchip's rknn-toolkit2, which quantizes and compiles for an NPU.

What it did is in its log alone: a table of layers with the processor, and totals of memory.
"""

from __future__ import annotations

import re
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.compile_source import compilation
from edge_mnv2.builder.compilers import CompileRequest, Say
from edge_mnv2.runtime.rknn import SIMULATOR, TOOLKIT, build_in_toolkit

_LAYER = re.compile(
    r"\] +\d+ +(?P<operator>\S+) +(?P<dtype>\S+) +(?P<device>NPU|CPU|GPU) +\S+ +\S+ +"
    r"\d+/\d+/(?P<cycles>\d+) +\S+ +(?P<name>\S.*)?"
)
_ENDS = ("InputOperator", "OutputOperator")
_CLOCK_HZ = 1e9


def compile_for(request: CompileRequest, say: Say) -> dict[str, Any]:
    """The JSON document of `compile`. Raises UsageError, ModelError, AcceleratorError."""
    quantization = request.quantization or request.row.quantizations[0]
    with compilation(request, say, TOOLKIT, f"_{request.chip}.rknn") as at:
        source, recipe, result = at.source, at.folder / "recipe.npz", at.folder / "model.rknn"
        content: dict[str, Any] = {"chip": request.chip, "quantization": quantization, "facts": source.facts()}
        content.update(mean=source.mean, std=source.std, pictures=source.pictures)
        np.savez_compressed(recipe, onnx=np.frombuffer(source.onnx, np.uint8), **content)
        order = {"recipe": str(recipe), "out": str(result)}
        at.run(f"{build_in_toolkit.__module__}:{build_in_toolkit.__name__}", order)
        report = parse_log(at.log.read_text("utf-8", "replace"))
        beside = at.target.with_suffix(SIMULATOR)
        document = at.finish(result.read_bytes(), (beside, recipe.read_bytes()) if request.simulator else None)
        if not request.simulator:
            # An older one would answer for the new file where there is no NPU.
            beside.unlink(missing_ok=True)
    if quantization == "fp16":
        # Nothing is chosen by them.
        document["pictures"] = 0
    return {**document, "quantization": quantization, **report}


def parse_log(text: str) -> dict[str, Any]:
    """Layers, memory (bytes) and the sum of cycles of the toolkit's log; None for what it does not say."""
    rows: list[dict[str, Any]] = [row.groupdict() for line in text.splitlines() if (row := _LAYER.search(line))]
    layers = [
        {**row, "cycles": int(row["cycles"]), "mapped": row["device"] == "NPU", "name": (row["name"] or "").strip()}
        for row in rows
        if row["operator"] not in _ENDS
    ]
    mapped = sum(row["mapped"] for row in layers)
    cycles = sum(row["cycles"] for row in layers) if layers else None
    return {
        "operators": {
            "total": len(layers) or None,
            "accelerator": mapped if layers else None,
            "cpu": len(layers) - mapped if layers else None,
        },
        "memory": {"weights_bytes": _total("Weight", text), "activations_bytes": _total("Internal", text)},
        # The toolkit counts cycles, without what the CPU and the way to the NPU take.
        "estimate": {"cycles": cycles, "ms_at_1_ghz": None if cycles is None else round(cycles / _CLOCK_HZ * 1e3, 2)},
        "table": layers,
    }


def _total(kind: str, text: str) -> Optional[int]:
    match = re.search(rf"Total {kind} Memory Size: ([\d.]+)KB", text)
    return round(float(match[1]) * 1024) if match else None
