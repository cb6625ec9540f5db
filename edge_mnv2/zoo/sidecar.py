"""`NAME.yaml` and `NAME.labels.txt` beside `NAME.tflite`: labels, task and preprocessing, read and written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.files import sha256_of
from edge_mnv2.strict_yaml import Fields, read_plain
from edge_mnv2.zoo.entry import TASKS
from edge_mnv2.zoo.labels import labels_text, read_labels
from edge_mnv2.zoo.model_facts import Measured, Preprocess, parse_measured, parse_preprocess

_COMPILED = re.compile(r"# compiled .*? from (.+), sha256 ([0-9a-f]{64})$")
"""The first line of a compiled model's sidecar, as compilers give it to `companions`."""


@dataclass(frozen=True)
class Sidecar:
    """What the file says; None for what it does not say.

    `unit` belongs to a regression's value. `sha256` are those of the models that it was written for: an ONNX and a
    .tflite file of one name share it.
    """

    path: Path
    labels: Optional[list[str]]
    task: Optional[str]
    preprocess: Preprocess
    unit: Optional[str]
    sha256: tuple[str, ...] = ()
    measured: Measured = field(default_factory=Measured)


def sidecar_path(model: Path) -> Path:
    """Where the sidecar of `model` is, if it has one."""
    return model.with_suffix(".yaml")


def read_sidecar(model: Path) -> Optional[Sidecar]:
    """The sidecar of the model file `model`, None where there is none. Raises ModelError, LabelsError."""
    path = sidecar_path(model)
    if path == model or not path.is_file():
        return None
    fields = Fields(read_plain(path, ModelError) or {}, str(path), ModelError)
    labels, task = fields.text_or_names("labels"), fields.text("task", TASKS)
    preprocess, unit, digests = parse_preprocess(fields), fields.text("unit"), fields.text_or_names("sha256")
    digests = (digests,) if isinstance(digests, str) else digests or ()
    # Information for people: the graph of a built model does it itself.
    fields.mapping("trained")
    measured = parse_measured(fields)
    fields.end()
    names = read_labels(path.parent / labels) if isinstance(labels, str) else labels
    return Sidecar(path, list(names) if names is not None else None, task, preprocess, unit, digests, measured)


def outdated(compiled: Path, model: Path, sha256: str) -> bool:
    """Whether the sidecar of `compiled` says that it was made of another content of `model`, whose digest is `sha256`
    now: taught anew, say, under the same name."""
    try:
        with sidecar_path(compiled).open(encoding="utf-8") as lines:
            origin = _COMPILED.match(lines.readline())
    except (OSError, ValueError):
        return False
    return origin is not None and origin[1] == model.name and origin[2] != sha256


def companions(
    model: Path,
    content: Optional[bytes],
    origin: str,
    *,
    task: str,
    labels: Optional[Sequence[str]] = None,
    unit: Optional[str] = None,
    preprocess: Preprocess = Preprocess(),
    trained: Optional[Mapping[str, Sequence[float]]] = None,
    measured: Measured = Measured(),
) -> list[tuple[Path, bytes]]:
    """Name and content of the label list and the sidecar of `model`, whose bytes are `content` (None: not known
    yet, and no digest pins them).

    `origin` is the sidecar's first line; `trained` the normalization of the weights, which the graph does itself.
    """
    files: list[tuple[Path, bytes]] = []
    lines = [f"# {' '.join(origin.split())}", f"task: {task}"]
    if content is not None:
        lines.append(f"sha256: {_digests(model, content)}")
    if labels is not None:
        path = model.with_suffix(".labels.txt")
        files.append((path, labels_text(labels).encode()))
        lines.append(f"labels: {json.dumps(path.name)}")
    if unit:
        lines.append(f"unit: {json.dumps(unit)}")
    lines += [f"{key}: {value}" for key, value in measured.as_yaml().items()]
    shown = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(preprocess).items()
        if value is not None
    }
    if shown:
        lines.append(f"preprocess: {json.dumps(shown)}")
    if trained:
        lines += ["# What the weights were trained with; the model does it itself.", f"trained: {json.dumps(trained)}"]
    return [*files, (model.with_suffix(".yaml"), ("\n".join(lines) + "\n").encode())]


def _digests(model: Path, content: bytes) -> str:
    """sha256 of `content`, and of the model beside it that shares the sidecar, as YAML."""
    digests = [hashlib.sha256(content).hexdigest()]
    for suffix in (".tflite", ".onnx"):
        other = model.with_suffix(suffix)
        if suffix != model.suffix and other.is_file():
            digests.append(sha256_of(other))
    return json.dumps(digests[0] if len(digests) == 1 else digests)


def check_target(option: str, target: Path, suffix: str) -> None:
    """Raises UsageError where `target` has another suffix or its folder is not there."""
    if target.suffix != suffix:
        raise UsageError(f"{option} {target}", hint=f"give a file name that ends in {suffix}")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UsageError(f"{option} {target} cannot be written", hint="name a file in a folder that exists")


def write_files(files: Sequence[tuple[Path, bytes]]) -> list[Path]:
    """Write files that belong together, all or none. Raises UsageError that names the one that cannot be written."""
    try:
        paths.write_together(files)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror or error}") from error
    return [path for path, _ in files]
