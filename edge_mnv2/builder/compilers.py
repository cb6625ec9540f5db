"""`edge-mnv2 compile`: the table of accelerators that models are compiled for.

`compile --help` reads it: nothing heavy is imported here. A compiler is one file with `compile_for(request, say)`,
which gives the JSON document of `compile` (`builder.compile_source` has what makers' toolkits need), and one row.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import UsageError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """A row: the first word of `--target`, the `chips` that one of follows after a colon, the words of `--quantization`
    (the first is the default), and what of `compile`'s other options it takes. `module` has `compile_for`."""

    name: str
    module: str
    takes: tuple[str, ...]
    chips: tuple[str, ...] = ()
    quantizations: tuple[str, ...] = ()

    @property
    def form(self) -> str:
        """As `--target` has it."""
        return f"{self.name}:{'|'.join(self.chips)}" if self.chips else self.name

    @property
    def example(self) -> str:
        return f"edge-mnv2 compile --target {self.name}{f':{self.chips[-1]}' if self.chips else ''} model.tflite"


_FLOATS = ("weights", "labels", "images", "simulator")
TARGETS = (
    Target("edgetpu", "edge_mnv2.builder.edgetpu_compile", ("min_runtime_version",)),
    Target(
        "rknn",
        "edge_mnv2.builder.rknn_compile",
        _FLOATS,
        chips=("rk3562", "rk3566", "rk3568", "rk3576", "rk3588"),
        # w8a8 by three rules for the ranges; w8a8 where it is near enough and float16 elsewhere; float16 throughout.
        quantizations=("normal", "kl_divergence", "mmse", "hybrid", "fp16"),
    ),
    Target("imx500", "edge_mnv2.builder.imx500_compile", (*_FLOATS, "embedding")),
)
FORMS = ", ".join(one.form for one in TARGETS)
QUANTIZATIONS = "; ".join(f"{one.name}: {', '.join(one.quantizations)}" for one in TARGETS if one.quantizations)
"""For people."""


@dataclass(frozen=True)
class CompileRequest:
    """What `compile` was asked for. `model` (a name or a `.tflite`) or `weights` (as for `build`) is given.

    `images` are pictures to choose the integers by; None: those that ship. `quantization` is a compiler's own word.
    `embedding`: up to the last average pool; what follows runs on the CPU.
    """

    target: str
    model: Optional[str] = None
    weights: Optional[str] = None
    labels: Optional[Path] = None
    out: Optional[Path] = None
    images: Optional[Path] = None
    quantization: Optional[str] = None
    embedding: bool = False
    simulator: bool = False
    toolkit_python: Optional[Path] = None
    min_runtime_version: Optional[int] = None

    @property
    def row(self) -> Target:
        """The row that `target` names. Raises UsageError."""
        row = next((one for one in TARGETS if one.name == self.target.partition(":")[0]), None)
        if row is None or (":" in self.target and not row.chips):
            raise UsageError(f"--target {self.target}", hint=FORMS)
        return row

    @property
    def chip(self) -> str:
        """What follows the colon of `target`."""
        return self.target.partition(":")[2]


def compile_model(request: CompileRequest, say: Say = lambda _: None) -> dict[str, Any]:
    """Compile, write the result with labels and sidecar; the JSON document of `compile`.

    Raises UsageError, ModelError for a model that cannot be compiled, AcceleratorError where the compiler cannot run.
    """
    row = request.row
    if (request.model is None) == (request.weights is None):
        raise UsageError("compile takes MODEL or --weights", hint="give one of them")
    for name in ("weights", "labels", "images", "embedding", "simulator", "min_runtime_version"):
        if getattr(request, name) and name not in row.takes:
            raise UsageError(f"--{name.replace('_', '-')} is not for --target {request.target}")
    if row.chips and not request.chip:
        raise UsageError(f"--target {row.name} needs a chip", hint=row.form)
    _check_word(f"--target {row.name}", request.chip, row.chips)
    if request.quantization is not None:
        if not row.quantizations:
            raise UsageError(f"--quantization is not for --target {request.target}")
        _check_word("--quantization", request.quantization, row.quantizations)
    document: dict[str, Any] = importlib.import_module(row.module).compile_for(request, say)
    return {"target": request.target, "delegate": row.name, **document}


def _check_word(option: str, word: str, words: tuple[str, ...]) -> None:
    if words and word not in words:
        raise UsageError(f"{option}: '{word}'", hint=f"one of {', '.join(words)}")


def takers(option: str) -> str:
    """The targets that take an option, for `--help`."""
    return ", ".join(one.name for one in TARGETS if option in one.takes)
