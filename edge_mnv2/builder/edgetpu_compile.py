"""`edge-mnv2 compile`: run Google's `edgetpu_compiler`, read its report, write the twin with labels and sidecar.

The compiler is a closed program for x86-64 Linux. Its report on stdout (with `-s` also a table of operators) is the
only account of what it did; the form read here is that of versions 2.0 to 16.0.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.builder.compilers import CompileRequest, Say
from edge_mnv2.errors import AcceleratorError, ModelError, UsageError
from edge_mnv2.runtime.model_graph import read_graph
from edge_mnv2.tflite import graph, model_file
from edge_mnv2.tflite.edgetpu_limits import verdict
from edge_mnv2.zoo.resolve import Resolved, resolve
from edge_mnv2.zoo.sidecar import check_target, companions, write_files

NAME = "edgetpu_compiler"
MACHINES = ("x86_64", "amd64")
MAPPED = "Mapped to Edge TPU"
TIMEOUT_S = 900
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ROW = re.compile(r"^(\S+)\s+(\d+)\s+(\S.*)$")
_DOCUMENTATION = "https://coral.ai/docs/edgetpu/compiler"


@dataclass(frozen=True)
class OperatorRow:
    """One row of the compiler's table: so many operators of a kind have this status."""

    operator: str
    count: int
    status: str

    @property
    def mapped(self) -> bool:
        return self.status == MAPPED


@dataclass(frozen=True)
class CompilerReport:
    """What the compiler said; None for what it did not say. Sizes in bytes, rounded as it prints them."""

    version: Optional[str] = None
    compile_ms: Optional[int] = None
    input_bytes: Optional[int] = None
    output_bytes: Optional[int] = None
    on_chip_used: Optional[int] = None
    on_chip_remaining: Optional[int] = None
    off_chip: Optional[int] = None
    subgraphs: Optional[int] = None
    operators: Optional[int] = None
    table: tuple[OperatorRow, ...] = field(default=())

    @property
    def on_tpu(self) -> Optional[int]:
        """Operators that the Edge TPU runs."""
        return sum(row.count for row in self.table if row.mapped) if self.table else None

    @property
    def on_cpu(self) -> Optional[int]:
        """Operators that are left to the CPU."""
        return sum(row.count for row in self.table if not row.mapped) if self.table else None

    def as_dict(self) -> dict[str, Any]:
        """The part of `compile`'s JSON document that the compiler's report gives."""
        return {
            "compiler": self.version,
            "compile_ms": self.compile_ms,
            "operators": {"total": self.operators, "tpu": self.on_tpu, "cpu": self.on_cpu},
            "subgraphs": self.subgraphs,
            "on_chip_used_bytes": self.on_chip_used,
            "on_chip_remaining_bytes": self.on_chip_remaining,
            "off_chip_bytes": self.off_chip,
            "table": [
                {"operator": row.operator, "count": row.count, "status": row.status, "mapped": row.mapped}
                for row in self.table
            ],
        }


def find_compiler() -> str:
    """The compiler's path. Raises AcceleratorError that says why there is none and what to do."""
    path = shutil.which(NAME)
    if path is not None:
        return path
    machine = platform.machine()
    if machine.lower() not in MACHINES:
        raise AcceleratorError(
            f"Google's {NAME} exists for x86-64 Linux only, and this machine is {machine}",
            hint=f"run the same command on an x86-64 machine and copy the _edgetpu.tflite back ({_DOCUMENTATION})",
        )
    raise AcceleratorError(
        f"{NAME} is not installed (nothing of that name on PATH)",
        hint=f"install the package edgetpu-compiler from Google's Debian repository: {_DOCUMENTATION}",
    )


def compile_model(model: Path, *, min_runtime_version: Optional[int] = None) -> tuple[bytes, CompilerReport]:
    """Run the compiler on `model`; its result and report.

    Raises AcceleratorError where there is no compiler or it does not run, ModelError where it refuses the model.
    """
    command = [find_compiler(), "-s"]
    if min_runtime_version is not None:
        command += ["-m", str(min_runtime_version)]
    with tempfile.TemporaryDirectory(prefix="edge-mnv2-compile-") as folder:
        command += ["-o", folder, str(model)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"{NAME} has not finished {model} within {TIMEOUT_S} s") from None
        except OSError as error:
            raise AcceleratorError(f"{command[0]} cannot be run: {error.strerror or error}") from error
        results = sorted(Path(folder).glob("*.tflite"))
        if done.returncode != 0 or len(results) != 1:
            raise ModelError(f"{NAME} refuses {model}: {_complaint(done)}")
        return results[0].read_bytes(), parse_report(done.stdout)


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The line of the compiler's output that says what was wrong."""
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Edge TPU Compiler version", "Started a compilation"))]
    telling = [line for line in said if re.search(r"error|invalid|fail|not |unsupported", line, re.IGNORECASE)]
    return (telling or said or [f"it ended with exit code {done.returncode} and said nothing"])[0]


def parse_report(text: str) -> CompilerReport:
    """The compiler's stdout. What cannot be found in it is None; nothing is ever refused."""
    values: dict[str, str] = {}
    rows, in_table = [], False
    for line in map(str.strip, text.splitlines()):
        if line.split() == ["Operator", "Count", "Status"]:
            in_table = True
        elif in_table and (row := _ROW.match(line)):
            rows.append(OperatorRow(row[1], int(row[2]), row[3]))
        elif in_table and line and rows:
            in_table = False
        if not in_table and ": " in line:
            name, _, value = line.partition(": ")
            values.setdefault(name, value.strip())
    version = re.search(r"Edge TPU Compiler version (\S+)", text)
    took = re.search(r"Model compiled successfully in (\d+) ms", text)
    return CompilerReport(
        version=version[1] if version else None,
        compile_ms=int(took[1]) if took else None,
        input_bytes=_bytes(values.get("Input size")),
        output_bytes=_bytes(values.get("Output size")),
        on_chip_used=_bytes(values.get("On-chip memory used for caching model parameters")),
        on_chip_remaining=_bytes(values.get("On-chip memory remaining for caching model parameters")),
        off_chip=_bytes(values.get("Off-chip memory used for streaming uncached model parameters")),
        subgraphs=_count(values.get("Number of Edge TPU subgraphs")),
        operators=_count(values.get("Total number of operations")),
        table=tuple(rows),
    )


def _bytes(text: Optional[str]) -> Optional[int]:
    match = re.fullmatch(r"([\d.]+)\s*([KMG]iB|B)", text or "")
    try:
        return round(float(match[1]) * _UNITS[match[2]]) if match else None
    except ValueError:
        return None


def _count(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and text.isdecimal() else None


SUFFIX = "_edgetpu"
"""What the compiler appends to a model's name, and how twins are found."""


def compile_for(request: CompileRequest, say: Say) -> dict[str, Any]:
    """Compile a model (a name or a path) and write labels and sidecar beside the result.

    Gives the JSON document of `compile`. Raises ModelError for a model that is compiled already or
    that the compiler refuses, AcceleratorError where the compiler cannot run, UsageError for an output that cannot be.
    """
    model, out = request.model or "", request.out
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
    content, report = compile_model(resolved.path, min_runtime_version=request.min_runtime_version)
    if not model_file.check_bytes(content).edgetpu:
        raise ModelError(f"the compiler's result for {model} has nothing for the Edge TPU in it")
    origin = f"compiled for the Edge TPU from {resolved.path.name}, sha256 {resolved.sha256}"
    readable, preprocess = read_graph(resolved.path), resolved.preprocess
    if readable is not None and preprocess.mean is None and preprocess.std is None:
        # A compiled file's metadata are the compiler's.
        mean, std = ((values * 3)[:3] if values else None for values in (readable.packed.mean, readable.packed.std))
        preprocess = replace(preprocess, mean=mean, std=std)
    files = companions(
        target,
        content,
        origin,
        task=resolved.task or "classification",
        labels=resolved.labels,
        unit=resolved.unit,
        preprocess=preprocess,
    )
    written = write_files([*files, (target, content)])
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
