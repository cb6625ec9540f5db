"""From a model to its compiled twin and what is known about it: everything `edge-mnv2 compile` does, as one call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.builder.edgetpu_compiler import compile_model, find_compiler
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.tflite import graph, model_file
from edge_mnv2.tflite.edgetpu_limits import verdict
from edge_mnv2.zoo.companions import check_target, companions, write_all
from edge_mnv2.zoo.resolve import Resolved, resolve

SUFFIX = "_edgetpu"
"""What the compiler appends to a model's name, and how twins are found."""


def compile_for_edgetpu(
    model: str,
    out: Optional[Path] = None,
    *,
    min_runtime_version: Optional[int] = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compile `model` (a name or a path) into `out` and write labels and sidecar beside it.

    Gives the JSON document of `compile`. Raises ModelError for a model that is compiled already or
    that the compiler refuses, AcceleratorError where the compiler cannot run, UsageError for an output that cannot be.
    """
    resolved = resolve(model)
    facts = model_file.check(resolved.path)
    if facts.edgetpu:
        raise ModelError(
            f"{model} is compiled for the Edge TPU already", hint="compile its CPU twin, or use it as it is"
        )
    target = out if out is not None else _default_target(model, resolved)
    check_target("--out", target, ".tflite")
    if target.exists() and target.samefile(resolved.path):
        raise UsageError(f"--out {target} is the model itself", hint="give another name, such as NAME_edgetpu.tflite")
    expected = verdict(graph.read(resolved.path.read_bytes(), str(resolved.path)))
    find_compiler()
    if expected is not None:
        for problem in expected.problems:
            say(f"by the compiler's documentation: {problem}")
    content, report = compile_model(resolved.path, min_runtime_version=min_runtime_version)
    if not model_file.check_bytes(content).edgetpu:
        raise ModelError(f"the compiler's result for {model} has nothing for the Edge TPU in it")
    origin = f"compiled for the Edge TPU from {resolved.path.name}, sha256 {resolved.sha256}"
    files = companions(
        target,
        origin,
        task=resolved.task,
        labels=resolved.labels,
        unit=resolved.unit,
        preprocess=resolved.preprocess,
    )
    written = write_all([*files, (target, content)])
    return {
        "model": resolved.name,
        "out": str(target),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        **report.as_dict(),
        "written": [str(path) for path in written],
    }


def _default_target(model: str, resolved: Resolved) -> Path:
    """Beside a file that is given by path; in the working directory for a name, whose file lies in our folders."""
    by_name = resolved.entry is not None and model == resolved.entry.name
    folder = Path() if by_name else resolved.path.parent
    return folder / f"{resolved.path.stem}{SUFFIX}.tflite"
