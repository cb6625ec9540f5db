"""`NAME.yaml` beside `NAME.tflite`: labels, task and preprocessing of a model of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import ModelError
from edge_mnv2.strict_yaml import Fields, read_plain
from edge_mnv2.zoo.entry import TASKS, Preprocess, parse_preprocess
from edge_mnv2.zoo.labels import read_labels


@dataclass(frozen=True)
class Sidecar:
    """What the file says; None for what it does not say. `unit` belongs to a regression's value."""

    path: Path
    labels: Optional[list[str]]
    task: Optional[str]
    preprocess: Preprocess
    unit: Optional[str]


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
    preprocess, unit = parse_preprocess(fields), fields.text("unit")
    fields.end()
    names = read_labels(path.parent / labels) if isinstance(labels, str) else labels
    return Sidecar(path, list(names) if names is not None else None, task, preprocess, unit)
