"""The files beside a model that `run` reads with it: labels and sidecar. Companions first, the model last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional

from edge_mnv2 import paths
from edge_mnv2.errors import UsageError
from edge_mnv2.zoo.entry import Preprocess

Files = list[tuple[Path, bytes]]


def companions(
    model: Path,
    origin: str,
    *,
    task: str,
    labels: Optional[Sequence[str]] = None,
    unit: Optional[str] = None,
    preprocess: Preprocess = Preprocess(),
) -> Files:
    """Name and content of the label list and the sidecar of `model`; `origin` is the sidecar's first line."""
    files: Files = []
    lines = [f"# {' '.join(origin.split())}", f"task: {task}"]
    if labels is not None:
        path = model.with_suffix(".labels.txt")
        files.append((path, ("\n".join(labels) + "\n").encode()))
        lines.append(f"labels: {json.dumps(path.name)}")
    if unit:
        lines.append(f"unit: {json.dumps(unit)}")
    shown = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(preprocess).items()
        if value is not None
    }
    if shown:
        lines.append(f"preprocess: {json.dumps(shown)}")
    return [*files, (model.with_suffix(".yaml"), ("\n".join(lines) + "\n").encode())]


def check_target(option: str, target: Path, suffix: str) -> None:
    """Raises UsageError where `target` has another suffix or its folder is not there."""
    if target.suffix != suffix:
        raise UsageError(f"{option} {target}", hint=f"give a file name that ends in {suffix}")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UsageError(f"{option} {target} cannot be written", hint="name a file in a folder that exists")


def write_all(files: Iterable[tuple[Path, bytes]]) -> list[Path]:
    """Write each file whole or not at all, in order. Raises UsageError that names the one that cannot be written."""
    written = []
    for path, content in files:
        try:
            with paths.atomic_write(path) as handle:
                handle.write(content)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
        written.append(path)
    return written
