"""Pictures with their answers, for evaluate, teach and train alike.

A folder holds one folder a class, a `labels.csv`, or values in front of file names. `labels.csv` has a header with
`file` and `class_index`, `label` or `class`; `value` for a measured quantity, or one column an output of several. File
names are relative to its folder. No picture is decoded here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.datasets.classes import (
    CLASS_COLUMNS,
    LEARNED_COLUMNS,
    TABLE,
    VALUE,
    Classes,
    ClassNames,
    class_column,
    has_decimal_comma,
    number,
    read_table,
    value_columns,
    whole_number,
)
from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.zoo.labels import read_labels

CLASSIFICATION, REGRESSION = "classification", "regression"

Answers = Union[Classes, Sequence[str]]
"""What pictures are labelled with: classes, or the names of measured values."""

Truth = Union[int, tuple[float, ...]]

_SPANS, _MOST_SPANS = (1e-12, 1e12), 1e5
"""How far values may lie apart, and how many times that from zero: more is beyond what a model's numbers resolve."""

_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?(?![-+.,:]?\d)")
"""A number at the beginning that no other one follows directly: a date is none."""


@dataclass(frozen=True)
class Example:
    """A picture, its name relative to the data set, and its truth: a class index, or a value for each output."""

    path: Path
    name: str
    truth: Truth

    @property
    def value(self) -> float:
        """The truth as one number: the class index, or the first measured value."""
        return float(self.truth if isinstance(self.truth, int) else self.truth[0])


@dataclass(frozen=True)
class Dataset:
    """Examples in the table's order, or by folder and natural order of file names.

    `classes` are the names by class index, empty for measured values. `notes` are sentences for a person. `others` are
    pictures of which a person said that they show none of the classes.
    """

    folder: Path
    examples: list[Example]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def task(self) -> str:
        return CLASSIFICATION if self.classes else REGRESSION


def read_dataset(folder: Path, answers: Answers, columns: Sequence[str] = CLASS_COLUMNS) -> Dataset:
    """The examples below `folder`, whose truths are among `answers`. `columns` of a table are tried in this order.

    Raises SourceError for a missing folder or one without pictures, UsageError for names, classes or numbers that do
    not fit.
    """
    folder = _checked(folder)
    table = folder / TABLE
    if table.is_file():
        return _from_table(table, answers, columns)
    if isinstance(answers, Classes):
        return _from_folders(folder, answers)
    if len(answers) > 1:
        raise UsageError(f"{folder} has no {TABLE}", hint=f"it names the columns file,{','.join(answers)}")
    return _from_names(folder)


def own_answers(folder: Path, task: Optional[str] = None) -> Answers:
    """The classes that `folder` itself names, to learn them; `["value"]` for measured values.

    `task`: "classification" or "regression"; None: measured values if `labels.csv` has the column `value`. Classes are
    the folders in natural order, the table's labels in alphabetical order, or for class indices the names in
    `labels.txt` beside the table. Raises as `read_dataset`.
    """
    if task not in (None, CLASSIFICATION, REGRESSION):
        raise UsageError(f"--task {task}", hint="classification or regression")
    folder = _checked(folder)
    table = folder / TABLE
    columns = read_table(table)[0] if table.is_file() else []
    if task == REGRESSION or (task is None and VALUE in columns):
        return [VALUE]
    names = _classes_of_table(table) if columns else [entry.name for entry in class_folders(folder)]
    return Classes(tuple(names), 0, len(names))


def read_collected(folders: Sequence[Path]) -> Dataset:
    """The pictures of collections (`run --collect`) to which a person gave a class, or none of them, each picture once.

    Classes are in the order of their first picture. Raises UsageError where a folder is no collection, where none of
    its pictures was answered with a class, and where one picture has two answers.
    """
    from edge_mnv2.datasets.collection import Collection

    answered: dict[str, tuple[Path, Path, Optional[str]]] = {}
    bad = 0
    for folder in folders:
        collection = Collection(folder, create=False)
        for item in collection.items():
            path = collection.path(item.id)
            if item.answer is None or item.answer.bad or path is None:
                bad += item.answer is not None
                continue
            other, _, label = answered.setdefault(item.id, (folder, path, item.answer.label))
            if label != item.answer.label:
                was, becomes = (f"'{one}'" if one else "none of the classes" for one in (label, item.answer.label))
                raise UsageError(
                    f"picture {item.id} is {was} in {other} and {becomes} in {folder}",
                    hint="answer it anew in one of them",
                )
    named = [(path, label) for _, path, label in answered.values() if label is not None]
    if not named:
        raise UsageError(
            f"{' and '.join(map(str, folders))}: no picture has a class as its answer", hint="edge-mnv2 review DIR"
        )
    classes = tuple(dict.fromkeys(label for _, label in named))
    examples = [Example(path, path.name, classes.index(label)) for path, label in named]
    others = tuple(path for _, path, label in answered.values() if label is None)
    counted = (
        ("pictures of none of the classes, which teach what is unknown", len(others)),
        ("bad pictures, which are left out", bad),
    )
    notes = tuple(f"{what}: {count}" for what, count in counted if count)
    return Dataset(folders[0], examples, classes, notes, others)


def _checked(folder: Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else "no such folder"
        raise SourceError(f"{folder}: {reason}", hint=f"give a folder with {TABLE}, or with one folder a class")
    if (folder / "index.jsonl").is_file() and (folder / "pictures").is_dir():
        raise UsageError(
            f"{folder} holds collected pictures, not a folder for each class", hint="`teach --from` takes it"
        )
    return folder


def _classes_of_table(table: Path) -> list[str]:
    columns, rows = read_table(table)
    column = class_column(table, columns, LEARNED_COLUMNS)
    if column != "class_index":
        return sorted({row[column] for _, row in rows if row.get(column)})
    names = table.with_name("labels.txt")
    if names.is_file():
        return list(read_labels(names))
    indices = [int(row[column]) for _, row in rows if row.get(column, "").isdecimal()]
    return [str(index) for index in range(max(indices, default=-1) + 1)]


def class_folders(folder: Path) -> list[Path]:
    """The class folders below `folder` in natural order; hidden ones are none. Raises SourceError."""
    from edge_mnv2.camera.still import natural

    try:
        entries = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(entries, key=lambda entry: natural(entry.name))


def _from_table(table: Path, answers: Answers, choices: Sequence[str]) -> Dataset:
    columns, rows = read_table(table)
    wanted: tuple[str, ...]
    if isinstance(answers, Classes):
        classes, names, wanted = answers, ClassNames(answers), (class_column(table, columns, choices),)
    else:
        classes, names, wanted = None, None, value_columns(table, columns, answers)

    def truth_of(row: dict[str, str]) -> Truth:
        missing = [column for column in ("file", *wanted) if not row.get(column)]
        if missing:
            raise UsageError(f"{missing[0]} is missing")
        if classes is None or names is None:
            return tuple(number(row[column]) for column in wanted)
        if wanted == ("class_index",):
            return classes.check(whole_number(row["class_index"]))
        return names.find(row[wanted[0]])

    examples = []
    truths: dict[str, Truth] = {}
    for line, row in rows:
        try:
            truth = truth_of(row)
            if truths.setdefault(row["file"], truth) != truth:
                raise UsageError(f"{row['file']} has another {wanted[0]} further up")
        except UsageError as error:
            raise UsageError(f"{table}, line {line}: {error.message}", hint=error.hint) from None
        examples.append(Example(table.parent / row["file"], row["file"], truth))
    if not examples:
        raise SourceError(f"{table} lists no picture")
    texts = [row[column] for _, row in rows for column in wanted] if classes is None else []
    return Dataset(table.parent, examples, classes.labels if classes else (), _comma_note(table, texts))


def _comma_note(source: Path, texts: Sequence[str]) -> tuple[str, ...]:
    text = next((text for text in texts if has_decimal_comma(text)), None)
    return (f"{source}: the comma in '{text}' is read as a decimal comma ({number(text):g})",) if text else ()


def _from_names(folder: Path) -> Dataset:
    from edge_mnv2.camera.still import list_stills

    examples, texts = [], []
    for file in list_stills(folder):
        match = _NUMBER.match(file.stem)
        if match is None:
            raise UsageError(
                f"{folder} has no {TABLE}, and {file.relative_to(folder)} does not begin with its value",
                hint=f"name it like 12.5_a.jpg, or write {TABLE} (file,value)",
            )
        texts.append(match.group())
        examples.append(Example(file, printable(file.relative_to(folder)), (number(match.group()),)))
    if not examples:
        raise SourceError(f"{folder} has no pictures in it")
    first = examples[0]
    note = f"no {TABLE} in {folder}: values are read from file names, {first.name} is {first.value:g}"
    return Dataset(folder, examples, (), (note, *_comma_note(folder, texts)))


def _from_folders(folder: Path, classes: Classes) -> Dataset:
    from edge_mnv2.camera.still import list_stills

    folders = class_folders(folder)
    if not folders:
        raise UsageError(
            f"{folder} has neither {TABLE} nor a folder for each class",
            hint=f"write {TABLE} with file,class_index, or sort the pictures into folders named by class",
        )
    names = ClassNames(classes)
    truths, errors = {}, []
    for entry in folders:
        try:
            truths[entry] = names.find(entry.name)
        except UsageError as error:
            errors.append(error)
    if errors:
        more = f" (and {len(errors) - 1} more folders)" if len(errors) > 1 else ""
        hint = errors[0].hint or "name folders by label, class index or wnid"
        raise UsageError(f"folder {errors[0].message}{more}", hint=f"{folder}: {hint}")
    examples: list[Example] = []
    notes = []
    for entry in folders:
        files = list_stills(entry)
        examples += [Example(file, printable(file.relative_to(folder)), truths[entry]) for file in files]
        if not files:
            notes.append(f"{entry.name}: no pictures in this folder")
    if not examples:
        raise SourceError(f"{folder}: no pictures in its {len(folders)} class folders")
    if loose := len([file for file in list_stills(folder) if file.parent == folder]):
        notes.append(f"{loose} pictures beside the class folders belong to no class and are left out")
    return Dataset(folder, examples, classes.labels, tuple(notes))


def without_copies(dataset: Dataset) -> Dataset:
    """The same file twice counts once. Raises UsageError where it has two truths."""
    first: dict[str, Example] = {}
    examples, notes = [], list(dataset.notes)
    for example in dataset.examples:
        try:
            same = first.setdefault(digest(example.path), example)
        except SourceError:
            # It is named with the other unreadable ones when it is to be decoded.
            same = example
        if same.truth != example.truth:
            how = "in two classes" if dataset.classes else "with two values"
            raise UsageError(
                f"the same picture is {how}: {same.name} and {example.name}", hint="keep the one that is right"
            )
        if same is example:
            examples.append(example)
        else:
            notes.append(f"{example.name} is the same file as {same.name}: it counts once")
    return replace(dataset, examples=examples, notes=tuple(notes))


def check_span(folder: Path, values: Sequence[float]) -> None:
    """Raises UsageError for values to learn, not all equal, that a model's numbers cannot resolve."""
    low, high = min(values), max(values)
    if not _SPANS[0] < high - low < _SPANS[1] or max(-low, high) > _MOST_SPANS * (high - low):
        raise UsageError(
            f"{folder} has values from {low:g} to {high:g}",
            hint="give them in a unit in which they differ by something between 1e-12 and 1e12, near to zero",
        )


def digest(path: Path) -> str:
    """sha256 of a picture file. Raises SourceError."""
    try:
        if not path.is_file() and path.exists():
            raise SourceError(f"{path} is not a regular file")
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise SourceError(f"{path}: file not found") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error


def printable(path: Path) -> str:
    """`path` for a person, with escapes for what is no UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
