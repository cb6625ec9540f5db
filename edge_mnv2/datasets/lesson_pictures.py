"""What there is to learn from: one folder a class, or values in `labels.csv` or in file names."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.camera.still import list_stills
from edge_mnv2.datasets.dataset import TABLE, read_table
from edge_mnv2.errors import LabelsError, SourceError, UsageError
from edge_mnv2.zoo.labels import is_background, parse_labels

CLASSIFICATION, REGRESSION = "classification", "regression"
UNKNOWN = "unknown"
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?(?![-+.,:]?\d)")
"""A number at the beginning that no other one follows directly: a date is none."""


@dataclass(frozen=True)
class Picture:
    """One file, its name relative to the folder, and its truth: the class's place in `classes`, or the value."""

    path: Path
    name: str
    truth: float


@dataclass(frozen=True)
class PictureSet:
    """`classes` in natural order of their folders, empty for a regression. `notes` are for a person."""

    folder: Path
    task: str
    classes: tuple[str, ...]
    pictures: list[Picture]
    notes: tuple[str, ...] = ()


def read_pictures(folder: Path, task: Optional[str] = None, least_classes: int = 2) -> PictureSet:
    """The pictures below `folder`; none is decoded here.

    `task`: "classification" or "regression"; None: a regression where `labels.csv` has values. The same file twice
    counts once. Raises SourceError where there is no picture, UsageError for what cannot be learned from: an empty
    class, a single one, one picture in two classes, values that are no numbers.
    """
    folder = Path(folder)
    if task not in (None, CLASSIFICATION, REGRESSION):
        raise UsageError(f"--task {task}", hint="classification or regression")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "no such folder"
        raise SourceError(f"{folder}: {what}", hint="teach takes a folder with one folder of pictures a class")
    table = folder / TABLE
    if table.is_file():
        found = _from_table(folder, table, task)
    elif task == REGRESSION:
        found = _from_names(folder)
    else:
        found = _from_folders(folder)
    if found.task == CLASSIFICATION:
        _check_classes(found, least_classes)
    return _once_each(found)


def class_folders(folder: Path) -> list[Path]:
    """The class folders below `folder` in natural order; hidden ones are none. Raises SourceError."""
    try:
        entries = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}") from error
    return sorted(entries, key=lambda entry: [_natural(part) for part in re.split(r"(\d+)", entry.name.casefold())])


def _natural(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (0, part)


def _from_folders(folder: Path) -> PictureSet:
    folders = class_folders(folder)
    if not folders:
        raise UsageError(f"{folder} has no folder in it", hint="sort the pictures into one folder a class")
    pictures = []
    for truth, entry in enumerate(folders):
        files = list_stills(entry)
        if not files:
            raise UsageError(f"{entry} has no pictures in it", hint="add some, or remove the folder of this class")
        pictures += [Picture(file, _printable(folder, file), truth) for file in files]
    loose = len([file for file in list_stills(folder) if file.parent == folder])
    notes = (f"{loose} pictures beside the class folders belong to no class and are left out",) if loose else ()
    return PictureSet(folder, CLASSIFICATION, tuple(entry.name for entry in folders), pictures, notes)


def _from_table(folder: Path, table: Path, task: Optional[str]) -> PictureSet:
    columns, rows = read_table(table)
    answer = next((name for name in ("value", "label", "class") if name in columns), None)
    if "file" not in columns or answer is None:
        raise UsageError(f"{table}: the first line must name file and value (or label)")
    values = answer == "value"
    if task is not None and values != (task == REGRESSION):
        raise UsageError(f"{table} holds {'values' if values else 'classes'}, and --task says {task}")
    entries = []
    for line, row in rows:
        if not row.get("file") or not row.get(answer):
            raise UsageError(f"{table}, line {line}: {'file' if not row.get('file') else answer} is missing")
        entries.append((line, row["file"], row[answer]))
    if not entries:
        raise SourceError(f"{table} lists no picture")
    names = () if values else tuple(dict.fromkeys(text for _, _, text in entries))
    pictures = []
    for line, file, text in entries:
        truth = _number(text, f"{table}, line {line}: value") if values else float(names.index(text))
        pictures.append(Picture(folder / file, file, truth))
    return PictureSet(folder, REGRESSION if values else CLASSIFICATION, names, pictures)


def _from_names(folder: Path) -> PictureSet:
    pictures = []
    for file in list_stills(folder):
        number = _NUMBER.match(file.stem)
        if number is None:
            raise UsageError(
                f"{file} does not begin with its value", hint=f"name it like 12.5_a.jpg, or write {TABLE} (file,value)"
            )
        pictures.append(Picture(file, _printable(folder, file), float(number.group().replace(",", "."))))
    if not pictures:
        raise SourceError(f"{folder} has no pictures in it")
    return PictureSet(folder, REGRESSION, (), pictures)


def _number(text: str, where: str) -> float:
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where} '{text}' is not a number")
    return value


def _printable(folder: Path, file: Path) -> str:
    return printable(file.relative_to(folder))


def printable(path: Path) -> str:
    """`path` for a person, with escapes for what is no UTF-8."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def _check_classes(found: PictureSet, least: int) -> None:
    if len(found.classes) < least:
        raise UsageError(
            f"{found.folder} has one class only, '{found.classes[0]}'",
            hint="add one of what it is to be told from",
        )
    check_names(found.classes)


def check_names(names: tuple[str, ...]) -> None:
    """Raises UsageError for names that a taught model's classes cannot have."""
    for name in names:
        if name.casefold() == UNKNOWN:
            raise UsageError(
                f"a class cannot be called '{name}'",
                hint="what was never shown is called so without being taught; 'other' is a good name for a class",
            )
        if is_background(name):
            raise UsageError(
                f"a class cannot be called '{name}'",
                hint="that row of a model is no class elsewhere; 'empty' or 'other' is a good name",
            )
    try:
        labels_text(names)
    except LabelsError as error:
        raise UsageError(f"a class name cannot be kept in a label file: {error.message}") from None


def labels_text(names: tuple[str, ...]) -> str:
    """The label file of `names`, with indices only where the names would not be read back as they are."""
    plain = "\n".join(names) + "\n"
    if parse_labels(plain.encode(errors="surrogateescape")) == list(names):
        return plain
    indexed = "".join(f"{row}:{name}\n" for row, name in enumerate(names))
    if parse_labels(indexed.encode(errors="surrogateescape")) != list(names):
        raise LabelsError("it begins or ends with blanks, or has a line break in it")
    return indexed


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


def _once_each(found: PictureSet) -> PictureSet:
    by_content: dict[str, list[Picture]] = defaultdict(list)
    kept, notes = [], list(found.notes)
    for picture in found.pictures:
        try:
            same = by_content[digest(picture.path)]
        except SourceError:
            # It is named with the other unreadable ones when it is to be decoded.
            kept.append(picture)
            continue
        if same and same[0].truth != picture.truth:
            what = "in two classes" if found.task == CLASSIFICATION else "with two values"
            raise UsageError(
                f"the same picture is {what}: {same[0].name} and {picture.name}", hint="keep the one that is right"
            )
        if same:
            notes.append(f"{picture.name} is the same file as {same[0].name}: it counts once")
        else:
            kept.append(picture)
        same.append(picture)
    return PictureSet(found.folder, found.task, found.classes, kept, tuple(notes))
