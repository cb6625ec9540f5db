"""One call of `teach`: look, learn, measure, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from edge_mnv2.datasets.dataset import TABLE
from edge_mnv2.datasets.lesson_pictures import REGRESSION, check_names, class_folders
from edge_mnv2.errors import UsageError
from edge_mnv2.teach.document import Document, document
from edge_mnv2.teach.files import check_out, check_report, write
from edge_mnv2.teach.lesson import Progress, Request, Say, check, learn
from edge_mnv2.teach.taught import Taught, teach
from edge_mnv2.teach.warn import warnings


@dataclass(frozen=True)
class Outcome:
    """The files that were written, the model first, and what is known about them."""

    taught: Taught
    document: Document
    written: list[Path]


def default_out(request: Request) -> Path:
    """The model that is extended, else a file in this folder called as the folder of pictures."""
    return request.add or Path(request.folder.resolve().name + ".tflite")


def ready(request: Request, report: Optional[Path] = None, classes: Sequence[str] = ()) -> Request:
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
            raise UsageError(f"one class only, '{classes[0]}'", hint="add a --class of what it is to be told from")
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


def run(request: Request, say: Say, progress: Progress, report: Optional[Path] = None) -> Outcome:
    """Teach as `request` says. Files appear whole or not at all; nothing is written where it fails.

    Raises UsageError, SourceError, ModelError.
    """
    request = ready(request, report)
    out = request.out
    assert out is not None
    lesson, embedder = learn(request, say, progress)
    with embedder:
        say(f"learning from {len(lesson.truth) - int(lesson.held_out.sum())} of them")
        taught = teach(lesson)
        found = warnings(taught, embedder)
        known = document(taught, out.name, embedder.runtime, found)
        more = []
        if report is not None:
            from edge_mnv2.teach.page import page

            more.append((report, page(taught, known, embedder).encode()))
    return Outcome(taught, known, write(taught, out, known, more))
