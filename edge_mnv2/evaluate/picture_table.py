"""One CSV row a picture, written while the evaluation runs."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.evaluate.evaluation import Outcome, Subject
from edge_mnv2.evaluate.metrics import Answer
from edge_mnv2.paths import atomic_write

_CLASSES = ("class_index", "label", "predicted_index", "predicted", "score", "rank")
_AGAINST = ("against_index", "against", "against_score", "agrees")


class PictureTable:
    """Context manager: the file appears whole when the block ends, and not at all where it ends with an error.

    Classification: true and predicted class, score, `rank` of the true class (1: first), the other model's answer.
    Regression: `value` and `predicted` (one pair an output). `error` is filled where the picture could not be read.
    """

    def __init__(self, target: Path, subjects: list[Subject]) -> None:
        self._target = target
        self._subjects = subjects
        self._stack = contextlib.ExitStack()
        self._writer: Any = None

    def __enter__(self) -> PictureTable:
        try:
            handle = self._stack.enter_context(atomic_write(self._target, "w"))
        except OSError as error:
            raise UsageError(f"{self._target} cannot be written: {error.strerror}") from error
        self._writer = csv.writer(handle, lineterminator="\n")
        self._writer.writerow(["file", *self._columns(), "inference_ms", "error"])
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        try:
            self._stack.__exit__(kind, error, traceback)
        except OSError as failure:
            raise UsageError(f"{self._target} cannot be written: {failure.strerror}") from failure

    def add(self, outcome: Outcome) -> None:
        """Write the row of one picture."""
        cells = [""] * len(self._columns()) if outcome.error is not None else self._cells(outcome)
        time = "" if outcome.error is not None else f"{outcome.inference_ms[0]:.3f}"
        self._writer.writerow([outcome.example.name, *cells, time, outcome.error or ""])

    def _columns(self) -> list[str]:
        model = self._subjects[0]
        if model.classes is not None:
            return [*_CLASSES, *(_AGAINST if len(self._subjects) > 1 else ())]
        names = model.classifier.labels
        suffixes = [""] if len(names) == 1 else [f":{name}" for name in names]
        words = ["value", "predicted", *(["against"] if len(self._subjects) > 1 else [])]
        return [word + suffix for suffix in suffixes for word in words]

    def _cells(self, outcome: Outcome) -> list[Any]:
        classes = self._subjects[0].classes
        mine = outcome.answers[0]
        if classes is None or not isinstance(mine, Answer):
            truth = outcome.example.truth
            columns = [truth if isinstance(truth, tuple) else (), *outcome.answers]
            return [f"{value:.7g}" for row in zip(*columns) for value in row]
        cells = [
            mine.truth,
            classes.name(mine.truth),
            mine.predicted,
            classes.name(mine.predicted),
            f"{mine.confidence:.4f}",
            mine.rank + 1,
        ]
        for theirs in outcome.answers[1:]:
            if isinstance(theirs, Answer):
                name, agrees = classes.name(theirs.predicted), int(theirs.predicted == mine.predicted)
                cells += [theirs.predicted, name, f"{theirs.confidence:.4f}", agrees]
        return cells
