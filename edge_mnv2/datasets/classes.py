"""Which output row is which class, and which class a folder's name means; `labels.csv` with an answer on each line.

A class index counts classes only; a model's output rows may hold one more, the background, first or last. The first
line of `labels.csv` names the columns; further columns are ignored.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.zoo.labels import BACKGROUND, IMAGENET_WITH_BACKGROUND, is_background
from edge_mnv2.zoo.synsets import imagenet_names

TABLE = "labels.csv"
VALUE = "value"
CLASS_COLUMNS = ("class_index", "label", "class")
"""What a model's classes are found by: its index says it without doubt."""

LEARNED_COLUMNS = ("label", "class", "class_index")
"""What new classes are learned from: a name is worth more than a number."""

_DELIMITERS = ",;\t"

Rows = list[tuple[int, dict[str, str]]]
"""Line number, and column → cell."""


def read_table(table: Path) -> tuple[list[str], Rows]:
    """The columns of `table` in small letters, and its rows.

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


def class_column(table: Path, columns: Sequence[str], choices: Sequence[str] = CLASS_COLUMNS) -> str:
    """The first of `choices` among `columns`. Raises UsageError."""
    hint = "this table holds measured values, not classes: --task regression learns the value"
    return _columns(table, columns, [(name,) for name in choices], hint if VALUE in columns else None)[0]


def value_columns(table: Path, columns: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """The columns that hold the values of `outputs`: `value` for a single one, else a column of each one's name."""
    wanted = (VALUE,) if len(outputs) == 1 else tuple(name.strip().casefold() for name in outputs)
    hint = "this table holds classes, not measured values" if set(columns) & set(CLASS_COLUMNS) else None
    return _columns(table, columns, [wanted], hint)


def _columns(table: Path, columns: Sequence[str], choices: Sequence[tuple[str, ...]], hint: str | None) -> tuple:
    for choice in choices:
        if {"file", *choice} <= set(columns):
            return choice
    wanted, actual = ",".join(("file", *choices[0])), ",".join(columns) or "nothing"
    raise UsageError(f"{table}: the first line must name {wanted}; it says {actual}", hint=hint)


def whole_number(text: str) -> int:
    """A class index. Raises UsageError."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"class_index '{text}' is not a whole number") from None


def number(text: str) -> float:
    """A measured value; a single comma is a decimal comma (`12,5`). Raises UsageError for what is no finite number."""
    try:
        value = float(text.replace(",", ".") if has_decimal_comma(text) else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"value '{text}' is not a number")
    return value


def has_decimal_comma(text: str) -> bool:
    """Whether `number` takes a comma of `text` for a decimal comma."""
    return text.count(",") == 1 and "." not in text


IMAGENET_CLASSES = IMAGENET_WITH_BACKGROUND - 1
_WNID = re.compile(r"(n\d{8})(?:[-_ ].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Classes:
    """A model's classes. `labels` are their names without background; class `i` is output row `i + offset`."""

    labels: tuple[str, ...]
    offset: int
    rows: int
    note: Optional[str] = None

    @classmethod
    def of(cls, labels: Sequence[str], folder: Optional[Path] = None) -> Classes:
        """From one label per output row. Background is the row labelled so, first or last; 1001 rows without any
        names are ImageNet's, with background first. A folder of that name in `folder`, whose pictures are to be
        answered, shows that it is a class like the others."""
        rows = len(labels)
        if rows > 1 and folder is not None and (is_background(labels[0]) or is_background(labels[-1])):
            pictures = next((one.name for one in folder.glob("*") if is_background(one.name) and one.is_dir()), None)
            if pictures is not None:
                return cls(tuple(labels), 0, rows, f"'{pictures}' is a class here: {folder} has a folder of that name")
        if rows > 1 and is_background(labels[0]):
            return cls(tuple(labels[1:]), 1, rows)
        if rows > 1 and is_background(labels[-1]):
            return cls(tuple(labels[:-1]), 0, rows)
        if rows == IMAGENET_WITH_BACKGROUND and all(label == str(row) for row, label in enumerate(labels)):
            note = "1001 outputs without labels: taken as ImageNet's classes with background in row 0"
            return cls(tuple(str(index) for index in range(IMAGENET_CLASSES)), 1, rows, note)
        return cls(tuple(labels), 0, rows)

    def __len__(self) -> int:
        return len(self.labels)

    def row(self, class_index: int) -> int:
        """The output row of a class."""
        return class_index + self.offset

    def class_of(self, row: int) -> int:
        """The class of an output row; -1 for background."""
        index = row - self.offset
        return index if 0 <= index < len(self.labels) else -1

    def name(self, class_index: int) -> str:
        """The label of a class; "background" for -1."""
        return self.labels[class_index] if class_index >= 0 else BACKGROUND

    def check(self, class_index: int) -> int:
        """`class_index` itself. Raises UsageError where the model has no such class."""
        if not 0 <= class_index < len(self.labels):
            raise UsageError(f"class index {class_index} is not one of this model's {len(self.labels)} classes")
        return class_index


class ClassNames:
    """Finds the class that a text means: a label, a part of a label between commas, a wnid (`n02123045`) where the
    classes are ImageNet's, or the class index itself. Case, accents' encoding and `_` for a blank matter only between
    labels that differ in nothing else."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._exact: dict[str, set[int]] = {}
        self._whole: dict[str, set[int]] = {}
        self._parts: dict[str, set[int]] = {}
        self._wnids: dict[str, int] = {}
        for index, label in enumerate(classes.labels):
            self._exact.setdefault(label, set()).add(index)
            self._whole.setdefault(name_key(label), set()).add(index)
            for part in label.split(","):
                self._parts.setdefault(name_key(part), set()).add(index)

    def find(self, text: str) -> int:
        """The class index. Raises UsageError where the text means no class or more than one."""
        key = name_key(text)
        for table, name in ((self._exact, text), (self._whole, key), (self._parts, key)):
            matches = table.get(name, set())
            if len(matches) == 1:
                return next(iter(matches))
            if matches:
                indices = ", ".join(str(index) for index in sorted(matches))
                raise UsageError(f"'{text}' means more than one class ({indices})", hint="use the class index instead")
        wnid = self._by_wnid(text)
        if wnid is not None:
            return wnid
        if re.fullmatch(r"\d{1,9}", text.strip()):
            return self._classes.check(int(text))
        raise UsageError(f"'{text}' is no class of this model{self._near(key)}")

    def _by_wnid(self, text: str) -> Optional[int]:
        match = _WNID.fullmatch(text.strip())
        if match is None:
            return None
        wnid = match.group(1).lower()
        if not self._wnids and len(self._classes) == IMAGENET_CLASSES:
            names = imagenet_names()
            rows = [
                self._whole.get(name_key(name)) or self._whole.get(name_key(name.split(",")[0]))
                for name in names.values()
            ]
            sure = {index: next(iter(one)) for index, one in enumerate(rows) if one and len(one) == 1}
            # A name or two may be another's here; most of them at other places are another order.
            moved = 2 * sum(index != row for index, row in sure.items()) > len(sure)
            places = sure if moved else {index: index for index in range(IMAGENET_CLASSES)}
            self._wnids = {wnid: places[index] for index, wnid in enumerate(names) if index in places}
        by_label = self._parts.get(wnid, set())
        return next(iter(by_label)) if len(by_label) == 1 else self._wnids.get(wnid)

    def _near(self, key: str) -> str:
        near = difflib.get_close_matches(key, [*self._whole, *self._parts], n=3, cutoff=0.7)
        return f" (near: {', '.join(dict.fromkeys(near))})" if near else ""


def imagenet_wnids() -> list[str]:
    """WordNet ids of ImageNet's 1000 classes, in the order of their class index."""
    return list(imagenet_names())


def name_key(text: str) -> str:
    """What names of one class have in common, however they are typed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("_", " ").split())
