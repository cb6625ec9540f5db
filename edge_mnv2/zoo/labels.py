"""Label files, and how names meet a model's output rows."""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2.errors import LabelsError
from edge_mnv2.files import LFS_POINTER, text_content
from edge_mnv2.messages import steering
from edge_mnv2.strict_yaml import REGISTRY_BYTES, Items, Mapping, Node, parse_yaml
from edge_mnv2.zoo.synsets import distinct_names, unquoted, without_synsets

log = logging.getLogger(__name__)

BACKGROUND = "background"
IMAGENET_WITH_BACKGROUND = 1001

_MAX_BYTES = 4 << 20
_MAX_NAME = 500
# Not str.splitlines(): that also splits at form feeds and at Unicode's own line separators.
_LINE_END = re.compile(r"\r*\n|\r")
_INDEX_FIRST = re.compile(
    r"[ \t]*(?P<index>\d{1,7})(?:[ \t]*(?:[:,;]|=>?|->|[.)-](?=[ \t]))[ \t]*|[ \t]+)(?P<name>\S.*)"
)
_INDEX_LAST = re.compile(r"[ \t]*(?P<name>\S.*?)[ \t]*[,;\t][ \t]*(?P<index>\d{1,7})[ \t]*")
_NAME_TO_INDEX = ("class_indices", "class_to_idx", "label2id")
_LISTS = ("labels", "classes", "names", "class_names", "id2label", "categories", *_NAME_TO_INDEX)
_NAME_TITLES = ("label", "name", "class", "class_name", "label_name", "display_name", "category")
_INDEX_TITLES = ("index", "id", "class_id", "class_index", "label_id", "category_id", "row", "idx")
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def read_labels(path: Union[Path, str]) -> list[str]:
    """The names in a label file, in the order of the output rows.

    One name a line, UTF-8 (UTF-16 with a byte order mark too). A byte order mark, CRLF, trailing blanks and empty lines
    at the end are dropped. `0 name`, `0:name`, `0,name` and `name,0` lose their index when every line has one and the
    indices are 0..n-1 without a gap; lines are then put into the order of their indices. CSV with titles: its columns
    of names and of indices. JSON, Python's way to write it, or YAML (`.yaml`, as Ultralytics has it): a list of names
    or of objects with `id` and `name`, a map `{name: index}` or `{index: name}`, or one of these under `labels`,
    `classes`, `names` and the like. A folder: the names of the folders in it, in the order of text, as torchvision and
    Keras number them; that order is said. Raises LabelsError naming the file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _folder_names(path)
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


def own_labels(labels: Union[str, Sequence[str]]) -> list[str]:
    """The names in a label file, or those that a program gives itself, one for each output row. Raises LabelsError."""
    if isinstance(labels, str):
        return read_labels(labels)
    if isinstance(labels, bytes) or not isinstance(labels, Sequence) or not labels:
        raise LabelsError(f"labels={labels!r}", hint="a label file, or a list of names, one for each output row")
    for number, one in enumerate(labels, 1):
        if not isinstance(one, str):
            raise LabelsError(f"labels, name {number} is no text: {one!r}")
    return _checked(list(labels), "labels")


def parse_labels(data: bytes, name: str = "labels") -> list[str]:
    """`read_labels` for a file in memory; `name` stands in the errors."""
    text = _decode(data, name)
    lines = [line.rstrip(" \t\f\v\u00a0\u3000\ufeff") for line in _LINE_END.split(text)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise LabelsError(f"{name} has no names in it", hint="one name a line")
    names = None
    if text.lstrip()[:1] in ("[", "{"):
        names = _from_json(text, name)
    elif name.lower().endswith((".yaml", ".yml")) and (names := _numbered(lines)) is None:
        document = _as_written(parse_yaml(text.encode(), name, LabelsError, limit=REGISTRY_BYTES))
        names = _listed(document, name) if isinstance(document, (list, dict)) else None
    if names is not None:
        return _checked(names, name)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise LabelsError(
                f"{name}, line {number} is empty: every name after it would be one row off", hint="name that row"
            )
    return _checked(_without_indices(lines), name)


def labels_text(names: Sequence[str]) -> str:
    """The label file of `names`, with indices only if the names would not be read back as they are ("1 cup", "0 pot"),
    and as JSON if they would not be then (names that begin with WordNet ids).

    Raises LabelsError for names that no label file can hold.
    """
    plain = "\n".join(names) + "\n"
    if _read_back(plain) == list(names):
        return plain
    indexed = "".join(f"{row}:{name}\n" for row, name in enumerate(names))
    for text in (indexed, json.dumps(names) + "\n"):
        if _read_back(text) == list(names):
            return text
    raise LabelsError("it begins or ends with blanks, or has a line break in it")


def _read_back(text: str) -> list[str]:
    return parse_labels(text.encode(errors="surrogateescape"))


def _checked(names: list[str], file: str) -> list[str]:
    for number, one in enumerate(names, 1):
        if len(one) > _MAX_NAME:
            raise LabelsError(f"{file}, name {number} has {len(one)} characters: this is no list of names")
        # Unicode's own line separators are part of a name; the writer for people makes them visible.
        signs = steering(re.sub("[\u2028\u2029]", "", one))
        if not one.strip() or signs is not None or "\n" in one:
            raise LabelsError(f"{file}, name {number} is no name: {one[:40]!r}")
    return names


def _folder_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise LabelsError(f"{folder} is a folder without folders in it, not a label file", hint="one name a line")
    shown = ", ".join(f"{row} {name}" for row, name in enumerate(names[:4]))
    log.info("labels of %s: its folders in the order of text (%s%s)", folder, shown, ", ..." if names[4:] else "")
    return _checked(names, str(folder))


def _from_json(text: str, file: str) -> Optional[list[str]]:
    """The names in a JSON document, or one as Python writes it; None for another text (a name may begin with "[")."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise LabelsError(f"{file} names an index or a class twice")
        return dict(pairs)

    value = None
    with contextlib.suppress(json.JSONDecodeError, RecursionError):
        value = json.loads(text, object_pairs_hook=once)
    if value is None:
        with contextlib.suppress(ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            value = ast.literal_eval(text)
    return _listed(value, file) if isinstance(value, (list, dict)) else None


def _as_written(node: Optional[Node]) -> Any:
    """A YAML document of texts: a name may look like a number, a truth or nothing ("no", 1.0, null)."""
    if isinstance(node, Mapping):
        return {key: _as_written(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Items):
        return [_as_written(item) for item in node.nodes]
    return None if node is None else node.text


def _listed(value: Any, file: str) -> list[str]:
    """The names in a document. Raises LabelsError."""
    places = (0, 1)
    for key in _LISTS:
        if isinstance(value, dict) and isinstance(value.get(key), (list, dict)):
            value, places = value[key], (1, 0) if key in _NAME_TO_INDEX else (0, 1)
            break
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        pairs = [tuple(_first(one, titles) for titles in (_INDEX_TITLES, _NAME_TITLES)) for one in value]
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return [one.strip() for one in value]
    else:
        pairs = list(value.items()) if isinstance(value, dict) else []
    if pairs and (names := _by_index(pairs, places)) is not None:
        return names
    raise LabelsError(
        f"{file} has no list of names, and no names with every index from 0 on",
        hint='["cup", "plate"] or {"cup": 0, "plate": 1}',
    )


def _first(row: dict[str, Any], titles: Sequence[str]) -> Any:
    return next((row[title] for title in titles if title in row), None)


def _by_index(pairs: Sequence[tuple[Any, Any]], places: Sequence[int] = (0, 1)) -> Optional[list[str]]:
    """Names in the order of their indices, which stand first or second in each pair; None where they are incomplete.
    `places`: which of these is tried first."""
    for place in places:
        numbered, synsets = {}, {}
        for pair in pairs:
            index, name = pair[place], pair[1 - place]
            if isinstance(name, list) and name:
                # ImageNet's file has [wnid, name] for a name.
                synsets[str(index).strip()], name = str(name[0]), name[-1]
            if (
                isinstance(name, str)
                and not isinstance(index, bool)
                and re.fullmatch(r"[0-9]{1,7}", str(index).strip())
            ):
                numbered[int(index)] = name.strip()
        if len(numbered) == len(pairs) and min(numbered) == 0 and max(numbered) == len(pairs) - 1:
            names = [numbered[row] for row in range(len(pairs))]
            names = without_synsets(names, is_background)
            return distinct_names(names, [synsets.get(str(row), "") for row in range(len(pairs))])
    return None


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
            said = f"{len(names)} labels for {outputs} outputs: row {row} is taken as background"
            return with_background(names, place), said
    if len(names) == outputs + 1 and len(has_background) == 1:
        fitted = names[1:] if has_background == ["first"] else names[:-1]
        return fitted, f"{len(names)} labels for {outputs} outputs: the label '{BACKGROUND}' is dropped"
    raise LabelsError(
        f"the labels do not fit the model: {len(names)} names for {outputs} outputs",
        hint="give the label file that belongs to this model with --labels",
    )


def with_background(names: Sequence[str], place: Optional[str]) -> list[str]:
    """`names` with that of the background row where `place` says ("first", "last"), if it is not among them."""
    named = any(is_background(name) for name in (*names[:1], *names[-1:]))
    if named or place not in ("first", "last"):
        return list(names)
    return [BACKGROUND, *names] if place == "first" else [*names, BACKGROUND]


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
    if (names := _from_table(lines) or _numbered(lines)) is not None:
        return names
    return without_synsets([line.strip() for line in lines], is_background)


def _numbered(lines: Sequence[str]) -> Optional[list[str]]:
    """The names of lines that all have an index, in its order; None for other lines."""
    # A list of names that merely begin with digits ("7 up") is kept: its numbers do not run from 0 without a gap.
    for form in (_INDEX_FIRST, _INDEX_LAST):
        matches = [form.fullmatch(line) for line in lines]
        # A table may begin with a row of titles: "index,name".
        titles = len(lines) > 2 and matches[0] is None and re.search(r"[,;\t]", lines[0]) is not None
        pairs = [(match["index"], unquoted(match["name"])) for match in matches if match]
        if len(pairs) == len(lines) - titles and (names := _by_index(pairs)) is not None:
            return names
    return None


def _from_table(lines: Sequence[str]) -> Optional[list[str]]:
    """The names in a CSV whose titles tell which column has them; None for other lines."""
    for sign in ",;\t":
        try:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=sign)]
        except csv.Error:
            continue
        titles = {title.lower(): place for place, title in enumerate(rows[0])}
        name, index = _first(titles, _NAME_TITLES), _first(titles, _INDEX_TITLES)
        # "0,label" is the first class, not its title.
        if any(title.isdigit() for title in titles):
            continue
        if name is None or len(titles) < 2 or len(rows) < 2 or {len(row) for row in rows} != {len(titles)}:
            continue
        if index is None:
            return without_synsets([row[name] for row in rows[1:]], is_background)
        if (names := _by_index([(row[index], row[name]) for row in rows[1:]])) is not None:
            return names
    return None
