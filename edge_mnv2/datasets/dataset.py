"""Pictures with known answers: `DIR/labels.csv`, or one folder a class.

`labels.csv` has a header with `file` and `class_index` (or `label`; `value` for a measured quantity); further columns
are ignored. File names are relative to DIR.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from edge_mnv2.datasets.classes import Classes, ClassNames
from edge_mnv2.errors import SourceError, UsageError

TABLE = "labels.csv"
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Example:
    """A picture, its name relative to the data set, and what is true: a class index, or a value for each output."""

    path: Path
    name: str
    truth: Union[int, tuple[float, ...]]


@dataclass(frozen=True)
class Dataset:
    """Examples in the table's order, or by folder and natural order of file names. `notes` are for a person."""

    folder: Path
    examples: list[Example]
    notes: tuple[str, ...] = ()


def read_dataset(folder: Path, answers: Union[Classes, Sequence[str]]) -> Dataset:
    """The examples below `folder`.

    `answers` are the model's classes, or the names of its outputs where it measures values: these come from a table
    with the column `value`, or with one column an output where there are several.

    Raises SourceError where there is no such folder or no picture in it, UsageError where names, classes or numbers in
    it do not fit. Pictures are not opened here.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise SourceError(f"{folder}: {what}", hint=f"evaluate takes a folder with {TABLE} or one folder a class")
    table = folder / TABLE
    if table.is_file():
        return Dataset(folder, _read_table(table, answers))
    if isinstance(answers, Classes):
        return _read_folders(folder, answers)
    raise UsageError(
        f"{folder} has no {TABLE}", hint="a model of a measured value needs one with the columns file,value"
    )


def _read_table(table: Path, answers: Union[Classes, Sequence[str]]) -> list[Example]:
    names = ClassNames(answers) if isinstance(answers, Classes) else None
    columns, rows = read_table(table)
    wanted = _answer_columns(table, columns, answers)
    examples = []
    seen: dict[str, Union[int, tuple[float, ...]]] = {}
    for line, row in rows:
        try:
            if not all(row.get(column) for column in ("file", *wanted)):
                raise UsageError(f"{'file' if not row.get('file') else wanted[0]} is missing")
            truth: Union[int, tuple[float, ...]]
            if names is None or not isinstance(answers, Classes):
                truth = tuple(_value(row[column]) for column in wanted)
            elif wanted[0] == "class_index":
                truth = answers.check(_whole_number(row["class_index"]))
            else:
                truth = names.find(row["label"])
            if seen.setdefault(row["file"], truth) != truth:
                raise UsageError(f"{row['file']} was given another {wanted[0]} before")
        except UsageError as error:
            raise UsageError(f"{table}, line {line}: {error.message}", hint=error.hint) from None
        examples.append(Example(table.parent / row["file"], row["file"], truth))
    if not examples:
        raise SourceError(f"{table} lists no picture")
    return examples


def read_table(table: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of `table` in small letters, and its rows as (line number, column → cell).

    Raises UsageError where it is no CSV file, SourceError where it cannot be read.
    """
    rows = _rows(table)
    columns = next(rows)[1]
    return columns, [(line, dict(zip(columns, cells))) for line, cells in rows]


def _rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, stripped cells), the header first with its names in small letters; empty lines are left out."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as handle:
            header = handle.readline()
            delimiter = max(_DELIMITERS, key=header.count)
            first = next(csv.reader([header], delimiter=delimiter), [])
            yield 1, [name.strip().casefold() for name in first]
            reader = csv.reader(handle, delimiter=delimiter)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num + 1, [cell.strip() for cell in cells]
    except UnicodeDecodeError:
        raise UsageError(f"{table} is not UTF-8 text", hint="save it again as CSV UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{table} is no CSV file: {error}") from None
    except OSError as error:
        raise SourceError(f"{table} cannot be read: {error.strerror}") from error


def _answer_columns(table: Path, columns: list[str], answers: Union[Classes, Sequence[str]]) -> tuple[str, ...]:
    hint = None
    if isinstance(answers, Classes):
        choices: list[tuple[str, ...]] = [("class_index",), ("label",)]
        if "value" in columns:
            hint = "this table holds measured values, and the model answers with classes"
    else:
        choices = [("value",)] if len(answers) == 1 else [tuple(name.strip().casefold() for name in answers)]
        if "class_index" in columns:
            hint = "this table holds classes, and the model answers with a measured value"
    for choice in choices:
        if {"file", *choice} <= set(columns):
            return choice
    found = ",".join(columns) or "nothing"
    raise UsageError(f"{table}: the first line must name {','.join(('file', *choices[0]))}; it says {found}", hint=hint)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"class_index '{text}' is not a whole number") from None


def _value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"value '{text}' is not a number")
    return value


def _read_folders(folder: Path, classes: Classes) -> Dataset:
    from edge_mnv2.camera.still import list_stills

    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in entries if entry.is_dir()]
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}") from error
    if not folders:
        raise UsageError(
            f"{folder} has neither {TABLE} nor a folder for each class",
            hint=f"write {TABLE} with file,class_index, or sort the pictures into folders named by class",
        )
    names = ClassNames(classes)
    truths, unmatched = {}, []
    for entry in folders:
        try:
            truths[entry] = names.find(entry.name)
        except UsageError as error:
            unmatched.append(error)
    if unmatched:
        more = f" (and {len(unmatched) - 1} more folders)" if len(unmatched) > 1 else ""
        hint = unmatched[0].hint or "name folders by label, class index or wnid"
        raise UsageError(f"folder {unmatched[0].message}{more}", hint=f"{folder}: {hint}")
    grouped: dict[str, list[Path]] = {}
    for path in list_stills(folder):
        parts = path.relative_to(folder).parts
        grouped.setdefault(parts[0] if len(parts) > 1 else "", []).append(path)
    examples = [
        Example(path, _printable(path.relative_to(folder).as_posix()), truths[entry])
        for entry in folders
        for path in grouped.get(entry.name, [])
    ]
    if not examples:
        raise SourceError(f"{folder}: no pictures in its {len(folders)} class folders")
    notes = [f"{entry.name}: no pictures in this folder" for entry in folders if entry.name not in grouped]
    if loose := len(grouped.get("", [])):
        notes.append(f"{loose} pictures beside the class folders belong to no class and are left out")
    return Dataset(folder, examples, tuple(notes))


def _printable(name: str) -> str:
    """A file name whose bytes are no UTF-8 in a form that every output can hold."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
