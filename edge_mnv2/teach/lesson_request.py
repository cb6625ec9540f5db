"""What to teach: the request, the pictures to learn from, and which of them are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2.datasets.classes import LEARNED_COLUMNS, TABLE, Classes, read_table
from edge_mnv2.datasets.labelled_pictures import (
    REGRESSION,
    Dataset,
    check_span,
    own_answers,
    read_collected,
    read_dataset,
    without_copies,
)
from edge_mnv2.errors import LabelsError, SourceError, UsageError
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.teach.linear_fit import OPTIMIZERS
from edge_mnv2.zoo.labels import is_background, labels_text

HEADS = ("softmax", "imprint")
UNKNOWN = "unknown"
LEAST_HELD_OUT = 5
"""A class with fewer pictures gives none of them away."""


@dataclass(frozen=True)
class LessonRequest:
    """What to teach. None: decided by the pictures, by the model that is extended, or by a default.

    `known`: the share of new pictures of the taught classes that shall not be called unknown.
    """

    folder: Path
    out: Optional[Path] = None
    model: Optional[str] = None
    task: Optional[str] = None
    head: Optional[str] = None
    optimizer: Optional[str] = None
    holdout: float = 0.2
    seed: int = 0
    add: Optional[Path] = None
    variations: bool = True
    unknown: Optional[bool] = None
    known: Optional[float] = None
    unit: Optional[str] = None
    compiled: Optional[Path] = None
    resize: Optional[str] = None
    runtime: str = "auto"
    threads: int = 1
    collected: tuple[Path, ...] = ()
    """Collections (`run --collect`) whose answers are taught instead of what is in `folder`."""
    scaling: ModelOptions = field(default_factory=ModelOptions)
    """What the command line says about the backbone's input."""


def check(request: LessonRequest) -> None:
    """Raises UsageError for values out of range."""
    if request.head is not None and request.head not in HEADS:
        raise UsageError(f"--head {request.head}", hint=f"one of {', '.join(HEADS)}")
    if request.optimizer is not None and request.optimizer not in ("closed", *OPTIMIZERS):
        raise UsageError(f"--optimizer {request.optimizer}", hint=f"one of {', '.join(('closed', *OPTIMIZERS))}")
    if request.known is not None and not 0.5 <= request.known < 1:
        raise UsageError(f"--known {request.known:g}", hint="a share from 0.5 to below 1; 0.95 is the default")
    if not 0 <= request.holdout < 1:
        raise UsageError(f"--holdout {request.holdout:g}", hint="a share from 0 to below 1")
    try:
        (request.unit or "").encode()
    except UnicodeEncodeError:
        raise UsageError("--unit is no text in UTF-8") from None


def read_lesson(
    folder: Path, task: Optional[str] = None, *, extending: bool = False, collected: Sequence[Path] = ()
) -> Dataset:
    """The pictures below `folder` to learn from, or those of `collected` that were answered; the same file once.

    Raises as `own_answers`, and UsageError for an empty class, a single one unless a model is `extending`, names that
    classes cannot have, and one picture with two truths.
    """
    if collected:
        pictures = read_collected(collected)
        if len(pictures.classes) == 1 and not extending:
            raise UsageError(
                f"all answers are '{pictures.classes[0]}'", hint="answer pictures of another class as well"
            )
        check_names(pictures.classes)
        return pictures
    answers = own_answers(folder, task)
    if isinstance(answers, Classes):
        if len(answers) == 1 and not extending:
            raise UsageError(
                f"{folder} has one class only, '{answers.labels[0]}'",
                hint="add another class to tell it from",
            )
        check_names(answers.labels)
    pictures = read_dataset(folder, answers, LEARNED_COLUMNS)
    if task is None and pictures.task == REGRESSION and set(read_table(folder / TABLE)[0]) & set(LEARNED_COLUMNS):
        note = f"{TABLE} has classes and values: the values are taught (--task classification teaches the classes)"
        pictures = replace(pictures, notes=(*pictures.notes, note))
    empty = set(range(len(pictures.classes))) - {example.truth for example in pictures.examples}
    if empty:
        name = folder / pictures.classes[min(empty)]
        raise UsageError(f"{name} has no pictures in it", hint="add some, or remove the folder of this class")
    return without_copies(pictures)


def check_names(names: tuple[str, ...]) -> None:
    """Raises UsageError for names that a taught model's classes cannot have."""
    for name in names:
        if name.casefold() == UNKNOWN:
            raise UsageError(
                f"a class cannot be called '{name}'",
                hint="the model calls so what belongs to no taught class; 'other' is a good name for a class",
            )
        if is_background(name):
            raise UsageError(
                f"a class cannot be called '{name}'",
                hint="elsewhere that row of a model is no class; 'empty' or 'other' is a good name",
            )
    try:
        # Of a folder without classes something else is said.
        labels_text(names or ("none",))
    except LabelsError as error:
        raise UsageError(f"a class name does not fit into a label file: {error.message}") from None


def hold_out(truth: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places of the held-out pictures: of each class with at least `LEAST_HELD_OUT` pictures the `share`, rounded.

    At least one picture of such a class is held out if `share` is above 0, and at least one is taught.
    """
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for row in np.unique(truth):
        members = random.permutation(np.flatnonzero(truth == row))
        if len(members) >= LEAST_HELD_OUT and share > 0:
            count = min(max(1, round(len(members) * share)), len(members) - 1)
            chosen += members[:count].tolist()
    return np.array(sorted(chosen), np.int64)


def hold_out_values(values: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places of held-out pictures of a regression: one at random out of each run of neighbours in value.

    The lowest and the highest value are taught, so that nothing held out lies beyond what was taught.
    """
    if len(values) < LEAST_HELD_OUT or share <= 0:
        return np.zeros(0, np.int64)
    random = np.random.default_rng(seed)
    inner = np.argsort(values, kind="stable")[1:-1]
    count = min(max(1, round(len(values) * share)), len(inner))
    return np.array(sorted(int(random.choice(run)) for run in np.array_split(inner, count)), np.int64)


def check_truths(
    request: LessonRequest, task: str, classes: tuple[str, ...], truth: np.ndarray, failures: list[tuple[str, str]]
) -> None:
    """Raises SourceError or UsageError if the `truth` of the readable pictures is too little to learn from."""
    if not len(truth):
        raise SourceError(f"{request.folder}: none of its {len(failures)} pictures could be read")
    if task == REGRESSION:
        if len(np.unique(truth)) < 2:
            raise UsageError(f"{request.folder} has pictures of one value only", hint="teach at least two values")
        check_span(request.folder, truth.tolist())
        return
    for row, name in enumerate(classes):
        if not np.any(truth == row):
            raise SourceError(f"none of the pictures of class '{name}' could be read")
