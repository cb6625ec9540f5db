"""`labels.csv`: a file and its answer on each line. The first line names the columns; further columns are ignored."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_mnv2.errors import SourceError, UsageError

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
