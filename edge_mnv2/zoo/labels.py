"""Label files, and how names meet a model's output rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.errors import LabelsError
from edge_mnv2.files import LFS_POINTER, text_content

BACKGROUND = "background"
IMAGENET_WITH_BACKGROUND = 1001

_MAX_BYTES = 4 << 20
_MAX_NAME = 500
# Not str.splitlines(): that also splits at form feeds and at Unicode's own line separators.
_LINE_END = re.compile(r"\r*\n|\r")
_INDEXED = re.compile(r"[ \t]*(\d{1,7})(?:[ \t]*:[ \t]*|[ \t]+)(\S.*)")
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def read_labels(path: Union[Path, str]) -> list[str]:
    """The names in a label file, in the order of the output rows.

    One name a line, UTF-8 (UTF-16 with a byte order mark too). A byte order mark, CRLF, trailing blanks and empty lines
    at the end are dropped. `0 name` and `0:name` lose their index when every line has one and the indices are
    0..n-1 without a gap; lines are then put into the order of their indices. Raises LabelsError naming the file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise LabelsError(f"{path} is a folder, not a label file")
        if path.exists() and not path.is_file():
            raise LabelsError(f"{path} is not a regular file")
        if path.stat().st_size > _MAX_BYTES:
            raise LabelsError(f"{path} is not a label file: {path.stat().st_size} bytes", hint="one name a line")
        data = path.read_bytes()
    except FileNotFoundError:
        raise LabelsError(f"{path}: no such label file") from None
    except LabelsError:
        raise
    except (OSError, ValueError) as error:
        raise LabelsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_labels(data, str(path))


def parse_labels(data: bytes, name: str = "labels") -> list[str]:
    """`read_labels` for a file in memory; `name` stands in the errors."""
    text = _decode(data, name)
    lines = [line.rstrip(" \t\f\v\u00a0\u3000\ufeff") for line in _LINE_END.split(text)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise LabelsError(f"{name} has no names in it", hint="one name a line")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise LabelsError(
                f"{name}, line {number} is empty: every name after it would be one row off", hint="name that row"
            )
        if len(line) > _MAX_NAME:
            raise LabelsError(f"{name}, line {number} has {len(line)} characters: this is no list of names")
    return _without_indices(lines)


def fit_labels(
    labels: Optional[Sequence[str]], outputs: int, *, background: Optional[str] = None
) -> tuple[list[str], Optional[str]]:
    """One name for each of a model's `outputs` rows, and a sentence where names had to be shifted or dropped.

    Without labels the names are row numbers as text. As many names as rows: used as they are. One too few: a background
    row is added where the registry says it is (`background`: "first", "last") or in front for a model of 1001 rows.
    One too many, and the first or last of them is `background`: that one is dropped. All else raises LabelsError
    with both counts.
    """
    if labels is None:
        return [str(row) for row in range(outputs)], None
    names = list(labels)
    has_background = [end for end, row in (("first", 0), ("last", -1)) if names and is_background(names[row])]
    if len(names) == outputs:
        return names, None
    if len(names) == outputs - 1 and not has_background:
        place = background if background in ("first", "last") else None
        if place is None and background is None and outputs == IMAGENET_WITH_BACKGROUND:
            place = "first"
        if place is not None:
            row = 0 if place == "first" else outputs - 1
            fitted = [BACKGROUND, *names] if place == "first" else [*names, BACKGROUND]
            return fitted, f"{len(names)} labels for {outputs} outputs: row {row} is taken as background"
    if len(names) == outputs + 1 and len(has_background) == 1:
        fitted = names[1:] if has_background == ["first"] else names[:-1]
        return fitted, f"{len(names)} labels for {outputs} outputs: the label '{BACKGROUND}' is dropped"
    raise LabelsError(
        f"the labels do not fit the model: {len(names)} names for {outputs} outputs",
        hint="give the label file that belongs to this model with --labels",
    )


def is_background(name: str) -> bool:
    """Whether a label names the background row."""
    return name.strip().casefold() == BACKGROUND


def _decode(data: bytes, name: str) -> str:
    encoding = "utf-8"
    for mark, candidate in _BOMS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], candidate
            break
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise LabelsError(f"{name} is not UTF-8 text (line {line})", hint="save it as UTF-8, one name a line") from None
    what = text_content(text[:512].encode())
    if what == LFS_POINTER:
        raise LabelsError(f"{name} is {what}", hint="run `git lfs pull`")
    if what is not None and what.startswith(("an HTML", "an XML")):
        raise LabelsError(f"{name} is {what}, not a label file")
    odd = _NOT_TEXT.search(text)
    if odd:
        line = text[: odd.start()].count("\n") + 1
        raise LabelsError(f"{name} is not a text file (byte 0x{ord(odd.group()):02x} in line {line})")
    return text


def _without_indices(lines: list[str]) -> list[str]:
    matches = [_INDEXED.fullmatch(line) for line in lines]
    numbered = {int(match.group(1)): match.group(2) for match in matches if match}
    # A list of names that merely begin with digits ("7 up") is kept: its numbers do not run from 0 without a gap.
    if len(numbered) == len(lines) and min(numbered) == 0 and max(numbered) == len(lines) - 1:
        return [numbered[row] for row in range(len(lines))]
    return [line.strip() for line in lines]
