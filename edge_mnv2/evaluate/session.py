"""From what a person asks for to an evaluation and its files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.board.cpus import usable_cpus
from edge_mnv2.datasets.dataset import Dataset, read_dataset
from edge_mnv2.errors import UsageError
from edge_mnv2.evaluate.document import Document, document
from edge_mnv2.evaluate.evaluation import Evaluation, Outcome, Subject, check_comparable, evaluate
from edge_mnv2.evaluate.mistakes import Mistakes
from edge_mnv2.evaluate.picture_table import PictureTable
from edge_mnv2.paths import atomic_write
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import open_classifier, open_engines
from edge_mnv2.settings.profile import Settings
from edge_mnv2.zoo.resolve import Resolved, resolve

_MOST_DECODERS = 4


@dataclass(frozen=True)
class Request:
    """What to evaluate; None where the model's own setting or the default holds. `csv` and `html` are written.

    `engine`: settings that open the first model on an accelerator, None for the CPU.
    """

    folder: Path
    model: Optional[str] = None
    against: Optional[str] = None
    labels: Optional[str] = None
    resize: Optional[str] = None
    runtime: str = "auto"
    threads: int = 1
    engine: Optional[Settings] = None
    csv: Optional[Path] = None
    html: Optional[Path] = None


@dataclass(frozen=True)
class Report:
    """The evaluation, its JSON document, and the unit of a measured value ("" where there is none)."""

    evaluation: Evaluation
    document: Document
    unit: str


def run(
    request: Request,
    *,
    note: Callable[[str], None],
    progress: Callable[[Dataset], contextlib.AbstractContextManager[Callable[[Outcome], None]]],
) -> Report:
    """Open the models, read the data set, evaluate, write the files.

    `note` takes sentences for the user; `progress` gives a context manager whose value is called once a picture. Raises
    UsageError, ModelError, SourceError; a picture that cannot be read is in the evaluation's `failures` instead.
    """
    for target in (request.csv, request.html):
        if target is not None and not target.absolute().parent.is_dir():
            raise UsageError(f"{target} cannot be written: there is no folder {target.absolute().parent}")
    with contextlib.ExitStack() as stack:
        subjects, unit = _open(request, stack, note)
        dataset = read_dataset(request.folder, subjects[0].truths)
        for sentence in dataset.notes:
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

            evaluation = evaluate(dataset, subjects, workers=workers, on_outcome=on_outcome)
        found = document(evaluation)
        if request.html is not None and mistakes is not None:
            _write_page(request.html, found, evaluation, mistakes, unit)
    return Report(evaluation, found, unit)


def _open(request: Request, stack: contextlib.ExitStack, note: Callable[[str], None]) -> tuple[list[Subject], str]:
    subjects: list[Subject] = []
    said: list[str] = []
    unit = ""
    opened: list[tuple[str, Classifier, Resolved]] = []
    if request.engine is not None:
        # An evaluation of half one engine and half the other would say nothing of either.
        engines = stack.enter_context(open_engines(request.engine, request.labels, "exit", workers=1))
        opened.append((engines.model, engines.engines[0], resolve(request.model or engines.model)))
        said += engines.notes
    cpu = [request.model] if request.engine is None else []
    for model in [*cpu, *([request.against] if request.against is not None else [])]:
        # The decoders fit the pictures: the classifier must take them as they come.
        classifier, found, notes = open_classifier(
            model, request.labels, runtime=request.runtime, threads=request.threads, resize="stretch"
        )
        stack.callback(classifier.close)
        opened.append((found.name, classifier, found))
        said += notes
    for name, classifier, found in opened:
        subject = Subject.of(name, classifier, request.resize or found.preprocess.resize or "crop")
        if subject.classes is not None and subject.classes.note is not None:
            said.append(subject.classes.note)
        unit = unit or found.unit or ""
        subjects.append(subject)
    for sentence in dict.fromkeys(said):
        note(sentence)
    if len(subjects) == 2:
        check_comparable(*subjects)
    return subjects, unit


def _write_page(target: Path, found: Document, evaluation: Evaluation, mistakes: Mistakes, unit: str) -> None:
    from edge_mnv2.evaluate.page import page

    values = None
    subject = evaluation.model
    if subject.classes is None and subject.classifier.outputs == 1:
        truth = [example.truth[0] for example in evaluation.examples if not isinstance(example.truth, int)]
        values = (truth, [answer[0] for answer in subject.answers])
    text = page(found, mistakes.worst(), values, unit)
    try:
        with atomic_write(target, "w") as handle:
            handle.write(text)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
