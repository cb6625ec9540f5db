"""A call of `teach`: embed the pictures, fit the head, measure it, write the files.

NAME.tflite, and beside it NAME.labels.txt, NAME.yaml (what `run` reads) and NAME.json.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from edge_mnv2.board import accelerators
from edge_mnv2.datasets.classes import TABLE
from edge_mnv2.datasets.labelled_pictures import CLASSIFICATION, REGRESSION, class_folders, printable
from edge_mnv2.errors import UsageError
from edge_mnv2.paths import write_together
from edge_mnv2.teach.head_fitting import Taught, teach
from edge_mnv2.teach.lesson import Progress, Say, learn
from edge_mnv2.teach.lesson_document import Document, document, warnings
from edge_mnv2.teach.lesson_request import UNKNOWN, LessonRequest, check, check_names
from edge_mnv2.tflite.model_file import check_bytes
from edge_mnv2.zoo import versions
from edge_mnv2.zoo.labels import labels_text


@dataclass(frozen=True)
class Outcome:
    """The written files, the model last, and their figures."""

    taught: Taught
    document: Document
    written: list[Path]


def default_out(request: LessonRequest) -> Path:
    """The model that is extended, else a file in this folder called as the folder of pictures."""
    return request.add or Path(request.folder.resolve().name + ".tflite")


def ready(request: LessonRequest, report: Optional[Path] = None, classes: Sequence[str] = ()) -> LessonRequest:
    """`request` with the file that it writes. Raises UsageError for what is known to be wrong before any picture is
    looked at, or taken of `classes`."""
    out = request.out or default_out(request)
    check(request)
    check_out(out)
    if report is not None:
        check_report(report, out)
    if classes:
        if request.task == REGRESSION:
            raise UsageError("--class teaches classes, and --task says regression", hint="leave one of them out")
        if len(classes) < 2 and request.add is None and not _taken_before(request.folder, classes):
            raise UsageError(f"one class only, '{classes[0]}'", hint="add another --class to tell it from")
        check_names(tuple(classes))
        if (request.folder / TABLE).is_file():
            raise UsageError(
                f"{request.folder / TABLE} says what is taught, and new pictures are not in it",
                hint="take them into another folder",
            )
    return replace(request, out=out)


def _taken_before(folder: Path, classes: Sequence[str]) -> bool:
    """`folder` has pictures of another class."""
    return folder.is_dir() and any(other.name not in classes for other in class_folders(folder))


def run(request: LessonRequest, say: Say, progress: Progress, report: Optional[Path] = None) -> Outcome:
    """Teach as `request` says. Files appear whole or not at all; nothing is written where it fails.

    Raises UsageError, SourceError, ModelError.
    """
    request = ready(request, report)
    out = request.out
    assert out is not None
    lesson, embedder = learn(request, say, progress)
    with embedder:
        pictures, held_out = len(lesson.truth), int(lesson.held_out.sum())
        say(f"learning from {pictures - held_out}{f' of {pictures}' if held_out else ''} pictures")
        taught = teach(lesson)
        facts = document(taught, out.name, embedder.runtime, warnings(taught, embedder))
        more = []
        if report is not None:
            from edge_mnv2.teach.lesson_page import page

            more.append((report, page(taught, facts, embedder).encode()))
    versions.keep(out)
    return Outcome(taught, facts, write(taught, out, facts, more))


def check_out(out: Path) -> None:
    """Raises UsageError where a model cannot be written to `out`, or files beside it are not a model's."""
    if out.suffix != ".tflite":
        raise UsageError(f"--out {printable(out)}", hint="give a file name that ends in .tflite")
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise UsageError(f"--out {printable(out)}", hint="give a name in UTF-8") from None
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(f"--out {out} cannot be written", hint="name a file in a folder that exists")
    for companion in companions(out):
        if companion.exists() and not out.exists() and not _is_stdout(companion):
            raise UsageError(f"{companion} is there, and no {out.name}", hint="give another --out, or move it away")


def _is_stdout(path: Path) -> bool:
    """Whether it is what a shell made of `teach --out x.tflite --json > x.json`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def check_report(report: Path, out: Path) -> None:
    """Raises UsageError where the page cannot be written to `report`, or would be lost among the files of `out`."""
    if report.is_dir() or not report.absolute().parent.is_dir():
        raise UsageError(f"--report {printable(report)} cannot be written", hint="name a file in a folder that exists")
    if report.absolute() in [path.absolute() for path in (out, *companions(out))]:
        raise UsageError(f"--report {report} is one of the model's own files", hint="such as --report lesson.html")


def companions(out: Path) -> list[Path]:
    """What is written beside the model `out`."""
    return [out.with_suffix(suffix) for suffix in (".labels.txt", ".yaml", ".json")]


def write(taught: Taught, out: Path, document: Document, more: Sequence[tuple[Path, bytes]] = ()) -> list[Path]:
    """Write them, and `more` with them: all of them or none. Older twins for accelerators go.

    Raises UsageError where that cannot be done.
    """
    lesson = taught.lesson
    names = lesson.classes + ((UNKNOWN,) if taught.unknown is not None else ())
    labels, sidecar_file, document_file = companions(out)
    twins = {
        one.operator: out.with_name(f"{out.stem}_{one.name}.tflite") for one in accelerators.rows() if one.operator
    }
    contents: list[tuple[Path, bytes]] = []
    sidecar = [f"# taught by edge-mnv2 on {document['backbone']['model']}", f"task: {lesson.task}"]
    sidecar.append(f"sha256: '{hashlib.sha256(taught.model).hexdigest()}'")
    if lesson.task == CLASSIFICATION:
        contents.append((labels, labels_text(names).encode("utf-8", "surrogateescape")))
        sidecar.append(f"labels: {json.dumps(labels.name, ensure_ascii=False)}")
    else:
        sidecar.append("labels: [value]")
    if lesson.request.unit:
        sidecar.append(f"unit: {json.dumps(lesson.request.unit, ensure_ascii=False)}")
    if taught.expected_errors:
        sidecar.append(f"expected_errors: {json.dumps(taught.expected_errors)}")
    if document["unknown"] is not None and len(document["unknown"]["curve"]) > 1:
        unknown = document["unknown"]
        own = {key: unknown[key] for key in ("row", "slope", "threshold")}
        own["curve"] = [[point["known"], point["threshold"]] for point in unknown["curve"]]
        sidecar.append(f"open_set: {json.dumps(own)}")
    preprocess = [f"resize: {lesson.resize}"]
    for key in ("mean", "std"):
        values = getattr(lesson.backbone.preprocess, key)
        if values is not None:
            preprocess.append(f"{key}: {json.dumps(values)}")
    sidecar.append(f"preprocess: {{{', '.join(preprocess)}}}")
    contents.append((sidecar_file, ("\n".join(sidecar) + "\n").encode()))
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    contents.append((document_file, text.encode()))
    if taught.compiled is not None:
        # The name under which `run` finds the twin for the accelerator.
        contents += [
            (twins.pop(one), taught.compiled) for one in check_bytes(taught.compiled).custom_ops if one in twins
        ]
    contents.append((out, taught.model))
    try:
        write_together([*more, *contents])
        for older in twins.values():
            older.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be written: {error.strerror or error}") from error
    return [path for path, _ in contents]
