"""One call of `teach`: look, learn, measure, write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from edge_mnv2.teach.document import Document, document
from edge_mnv2.teach.files import write
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


def run(request: Request, say: Say, progress: Progress, report: Optional[Path] = None) -> Outcome:
    """Teach as `request` says. Files appear whole or not at all; nothing is written where it fails.

    Raises UsageError, SourceError, ModelError.
    """
    if request.out is None:
        request = replace(request, out=default_out(request))
    check(request)
    out = request.out
    assert out is not None
    lesson, embedder = learn(request, say, progress)
    with embedder:
        say(f"learning from {len(lesson.truth) - int(lesson.held_out.sum())} of them")
        taught = teach(lesson)
        found = warnings(taught, embedder)
        known = document(taught, out.name, embedder.runtime, found)
        if report is not None:
            from edge_mnv2.teach.page import write_page

            write_page(report, taught, known, embedder)
    return Outcome(taught, known, write(taught, out, known))
