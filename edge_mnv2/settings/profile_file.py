"""One profile as it stands in its file: every key typed, every value with its line, nothing inherited yet."""

from __future__ import annotations

import difflib
import functools
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Optional

from edge_mnv2.errors import ProfileError
from edge_mnv2.messages import shown
from edge_mnv2.settings.kinds import Kind
from edge_mnv2.settings.more_kinds import why_not
from edge_mnv2.settings.schema import HEADERS, KEYS, SECTIONS
from edge_mnv2.strict_yaml import Entry, Items, Node, Scalar, parse_yaml, read_yaml
from edge_mnv2.strict_yaml import Mapping as YamlMapping

_TOP = ("extends", "description", *HEADERS, *SECTIONS)


@dataclass(frozen=True)
class Stated:
    """A value that a file gives, and the line it stands on."""

    value: Any
    line: int


@dataclass(frozen=True)
class ProfileFile:
    """A profile's own keys. `origin` is "packaged", "user" or "file" (named by its path).

    `values` maps dotted names ("runtime.threads", "camera.controls.AfMode") to what the file says; an explicit null
    stands for "back to the default". `match`, `board`, `saved` and `description` describe the profile itself.
    """

    name: str
    path: Path
    origin: str
    extends: Optional[Stated] = None
    description: Optional[str] = None
    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    board: Mapping[str, str] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Stated] = field(default_factory=dict)


def read_profile(path: Path, origin: str = "file") -> ProfileFile:
    """Read and check one file. Raises ProfileError naming file, line, key and value, with the nearest known key."""
    try:
        status = path.stat()
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or error}", hint=_CAMERA if _in_dev(path) else None) from error
    if _in_dev(path) and not stat.S_ISREG(status.st_mode):
        raise ProfileError(f"{path} is not a regular file", hint=_CAMERA)
    return _read(path, origin, status.st_mtime_ns, status.st_size)


_CAMERA = "a camera is named with --camera"


def _in_dev(path: Path) -> bool:
    return path.parts[:2] == ("/", "dev")


@functools.lru_cache(maxsize=64)
def _read(path: Path, origin: str, _changed_ns: int, _size: int) -> ProfileFile:
    """Every profile extends `base`, and on a small board a file takes tens of milliseconds: read each once."""
    return _FileReader(path).read(read_yaml(path), origin)


def parse_profile(text: str, path: Path, origin: str = "file") -> ProfileFile:
    """As `read_profile`, for text that is to stand in `path`."""
    return _FileReader(path).read(parse_yaml(text, str(path)), origin)


class _FileReader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, root: Optional[Node], origin: str) -> ProfileFile:
        if root is None:
            raise ProfileError(
                f"{self._path}: the file is empty", hint="a profile has at least one key, such as extends: base"
            )
        if not isinstance(root, YamlMapping):
            kind = "a list" if isinstance(root, Items) else f"the single value {shown(root.text)}"
            self._fail(root.line, f"{kind} where a profile's keys belong", "write key: value lines")
        values: dict[str, Stated] = {}
        headers: dict[str, dict[str, Any]] = {name: {} for name in HEADERS}
        extends = description = None
        for name, entry in root.entries.items():
            if name in SECTIONS:
                self._section(name, entry, values)
            elif name in HEADERS:
                headers[name] = self._header(name, entry)
            elif name == "extends":
                extends = Stated(self._text("extends", entry), entry.line)
            elif name == "description":
                description = self._text("description", entry)
            else:
                self._unknown(name, None, entry, _TOP)
        return ProfileFile(
            name=self._path.stem,
            path=self._path,
            origin=origin,
            extends=extends,
            description=description,
            match=headers["match"],
            board=headers["board"],
            saved=headers["saved"],
            values=values,
        )

    def _section(self, section: str, entry: Entry, values: dict[str, Stated]) -> None:
        known = [name.partition(".")[2] for name in KEYS if name.startswith(f"{section}.")]
        for name, item in self._entries(section, entry).items():
            dotted = f"{section}.{name}"
            if name not in known:
                self._unknown(name, section, item, known)
            if dotted == "camera.controls":
                for control, setting in self._entries(dotted, item).items():
                    value = self._value(f"{dotted}.{control}", KEYS[dotted].kind, setting, nullable=True)
                    values[f"{dotted}.{control}"] = Stated(value, setting.line)
            else:
                # An explicit null takes an inherited value back, where the default is "nothing" too.
                nullable = KEYS[dotted].default is None
                values[dotted] = Stated(self._value(dotted, KEYS[dotted].kind, item, nullable=nullable), item.line)

    def _header(self, section: str, entry: Entry) -> dict[str, Any]:
        values: dict[str, Any] = {}
        kinds = HEADERS[section]
        for name, item in self._entries(section, entry).items():
            dotted = f"{section}.{name}"
            if name not in kinds:
                self._unknown(name, section, item, kinds)
            kind = kinds[name]
            values[name] = self._value(dotted, kind, item) if kind is not None else self._free(dotted, item)
        return values

    def _free(self, dotted: str, entry: Entry) -> dict[str, Any]:
        """A table of plain values under names of the writer's choice."""
        values: dict[str, Any] = {}
        for name, item in self._entries(dotted, entry).items():
            if not isinstance(item.node, Scalar):
                self._fail(item.line, f"{dotted}.{name}: a list or a mapping where one value belongs")
            if item.node.trap:
                self._fail(item.line, f"{dotted}.{name}: {shown(item.node.text)}", item.node.trap)
            values[name] = item.node.value
        return values

    def _entries(self, dotted: str, entry: Entry) -> dict[str, Entry]:
        """The keys below a section. A section without any is refused: its keys may have lost their indentation."""
        node = entry.node
        if isinstance(node, YamlMapping) and node.entries:
            return node.entries
        if isinstance(node, Scalar) and not node.missing and node.value is not None:
            self._fail(entry.line, f"{dotted}: the single value {shown(node.text)} where keys belong")
        if isinstance(node, Items):
            self._fail(entry.line, f"{dotted}: a list where keys belong", "write key: value lines, indented")
        self._fail(entry.line, f"{dotted} has no keys", "indent the keys that belong to it, or remove the line")

    def _value(self, dotted: str, kind: Kind, entry: Entry, *, nullable: bool = False) -> Any:
        node = entry.node
        if isinstance(node, Scalar):
            if node.missing:
                self._fail(entry.line, f"{dotted} has no value", f"give it {kind.expects}, or remove the line")
            if node.trap:
                self._fail(entry.line, f"{dotted}: {shown(node.text)} is not {kind.expects}", node.trap)
            if node.value is None and nullable:
                return None
        raw = self._plain(dotted, node)
        try:
            return kind.accept(raw)
        except ValueError:
            text = node.text if isinstance(node, Scalar) else raw
            self._fail(entry.line, f"{dotted}: {shown(text)} is not {kind.expects}", why_not(kind, raw))

    def _plain(self, dotted: str, node: Node) -> Any:
        if isinstance(node, Scalar):
            return node.value
        if isinstance(node, YamlMapping):
            self._fail(node.line, f"{dotted}: keys where a value belongs")
        values = []
        for item in node.nodes:
            if not isinstance(item, Scalar):
                self._fail(item.line, f"{dotted}: a list or a mapping inside a list")
            if item.trap:
                self._fail(item.line, f"{dotted}: {shown(item.text)}", item.trap)
            values.append(item.value)
        return values

    def _text(self, dotted: str, entry: Entry) -> str:
        node = entry.node
        if not isinstance(node, Scalar):
            self._fail(entry.line, f"{dotted}: a list or a mapping where one text belongs")
        if node.missing:
            self._fail(entry.line, f"{dotted} has no value", "give it a text, or remove the line")
        if node.trap or not isinstance(node.value, str) or not node.value.strip():
            self._fail(entry.line, f"{dotted}: {shown(node.text)} is not a text", node.trap or "put it in quotes")
        return node.value

    def _unknown(self, name: str, section: Optional[str], entry: Entry, known: Iterable[str]) -> NoReturn:
        place = f" in {section}" if section else ""
        node = entry.node
        value = f" (value {shown(node.text)})" if isinstance(node, Scalar) and node.text else ""
        self._fail(entry.line, f"unknown key {shown(name)}{place}{value}", nearest_key(name, section, known))

    def _fail(self, line: int, problem: str, hint: Optional[str] = None) -> NoReturn:
        raise ProfileError(f"{self._path}:{line}: {problem}", hint=hint)


def nearest_key(name: str, section: Optional[str], known: Iterable[str]) -> str:
    """What was probably meant by an unknown key, as a hint."""
    known = list(known)
    elsewhere = [dotted for dotted in KEYS if dotted.partition(".")[2] == name]
    if elsewhere:
        return f"did you mean {elsewhere[0]} (indented below {elsewhere[0].partition('.')[0]}:)?"
    if "." in name and name in KEYS:
        parent, _, child = name.partition(".")
        return f"write {child} on its own line, indented below {parent}:"
    if section and name in _TOP:
        return f"{name} stands at the top level, not below {section}"
    for candidates in (known, [dotted.partition(".")[2] for dotted in KEYS], list(KEYS)):
        close = difflib.get_close_matches(name.lower(), candidates, n=1, cutoff=0.6)
        if close:
            full = [dotted for dotted in KEYS if dotted.partition(".")[2] == close[0]]
            return f"did you mean {close[0] if close[0] in known or not full else full[0]}?"
    return f"known here: {', '.join(known)}"
