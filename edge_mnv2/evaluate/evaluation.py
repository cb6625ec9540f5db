"""One pass of one or two models over a data set.

Threads decode and fit pictures ahead: decoders release Python's lock, so all cores work, and only small fitted pictures
wait, never whole photographs.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from edge_mnv2.datasets.classes import Classes
from edge_mnv2.datasets.labelled_pictures import REGRESSION, Dataset, Example, Truth
from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.evaluate.metrics import Answer, rank_of
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.preprocess import Preprocessor

Answered = Union[Answer, tuple[float, ...]]


class Fit(NamedTuple):
    """How a model wants its pictures: a resize policy, and the size of its input in pixels."""

    resize: str
    height: int
    width: int


Fitted = dict[Fit, np.ndarray]
"""The picture as a model sees it: RGB uint8 height x width x 3."""

_AHEAD = 4


@dataclass
class Subject:
    """A model under test and what it answered.

    `classifier` must be opened with `resize="stretch"`: pictures come fitted already, by the policy `resize`. `classes`
    are None where the model measures values. `answers` (one a readable picture, in order) holds an `Answer`, or the
    values of the outputs.
    """

    name: str
    classifier: Classifier
    resize: str = "crop"
    classes: Optional[Classes] = None
    answers: list[Any] = field(default_factory=list)
    inference_ms: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, classifier: Classifier, resize: str = "crop", folder: Optional[Path] = None) -> Subject:
        """With the classes that belong to the labels; see `Classes.of` for `folder`."""
        classes = None if classifier.task == REGRESSION else Classes.of(classifier.labels, folder)
        return cls(name, classifier, resize, classes)

    @property
    def fit(self) -> Fit:
        return Fit(self.resize, *self.classifier.input_size)

    @property
    def truths(self) -> Union[Classes, list[str]]:
        """What a data set must hold for this model: its classes, or a value for each of its outputs."""
        return self.classes if self.classes is not None else self.classifier.labels

    def answer(self, image: np.ndarray, truth: Truth) -> Answered:
        """Classify one fitted picture and note the answer."""
        result = self.classifier.classify(image)
        scores = result.scores
        answered: Answered
        if self.classes is None or not isinstance(truth, int):
            answered = tuple(float(value) for value in scores)
        else:
            row = int(np.argmax(scores))
            rank = rank_of(scores, self.classes.row(truth))
            answered = Answer(truth, self.classes.class_of(row), rank, float(scores[row]))
        self.answers.append(answered)
        self.inference_ms.append(result.inference_ns / 1e6)
        return answered


@dataclass(frozen=True)
class Outcome:
    """What came of one example: an answer of each subject, or why its picture could not be read."""

    example: Example
    answers: tuple[Answered, ...] = ()
    inference_ms: tuple[float, ...] = ()
    image: Optional[np.ndarray] = None
    error: Optional[str] = None


@dataclass
class Evaluation:
    """The pass: `failures` are (file, reason); `examples` those that could be read; `duration_s` without model load."""

    dataset: Dataset
    subjects: list[Subject]
    examples: list[Example] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def model(self) -> Subject:
        return self.subjects[0]

    @property
    def against(self) -> Optional[Subject]:
        return self.subjects[1] if len(self.subjects) > 1 else None


class Stopped(KeyboardInterrupt):
    """A signal came in the middle of a pass; `evaluation` is what was done until then."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__()
        self.evaluation = evaluation


def check_comparable(first: Subject, second: Subject) -> None:
    """Raises UsageError where answers of both models cannot be compared."""
    kinds = {True: "classes", False: "measured values"}
    if (first.classes is None) != (second.classes is None):
        raise UsageError(
            f"{first.name} answers with {kinds[first.classes is not None]} "
            f"and {second.name} with {kinds[second.classes is not None]}",
            hint="compare models of one task",
        )
    counts = [
        len(subject.classes) if subject.classes is not None else subject.classifier.outputs
        for subject in (first, second)
    ]
    if counts[0] != counts[1]:
        raise UsageError(
            f"{first.name} has {counts[0]} classes and {second.name} has {counts[1]}",
            hint="compare models of the same classes",
        )


def evaluate(
    dataset: Dataset,
    subjects: Sequence[Subject],
    *,
    workers: int = 1,
    on_outcome: Optional[Callable[[Outcome], None]] = None,
) -> Evaluation:
    """Every subject answers every picture of `dataset`. `workers` threads decode ahead.

    `on_outcome` is called once an example, in order. Raises ModelError where a model fails, and Stopped.
    """
    evaluation = Evaluation(dataset, list(subjects))
    for subject in subjects:
        subject.classifier.warm_up()
    fits = sorted({subject.fit for subject in subjects})
    pictures = fitted_pictures([example.path for example in dataset.examples], fits, workers)
    started = time.monotonic()
    try:
        for example, picture in zip(dataset.examples, pictures):
            if isinstance(picture, SourceError):
                evaluation.failures.append((example.name, str(picture)))
                outcome = Outcome(example, error=str(picture))
            else:
                images = [picture[subject.fit] for subject in subjects]
                answers = tuple(subject.answer(image, example.truth) for subject, image in zip(subjects, images))
                evaluation.examples.append(example)
                outcome = Outcome(example, answers, tuple(subject.inference_ms[-1] for subject in subjects), images[0])
            if on_outcome is not None:
                on_outcome(outcome)
    except KeyboardInterrupt:
        # A picture that not every subject has answered is none.
        for subject in subjects:
            del subject.answers[len(evaluation.examples) :], subject.inference_ms[len(evaluation.examples) :]
        evaluation.duration_s = time.monotonic() - started
        raise Stopped(evaluation) from None
    evaluation.duration_s = time.monotonic() - started
    return evaluation


def fitted_pictures(paths: Sequence[Path], fits: Sequence[Fit], workers: int) -> Iterator[Union[Fitted, SourceError]]:
    """For each path in order its picture fitted in each of `fits`, or the error that names the file.

    `workers` threads decode ahead of the consumer; each holds one whole photograph at a time.
    """
    remaining = iter(paths)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Union[Fitted, SourceError]]] = deque()
        try:
            for path in itertools.islice(remaining, workers * _AHEAD):
                waiting.append(pool.submit(_fitted, path, fits))
            while waiting:
                picture = waiting.popleft().result()
                for path in itertools.islice(remaining, 1):
                    waiting.append(pool.submit(_fitted, path, fits))
                yield picture
        finally:
            for future in waiting:
                future.cancel()


def _fitted(path: Path, fits: Sequence[Fit]) -> Union[Fitted, SourceError]:
    from edge_mnv2.camera.still import read_still

    # A preprocessor keeps its result until its next picture: a new one each time leaves the result to the consumer.
    preprocessors = {fit: Preprocessor(fit.height, fit.width, fit.resize) for fit in fits}
    try:
        pixels = read_still(path, max(one.least_side for one in preprocessors.values()))
    except SourceError as error:
        return error
    return {fit: preprocessor.to_rgb(pixels) for fit, preprocessor in preprocessors.items()}
