"""Rows that installed packages add to our tables, found without `importlib.metadata`.

An entry point names a row of the table that its group stands for:

    [project.entry-points."edge_mnv2.outputs"]
    conveyor = "my_package:OUTPUT"

Every start of `run` asks for them: each package's `entry_points.txt` is looked at once, and only one that names a group
of ours is read. `importlib.metadata` would cost a tenth of a start.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

Row = TypeVar("Row")
_OURS = b"edge_mnv2."


def offered(group: str) -> dict[str, str]:
    """Name → "module:attribute" of every entry point in `group`. The first on `sys.path` counts."""
    return _groups(tuple(sys.path)).get(group, {})


def rows_of_packages(group: str, kind: type[Row]) -> tuple[tuple[str, Row], ...]:
    """(name, row) of every entry point in `group` that names a `kind`.

    A package that cannot be used is said once and left out: it must not end every run.
    """
    return _rows(tuple(offered(group).items()), kind)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=8)
def _rows(points: tuple[tuple[str, str], ...], kind: type[Row]) -> tuple[tuple[str, Row], ...]:
    rows = []
    for name, target in points:
        try:
            # What the package prints would stand between results.
            with contextlib.redirect_stdout(sys.stderr):
                row = load(target)
            if not isinstance(row, kind):
                raise TypeError(f"{target} is no {kind.__name__}")
        except Exception as error:
            log.warning("%s of an installed package is left out: %s: %s", name, type(error).__name__, error)
        else:
            rows.append((name, row))
    return tuple(rows)


def load(target: str) -> Any:
    """What "module:attribute" names. Raises whatever the package raises."""
    module, _, attribute = target.partition(":")
    value: Any = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        value = getattr(value, part)
    return value


@functools.lru_cache(maxsize=4)
def _groups(path: tuple[str, ...]) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    for folder in path:
        try:
            with os.scandir(folder or ".") as entries:
                packages = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for package in sorted(packages):
            try:
                data = Path(package, "entry_points.txt").read_bytes()
            except OSError:
                continue
            if _OURS in data:
                _read(data.decode("utf-8", "replace"), groups)
    return groups


def _read(text: str, groups: dict[str, dict[str, str]]) -> None:
    """The INI form of the entry points specification: sections, `name = module:attribute [extras]`, comments."""
    group = ""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            group = line.strip("[] ")
        elif "=" in line and group:
            name, _, target = line.partition("=")
            groups.setdefault(group, {}).setdefault(name.strip(), target.partition("[")[0].strip())
