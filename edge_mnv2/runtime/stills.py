"""Still pictures, one after the other: a bad one does not stop the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.errors import SourceError
from edge_mnv2.runtime.classifier import Classifier, Prediction


@dataclass(frozen=True)
class StillResult:
    """`top` and `inference_ms` of one file, or the `error` that kept it from being read."""

    file: str
    top: tuple[Prediction, ...] = ()
    inference_ms: Optional[float] = None
    error: Optional[str] = None


def classify_files(classifier: Classifier, paths: Iterable[str]) -> Iterator[StillResult]:
    """Classify each file of `paths`; a folder stands for the pictures in it, in natural order."""
    for given in paths:
        folder = Path(given).is_dir()
        problems: list[str] = []
        try:
            files = [str(path) for path in list_stills(Path(given), problems.append)] if folder else [given]
        except SourceError as error:
            yield StillResult(given, error=str(error))
            continue
        # A folder below that could not be read or followed is a failure of its own, and the others go on.
        yield from (StillResult(given, error=problem) for problem in problems)
        if not files and not problems:
            yield StillResult(given, error=f"{given}: no pictures in this folder")
        for file in files:
            try:
                image = read_still(Path(file), classifier.least_side)
            except SourceError as error:
                yield StillResult(file, error=str(error))
                continue
            classified = classifier.classify(image)
            yield StillResult(file, tuple(classifier.top(classified.scores)), round(classified.inference_ns / 1e6, 3))
