"""YAML as people mean it: every value with its line, nothing converted behind their back.

Plain words become null, true/false, decimal numbers or text, as in YAML 1.2's core schema. What YAML 1.1 and 1.2 read
differently (`on`, `no`, `010`, `1:30`, `1_000`), or what no setting means (`.nan`, `.inf`, `0x1f`), is kept as text
with an explanation, for the schema to refuse. Tags, anchors, duplicate keys and second documents are refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Optional, Union

import yaml

from edge_mnv2.errors import ProfileError

_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 20


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


def read_yaml(path: Path) -> Mapping:
    """Read one mapping from a file. Raises ProfileError that names file, line and what is wrong."""
    return parse_yaml(_text(path), str(path))


def parse_yaml(text: str, name: str) -> Mapping:
    """As `read_yaml`, from text; `name` stands for the file in errors."""
    for number, line in enumerate(text.split("\n"), 1):
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent and line.strip():
            raise ProfileError(f"{name}:{number}: a tab in the indentation", hint="YAML indents with spaces only")
    loader: Optional[_Loader] = None
    try:
        # The reader looks for unprintable characters as soon as it has the text.
        loader = _Loader(text)
        root = loader.get_single_node()
    except _Refused as error:
        raise ProfileError(f"{name}:{error.line}: {error.problem}", hint=error.hint) from None
    except yaml.MarkedYAMLError as error:
        raise ProfileError(f"{name}:{_line(error)}: not YAML: {_problem(error)}") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()
    node = _Reader(name).node(root) if root is not None else None
    if node is None or (isinstance(node, Scalar) and node.missing):
        raise ProfileError(f"{name}: the file is empty", hint="a profile has at least one key, such as extends: base")
    if not isinstance(node, Mapping):
        kind = "a list" if isinstance(node, Items) else f"the single value {shown(node.text)}"
        raise ProfileError(f"{name}:{node.line}: {kind} where a profile's keys belong", hint="write key: value lines")
    return node


def shown(text: object) -> str:
    """A value as an error shows it: in quotes, on one line, not too long."""
    words = " ".join(str(text).split())
    printable = "".join(c if c.isprintable() else "?" for c in words)
    return f"'{printable if len(printable) <= 60 else printable[:57] + '...'}'"


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise ProfileError(f"{path} is a folder", hint="name the profile's YAML file")
        if path.exists() and not path.is_file():
            raise ProfileError(f"{path} is not a regular file")
        with path.open("rb") as handle:
            data = handle.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or error}") from error
    if len(data) > _MAX_BYTES:
        raise ProfileError(f"{path}: larger than {_MAX_BYTES // 1024} kB, so not a profile")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ProfileError(f"{path}:1: UTF-16 text", hint="save the file as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8 (Latin-1?)", hint="save the file as UTF-8"
        ) from None
    for number, line_text in enumerate(text.split("\n"), 1):
        for character in line_text:
            if ord(character) < 32 and character not in "\t\r":
                raise ProfileError(f"{path}:{number}: a control character (0x{ord(character):02x}), so not a text file")
    return text


class _Refused(Exception):
    def __init__(self, line: int, problem: str, hint: Optional[str] = None) -> None:
        super().__init__(problem)
        self.line, self.problem, self.hint = line, problem, hint


class _Loader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer):
    """PyYAML's scanner, parser and composer without its resolver: every scalar stays text."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        self._depth = 0

    def dispose(self) -> None:
        self.states = []
        self.state = None

    def get_single_node(self) -> Optional[yaml.Node]:
        self.get_event()
        document = None
        if not self.check_event(yaml.StreamEndEvent):
            document = self.compose_document()
        if not self.check_event(yaml.StreamEndEvent):
            event = self.get_event()
            raise _Refused(event.start_mark.line + 1, "a second document begins here", "one profile a file")
        return document

    def compose_node(self, parent: Optional[yaml.Node], index: Any) -> Optional[yaml.Node]:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(line, f"an alias (*{event.anchor})", "profiles share settings by extends, not by anchors")
        if getattr(event, "anchor", None):
            raise _Refused(line, f"an anchor (&{event.anchor})", "profiles share settings by extends, not by anchors")
        if getattr(event, "tag", None):
            raise _Refused(line, f"a tag ({event.tag})", "profiles hold plain values")
        if self._depth >= _MAX_DEPTH:
            raise _Refused(line, "nested too deeply for a profile")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    # The composer asks a resolver; here nothing is resolved.
    def descend_resolver(self, current: object, index: object) -> None:
        pass

    def ascend_resolver(self) -> None:
        pass

    def resolve(self, kind: type, value: object, implicit: object) -> str:
        return "tag:yaml.org,2002:str"


class _Reader:
    """Composed nodes to ours, with duplicate keys refused."""

    def __init__(self, name: str) -> None:
        self._name = name

    def node(self, node: yaml.Node) -> Node:
        line = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return Mapping(line, self._entries(node))
        if isinstance(node, yaml.SequenceNode):
            return Items(line, tuple(self.node(item) for item in node.value))
        assert isinstance(node, yaml.ScalarNode)
        return _scalar(node.value, line, quoted=node.style is not None)

    def _entries(self, node: yaml.MappingNode) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(line, "a list or a mapping as a key")
            if key.value == "<<" and key.style is None:
                self._refuse(line, "a merge key (<<)", "profiles share settings by extends")
            if key.value in entries:
                first = entries[key.value]
                self._refuse(line, f"duplicate key {shown(key.value)}", f"line {first.line} has it already: keep one")
            entries[key.value] = Entry(line, self.node(value))
        return entries

    def _refuse(self, line: int, problem: str, hint: Optional[str] = None) -> NoReturn:
        raise ProfileError(f"{self._name}:{line}: {problem}", hint=hint)


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


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or error.context or "").strip()
    if "\\t" in problem:
        return "a tab where only spaces may stand"
    if "could not find expected ':'" in problem or "mapping values are not allowed" in problem:
        return f"{problem} (a colon too many or too few, or a wrong indentation, here or above)"
    return problem
