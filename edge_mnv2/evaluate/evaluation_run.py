"""A call of `evaluate`: open the models, read the data set, evaluate, write the files."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from edge_mnv2 import html_report
from edge_mnv2.board.cpus import usable_cpus
from edge_mnv2.datasets.labelled_pictures import Dataset, read_dataset
from edge_mnv2.errors import UsageError
from edge_mnv2.evaluate.evaluation import Evaluation, Outcome, Stopped, Subject, check_comparable, evaluate
from edge_mnv2.evaluate.evaluation_page import Document, Mistakes, document, page
from edge_mnv2.evaluate.metrics import NEAR_ZERO, Answer
from edge_mnv2.paths import atomic_write
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import open_classifier, open_classifiers
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.zoo.resolve import Resolved, resolve

_MOST_DECODERS = 4
_CLASSES = ("class_index", "label", "predicted_index", "predicted", "score", "rank")
_AGAINST = ("against_index", "against", "against_score", "agrees")


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate. None: the model's own setting, or the default. `csv` and `html` are written.

    `accelerator`: settings that open the first model on an accelerator, None for the CPU.
    """

    folder: Path
    model: Optional[str] = None
    against: Optional[str] = None
    options: ModelOptions = field(default_factory=ModelOptions)
    resize: Optional[str] = None
    runtime: str = "auto"
    threads: int = 1
    accelerator: Optional[Settings] = None
    csv: Optional[Path] = None
    html: Optional[Path] = None


@dataclass(frozen=True)
class EvaluationReport:
    """The evaluation, its JSON document, and the unit of a measured value or ""."""

    evaluation: Evaluation
    document: Document
    unit: str


class Interrupted(KeyboardInterrupt):
    """A signal came; `report` is of the pictures that were done until then."""

    def __init__(self, report: EvaluationReport) -> None:
        super().__init__()
        self.report = report


def run(
    request: EvaluationRequest,
    *,
    note: Callable[[str], None],
    progress: Callable[[Dataset], contextlib.AbstractContextManager[Callable[[Outcome], None]]],
) -> EvaluationReport:
    """Open the models, read the data set, evaluate, write the files.

    `note` takes sentences for the user; `progress` gives a context manager whose value is called once a picture. Raises
    UsageError, ModelError, SourceError; a picture that cannot be read is in the evaluation's `failures` instead.
    Interrupted where a signal comes: no file is written then.
    """
    for target in (request.csv, request.html):
        if target is not None and not target.absolute().parent.is_dir():
            raise UsageError(f"{target} cannot be written: there is no folder {target.absolute().parent}")
    with contextlib.ExitStack() as stack:
        subjects, unit = _open(request, stack, note)
        dataset = read_dataset(request.folder, subjects[0].truths)
        for sentence in (*dataset.notes, *caveats(dataset)):
            note(sentence)
        table = stack.enter_context(PictureTable(request.csv, subjects)) if request.csv is not None else None
        mistakes = Mistakes(subjects[0]) if request.html is not None else None
        watchers = [watcher.add for watcher in (table, mistakes) if watcher is not None]
        # The classifier's threads leave a core to the decoders only now and then; more decoders than cores never help.
        workers = min(usable_cpus(), _MOST_DECODERS)
        with progress(dataset) as advance:

            def on_outcome(outcome: Outcome) -> None:
                for watch in watchers:
                    watch(outcome)
                advance(outcome)

            try:
                evaluation = evaluate(dataset, subjects, workers=workers, on_outcome=on_outcome)
            except Stopped as stopped:
                raise Interrupted(EvaluationReport(stopped.evaluation, document(stopped.evaluation), unit)) from None
        result = document(evaluation)
        for sentence in answered_without_pictures(result):
            note(sentence)
        if request.html is not None and mistakes is not None:
            _write_page(request.html, result, evaluation, mistakes, unit)
    return EvaluationReport(evaluation, result, unit)


def caveats(dataset: Dataset) -> list[str]:
    """What the figures of this data set cannot say, as sentences."""
    truths = [example.truth for example in dataset.examples]
    classes = {truth for truth in truths if isinstance(truth, int)}
    if len(classes) == 1:
        name = dataset.classes[classes.pop()]
        return [f"all pictures are of one class, '{name}': top-1 is the recall of that class and says nothing else"]
    values = sorted(abs(value) for truth in truths if isinstance(truth, tuple) for value in truth)
    zeros = values.count(0.0)
    sentences = [f"MAPE leaves out {zeros} of {len(values)} values, which are 0: it divides by them"] if zeros else []
    near = sum(0 < value <= NEAR_ZERO * values[len(values) // 2] for value in values)
    if near:
        sentences.append(f"MAPE says little: it divides by the value, and {near} of {len(values)} are nearly 0")
    return sentences


def answered_without_pictures(document: Document) -> list[str]:
    """That macro-F1 has classes in it that no picture shows: "unknown" of a taught model, or others of a large one."""
    own = {entry["class_index"] for entry in document.get("per_class", ())}
    others = {
        cell["predicted_index"]: cell["predicted"]
        for cell in document.get("confusion", ())
        if cell["predicted_index"] not in own
    }
    if not others:
        return []
    which = f"'{next(iter(others.values()))}'" if len(others) == 1 else f"{len(others)} classes"
    return [f"macro-F1 counts {which}, answered and never shown, with 0, as scikit-learn does"]


def _open(
    request: EvaluationRequest, stack: contextlib.ExitStack, note: Callable[[str], None]
) -> tuple[list[Subject], str]:
    subjects: list[Subject] = []
    notes: list[str] = []
    unit = ""
    opened: list[tuple[str, Classifier, Resolved]] = []
    if request.accelerator is not None:
        # Half of the answers from the accelerator and half from the CPU would measure neither.
        opened_by_run = stack.enter_context(open_classifiers(request.accelerator, "exit", workers=1))
        name = opened_by_run.model
        opened.append((name, opened_by_run.classifiers[0], resolve(request.model or name)))
        notes += opened_by_run.notes
    models = [(request.model, request.options)] if request.accelerator is None else []
    if request.against is not None:
        # How pictures go in is said about --model; names and task are those of the pictures.
        models.append((request.against, ModelOptions(labels=request.options.labels, task=request.options.task)))
    for model, options in models:
        # The decoders fit the pictures: the classifier must take them as they come.
        classifier, resolved, said = open_classifier(
            model, options, runtime=request.runtime, threads=request.threads, resize="stretch"
        )
        stack.callback(classifier.close)
        opened.append((resolved.name, classifier, resolved))
        notes += said
    for name, classifier, resolved in opened:
        subject = Subject.of(name, classifier, request.resize or resolved.preprocess.resize or "crop", request.folder)
        if subject.classes is not None and subject.classes.note is not None:
            notes.append(subject.classes.note)
        unit = unit or resolved.unit or ""
        subjects.append(subject)
    for sentence in dict.fromkeys(notes):
        note(sentence)
    if len(subjects) == 2:
        check_comparable(*subjects)
    return subjects, unit


def _write_page(target: Path, result: Document, evaluation: Evaluation, mistakes: Mistakes, unit: str) -> None:
    values = None
    subject = evaluation.model
    if subject.classes is None and subject.classifier.outputs == 1:
        truth = [example.truth[0] for example in evaluation.examples if not isinstance(example.truth, int)]
        values = (truth, [answer[0] for answer in subject.answers])
    html_report.write_page(target, page(result, mistakes.worst, values, unit))


class PictureTable:
    """One CSV row a picture, written while the evaluation runs. Context manager: the file appears whole when the block
    ends, and not at all after an error.

    Classification: true and predicted class, score, `rank` of the true class (1: first), the other model's answer.
    Regression: `value` and `predicted` (one pair an output). `error`: why the picture could not be read.
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
