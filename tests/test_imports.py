"""Imports point downwards only, between files and between rooms: read from the source, lazy and type-checking ones too.

`python -m tests.test_imports` lists every arrow between rooms.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "edge_mnv2"

FLOORS = (
    (
        "errors",
        "installed",
        "version",
        "paths",
        "files",
        "strict_yaml",
        "addresses",
        "certificates",
        "messages",
        "signals",
        "html_report",
        "svg_chart",
    ),
    ("settings", "board", "network", "tflite"),
    ("zoo", "datasets", "camera", "runtime", "builder", "inspect"),
    ("pipeline",),
    ("outputs", "evaluate", "teach", "train"),
    ("app",),
    ("profiler", "service", "doctor"),
    ("cli",),
    # What is made for the outside: the public API, `python -m edge_mnv2`, and names that scripts of users know.
    ("api", "loop", "__init__", "__main__"),
)
"""The rooms (folders and single files of the package), lowest floor first."""

STRANGERS = {("builder", "inspect"), ("inspect", "builder"), ("board", "settings")}
"""Rooms of one floor where the first never imports the second."""

EXCEPTIONS: frozenset[tuple[str, str]] = frozenset()
"""Arrows between files that still point upwards. This list only ever shrinks."""

Arrows = Mapping[str, Iterable[str]]


def modules(package: Path) -> dict[str, Path]:
    """Every module below `package` by its dotted name; a package's `__init__` by the package's own name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)] = path
    return found


def arrows(package: Path) -> dict[str, set[str]]:
    """Module → the modules of the same package that it imports, wherever in the file the import stands."""
    known = modules(package)
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names if alias.name in known}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: relative imports are not used here"
                module = node.module or ""
                for alias in node.names:
                    inside = f"{module}.{alias.name}"
                    targets |= {one for one in (inside if inside in known else module,) if one in known}
        found[name] = targets - {name}
    return found


def room(module: str) -> str:
    """The folder, or the single file, of the package that `module` belongs to."""
    return module.split(".")[1]


def upward(found: Arrows) -> set[tuple[str, str]]:
    """Arrows between files that do not point to a lower floor, or that join rooms that shall not know each other."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    wrong = set()
    for source, targets in found.items():
        for target in targets:
            pair = room(source), room(target)
            if pair[0] != pair[1] and (floor[pair[1]] > floor[pair[0]] or pair in STRANGERS):
                wrong.add((source, target))
    return wrong


def circles(found: Arrows) -> list[list[str]]:
    """Groups of names that reach each other (strongly connected components of more than one, Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in found.get(name, ()):
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            group = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                groups.append(sorted(group))

    for name in found:
        if name not in order:
            visit(name)
    return groups


def between_rooms(found: Arrows) -> dict[str, set[str]]:
    """The same arrows, room by room."""
    rooms: dict[str, set[str]] = {}
    for source, targets in found.items():
        rooms.setdefault(room(source), set()).update(room(target) for target in targets if room(target) != room(source))
    return rooms


def test_every_room_has_a_floor() -> None:
    floors = {name for names in FLOORS for name in names}
    assert {room(name) for name in modules(ROOT / PACKAGE)} <= floors


def test_imports_point_downwards() -> None:
    wrong = upward(arrows(ROOT / PACKAGE))
    assert wrong - EXCEPTIONS == set()
    assert EXCEPTIONS - wrong == set(), "mended: take these out of EXCEPTIONS"


def test_no_circle_between_files() -> None:
    assert circles(arrows(ROOT / PACKAGE)) == []


def test_no_circle_between_rooms() -> None:
    assert circles(between_rooms(arrows(ROOT / PACKAGE))) == []


if __name__ == "__main__":
    for name, targets in sorted(between_rooms(arrows(ROOT / PACKAGE)).items()):
        print(name, "->", ", ".join(sorted(targets)))
