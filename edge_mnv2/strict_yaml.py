"""YAML as people mean it, for every file of ours: profiles, sidecars, registries.

Plain words become null, true/false, decimal numbers or text, as in YAML 1.2's core schema. What YAML 1.1 and 1.2 read
differently (`on`, `no`, `010`, `1:30`, `1_000`), or what no setting means (`.nan`, `.inf`, `0x1f`), is kept as text
with an explanation, for the schema to refuse. Tags, anchors, aliases, merge keys, duplicate keys and second documents
are refused here, from the parser's events: nothing is expanded first, so no small file can become a large one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Optional, Union

import yaml

from edge_mnv2.errors import EdgeMnv2Error, ProfileError
from edge_mnv2.messages import shown, steering

PROFILE_BYTES = 64 * 1024
REGISTRY_BYTES = 1024 * 1024
_MAX_DEPTH = 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_TAB_AFTER_KEY = re.compile(r"\s*[\w.-]+: *\t")


@dataclass(frozen=True)
class Scalar:
    """One value: `text` as it stands in the file, `value` what it means, `trap` why it is ambiguous (or None)."""

    line: int
    text: str
    value: Union[bool, int, float, str, None]
    quoted: bool
    trap: Optional[str] = None

    @property
    def missing(self) -> bool:
        """Whether nothing at all stands after the key."""
        return not self.quoted and not self.text


@dataclass(frozen=True)
class Items:
    line: int
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Mapping:
    line: int
    entries: dict[str, Entry]


@dataclass(frozen=True)
class Entry:
    """A key's line and what stands behind it."""

    line: int
    node: Node


Node = Union[Scalar, Items, Mapping]


def read_yaml(path: Path, error: type[EdgeMnv2Error] = ProfileError, *, limit: int = PROFILE_BYTES) -> Optional[Node]:
    """The document in a regular file of at most `limit` bytes; None where it is empty.

    Raises `error`, which names the file, the line and what is wrong.
    """
    try:
        folder, strange = path.is_dir(), path.exists() and not path.is_file()
        if not folder and not strange:
            with path.open("rb") as handle:
                data = handle.read(limit + 1)
    except (OSError, ValueError) as problem:
        raise error(f"{path}: {getattr(problem, 'strerror', None) or problem}") from problem
    if folder or strange:
        raise error(f"{path} is {'a folder' if folder else 'not a regular file'}", hint="name a YAML file")
    return parse_yaml(data, str(path), error, limit=limit)


def parse_yaml(
    data: Union[bytes, str], name: str, error: type[EdgeMnv2Error] = ProfileError, *, limit: int = PROFILE_BYTES
) -> Optional[Node]:
    """As `read_yaml`, from bytes or text; `name` stands for the file in errors."""
    text = _decoded(data, name, error, limit) if isinstance(data, bytes) else data
    for number, line in enumerate(text.split("\n"), 1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent and line.strip():
            raise error(f"{name}:{number}: a tab in the indentation", hint="YAML indents with spaces only")
        if _TAB_AFTER_KEY.match(line):
            # One parser takes it, the other does not.
            raise error(f"{name}:{number}: a tab where only spaces may stand")
        if control := _CONTROL.search(line):
            raise error(f"{name}:{number}: a control character (0x{ord(control[0]):02x}): this is not a text file")
    try:
        # The parser in C, where PyYAML has it, is ten times as fast.
        return _Reader(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), name, error).document()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        raise error(f"{name}:{mark.line + 1 if mark else 1}: not YAML: {_problem(problem)}") from None
    except yaml.YAMLError as problem:
        raise error(f"{name}: not YAML: {str(problem).splitlines()[0]}") from None


def _decoded(data: bytes, name: str, error: type[EdgeMnv2Error], limit: int) -> str:
    if len(data) > limit:
        raise error(f"{name}: larger than {limit // 1024} kB: this is not a settings file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line, kind = data.count(b"\n", 0, problem.start) + 1, "UTF-16" if data[:2] in _UTF16 else "Latin-1"
        text = f"{name}:{line}: byte 0x{data[problem.start]:02x} is not UTF-8 ({kind}?)"
        raise error(text, hint="save the file as UTF-8") from None


class _Reader:
    """The parser's events as nodes."""

    def __init__(self, events: Iterator[Any], name: str, error: type[EdgeMnv2Error]) -> None:
        self._events = events
        self._name = name
        self._error = error

    def document(self) -> Optional[Node]:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        node = self._node(next(self._events), 0)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._refuse(event, "a second document begins here", "one document a file")
        return None if isinstance(node, Scalar) and node.missing else node

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"an alias (*{event.anchor})", "write the value out")
        if event.anchor:
            self._refuse(event, f"an anchor (&{event.anchor})", "write the value out at each place")
        if event.tag:
            self._refuse(event, f"a tag ({event.tag})", "write a plain value")
        if isinstance(event, yaml.ScalarEvent):
            if (sign := steering(event.value)) is not None:
                self._refuse(event, f"the sign {sign} in a text: it would steer the terminal that shows it")
            return _scalar(event.value, line, quoted=event.style not in (None, ""))
        if depth >= _MAX_DEPTH:
            self._refuse(event, "nested too deeply")
        if isinstance(event, yaml.SequenceStartEvent):
            nodes = []
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                nodes.append(self._node(event, depth + 1))
            return Items(line, tuple(nodes))
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, at = self._node(event, depth + 1), event.start_mark.line + 1
            if not isinstance(key, Scalar):
                self._refuse(event, "a list or a mapping as a key")
            if key.text == "<<" and not key.quoted:
                self._refuse(event, "a merge key (<<)", "write the keys out")
            if key.text in entries:
                first = entries[key.text].line
                self._refuse(event, f"duplicate key {shown(key.text)}", f"line {first} has it already: keep one")
            entries[key.text] = Entry(at, self._node(next(self._events), depth + 1))
        return Mapping(line, entries)

    def _refuse(self, event: Any, problem: str, hint: Optional[str] = None) -> NoReturn:
        raise self._error(f"{self._name}:{event.start_mark.line + 1}: {problem}", hint=hint)


_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_TRAPS = (
    (
        re.compile(r"on|off|yes|no|y|n", re.IGNORECASE),
        "on, off, yes and no are words here, true and false in older YAML: write true or false, or quote the word",
    ),
    (re.compile(r"[-+]?0[0-9_]+(\.[0-9_]*)?"), "a leading zero makes a number octal in older YAML: leave it out"),
    (re.compile(r"[-+]?0[oO][0-7_]+"), "an octal number: write it as a decimal number"),
    (re.compile(r"[-+]?0[xXbB][0-9a-fA-F_]+"), "not a decimal number: write it as one"),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"),
        "older YAML reads a:b as a number to base 60: write a decimal number, or quote it if text is meant",
    ),
    (re.compile(r"[-+]?[0-9]*_[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?"), "write the number without underscores"),
    (re.compile(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"), "a number beyond what any setting can have"),
    (re.compile(r"[-+]?\.?(nan|inf|infinity)", re.IGNORECASE), "not a number that a setting can have"),
)


def _scalar(text: str, line: int, *, quoted: bool) -> Scalar:
    if quoted:
        return Scalar(line, text, text, quoted=True)
    if text in ("", "~", "null", "Null", "NULL"):
        return Scalar(line, text, None, quoted=False)
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return Scalar(line, text, text.lower() == "true", quoted=False)
    # Python itself refuses numbers of thousands of digits; no setting has twenty.
    if len(text) <= 20 and _DECIMAL.fullmatch(text):
        return Scalar(line, text, int(text), quoted=False)
    if len(text) <= 40 and _FLOAT.fullmatch(text) and abs(float(text)) < 1e300:
        return Scalar(line, text, float(text), quoted=False)
    for pattern, why in _TRAPS:
        if pattern.fullmatch(text):
            return Scalar(line, text, text, quoted=False, trap=why)
    return Scalar(line, text, text, quoted=False)


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or error.context or "").strip()
    if "nesting depth" in problem:
        return "nested too deeply"
    if "\\t" in problem:
        return "a tab where only spaces may stand"
    if "could not find expected ':'" in problem or "mapping values are not allowed" in problem:
        return f"{problem} (a colon too many or too few, or a wrong indentation, here or above)"
    return problem


class Table(dict[str, Any]):
    """A mapping as plain values; `lines` has the line of each key."""

    lines: dict[str, int]


def read_plain(path: Path, error: type[EdgeMnv2Error]) -> Any:
    """The document in a file as plain Python values (`Table` for mappings), None where it is empty. Raises `error`."""
    return _plain(read_yaml(path, error, limit=REGISTRY_BYTES), str(path), error)


def parse_plain(data: bytes, name: str, error: type[EdgeMnv2Error]) -> Any:
    """As `read_plain`, from bytes; `name` stands for the file in errors."""
    return _plain(parse_yaml(data, name, error, limit=REGISTRY_BYTES), name, error)


def _plain(node: Optional[Node], name: str, error: type[EdgeMnv2Error]) -> Any:
    if isinstance(node, Mapping):
        table = Table({key: _plain(entry.node, name, error) for key, entry in node.entries.items()})
        table.lines = {key: entry.line for key, entry in node.entries.items()}
        return table
    if isinstance(node, Items):
        return [_plain(item, name, error) for item in node.nodes]
    if node is not None and node.trap is not None:
        raise error(f"{name}:{node.line}: {shown(node.text)}: {node.trap}")
    return None if node is None else node.value


class Fields:
    """One mapping, taken key by key; `end` complains about what nobody took.

    Each reader returns None for a key that is not there, and raises `error` naming `place` and the key for a value of
    another type.
    """

    def __init__(self, values: Any, place: str, error: type[EdgeMnv2Error]) -> None:
        if not isinstance(values, dict):
            raise error(f"{place} is not a mapping of keys to values")
        self._values = dict(values)
        self._lines: dict[str, int] = getattr(values, "lines", {})
        self._known: list[str] = []
        self.place = place
        self.error = error

    def _take(self, key: str) -> Any:
        self._known.append(key)
        return self._values.pop(key, None)

    def wrong(self, key: str, expected: str) -> EdgeMnv2Error:
        """The error for `key`, for checks of the caller's own."""
        return self.error(f"{self.place}: '{key}' must be {expected}{self._line(key)}")

    def _line(self, key: str) -> str:
        return f" (line {self._lines[key]})" if key in self._lines else ""

    def missing(self, key: str) -> EdgeMnv2Error:
        return self.error(f"{self.place}: '{key}' is missing")

    def text(self, key: str, choices: Optional[Sequence[str]] = None) -> Optional[str]:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "text (put it in quotes)")
        if choices is not None and value not in choices:
            raise self.wrong(key, f"one of {', '.join(choices)}, not '{value}'")
        return value

    def required_text(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise self.missing(key)
        return value

    def integer(self, key: str, least: int = 0) -> Optional[int]:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(key, f"a whole number of at least {least}")
        return value

    def _of(self, key: str, kind: type, expected: str) -> Any:
        value = self._take(key)
        if value is not None and not isinstance(value, kind):
            raise self.wrong(key, expected)
        return value

    def flag(self, key: str) -> bool:
        """A boolean; False without the key."""
        return bool(self._of(key, bool, "true or false"))

    def numbers(self, key: str, count: int) -> Optional[tuple[float, ...]]:
        """`count` numbers; one number stands for all of them."""
        value = self._take(key)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value] * count
        fine = all(isinstance(n, (int, float)) and not isinstance(n, bool) and abs(n) < 1e30 for n in values)
        if len(values) != count or not fine:
            raise self.wrong(key, f"a number, or a list of {count}")
        return tuple(float(n) for n in values)

    def sequence(self, key: str) -> Optional[list[Any]]:
        items: Optional[list[Any]] = self._of(key, list, "a list")
        return items

    def mapping(self, key: str) -> Optional[dict[str, Any]]:
        table: Optional[dict[str, Any]] = self._of(key, dict, "a mapping")
        return table

    def text_or_names(self, key: str) -> Union[str, tuple[str, ...], None]:
        """A file's name, or a list of names written in place."""
        value = self._take(key)
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        if isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value):
            return tuple(name.strip() for name in value)
        raise self.wrong(key, "a file's name or a list of names (quote numbers, and words such as yes and no)")

    def end(self) -> None:
        """Raises `error` for the first key that is not part of the schema."""
        for key in self._values:
            raise self.error(
                f"{self.place}: unknown key '{key}'{self._line(key)}", hint=f"known: {', '.join(self._known)}"
            )
