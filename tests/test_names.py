"""Names are the field's own words: no private language in files, classes, functions, parameters and variables.

`python -m tests.test_names [ROOM...]` lists every name that a person of this field would not know.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "edge_mnv2"

PRIVATE = {
    "found": "what was found: model, path, row, ...",
    "given": "what was given: option, override, value, ...",
    "told": "rejected, reported",
    "kept": "recall (of known classes), held out, saved",
    "foreign": "negatives",
    "kinship": "similarity",
    "nothing": "negatives",
    "course": "training phase",
    "team": "team registry",
    "body": "response, payload, content",
    "pump": "reader thread",
    "where": "place, path, address, location",
    "engine": "classifier; device (cpu, tpu); runtime",
    "engines": "classifiers; runtimes",
}
"""The word, and what the field says instead."""

STANDARD = re.compile(r"not_found|team_registry|NotFound")
"""Terms of the field that contain such a word."""

PUBLIC = {"engine", "engines"}
"""Attributes that scripts of users read: a result's `engine`, as in the log."""


def names(path: Path) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that this file gives a name to."""
    yield 1, path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    name = STANDARD.sub("", name)
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def private_names(room: str) -> list[str]:
    folder = PACKAGE / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {name}"
        for path in files
        for line, name in names(path)
        if words(name) & set(PRIVATE) and name.lstrip("_") not in PUBLIC
    ]


def rooms() -> list[str]:
    return sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})


def test_names_are_words_of_the_field() -> None:
    wrong = {room: listed for room in rooms() if (listed := private_names(room))}
    assert wrong == {}, PRIVATE


if __name__ == "__main__":
    for one in sys.argv[1:] or rooms():
        listed = private_names(one)
        print(f"{one}: {len(listed)}", *listed, sep="\n  ")
