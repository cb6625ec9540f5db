"""A taught model's files: NAME.tflite with NAME.labels.txt, NAME.yaml (what `run` reads) and NAME.json beside it."""

from __future__ import annotations

import json
from pathlib import Path

from edge_mnv2.errors import UsageError
from edge_mnv2.paths import atomic_write
from edge_mnv2.teach.document import Document
from edge_mnv2.teach.pictures import CLASSIFICATION, UNKNOWN, labels_text
from edge_mnv2.teach.taught import Taught


def write(taught: Taught, out: Path, document: Document) -> list[Path]:
    """Write them, the model last: where it is, its labels are. Raises UsageError where that cannot be done."""
    lesson = taught.lesson
    names = lesson.classes + ((UNKNOWN,) if taught.unknown is not None else ())
    labels = out.with_suffix(".labels.txt")
    contents: list[tuple[Path, bytes]] = []
    sidecar = [f"# taught by edge-mnv2 on {document['backbone']['model']}", f"task: {lesson.task}"]
    if lesson.task == CLASSIFICATION:
        contents.append((labels, labels_text(names).encode("utf-8", "surrogateescape")))
        sidecar.append(f"labels: {json.dumps(labels.name, ensure_ascii=False)}")
    else:
        sidecar.append("labels: [value]")
    if lesson.request.unit:
        sidecar.append(f"unit: {json.dumps(lesson.request.unit, ensure_ascii=False)}")
    preprocess = [f"resize: {lesson.resize}"]
    for key in ("mean", "std"):
        values = getattr(lesson.found.preprocess, key)
        if values is not None:
            preprocess.append(f"{key}: {json.dumps(values)}")
    sidecar.append(f"preprocess: {{{', '.join(preprocess)}}}")
    contents.append((out.with_suffix(".yaml"), ("\n".join(sidecar) + "\n").encode()))
    contents.append((out.with_suffix(".json"), (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()))
    if taught.compiled is not None:
        # The name under which `run` finds the twin for the accelerator.
        contents.append((out.with_name(f"{out.stem}_edgetpu.tflite"), taught.compiled))
    contents.append((out, taught.model))
    for path, content in contents:
        try:
            with atomic_write(path) as handle:
                handle.write(content)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    return [path for path, _ in contents]
