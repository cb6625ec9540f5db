"""Packages beside this one: extras that only some outputs need, and sinks that another package offers.

A sink of another package is an entry point in the group `edge_mnv2.sinks`. It names a callable that takes one text
(what follows `NAME=` on the command line, None without) and returns a `Sink`:

    [project.entry-points."edge_mnv2.sinks"]
    conveyor = "my_package:ConveyorSink"
"""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from types import ModuleType
from typing import Any

from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.installed import extra_hint
from edge_mnv2.outputs.sink import Sink

GROUP = "edge_mnv2.sinks"


def installed() -> dict[str, metadata.EntryPoint]:
    """Every sink that an installed package offers, by name."""
    points: Any = metadata.entry_points()
    if sys.version_info >= (3, 10):
        return {point.name: point for point in points.select(group=GROUP)}
    return {point.name: point for point in points.get(GROUP, ())}


def open_sink(text: str) -> Sink:
    """The sink for `NAME` or `NAME=ARGUMENT`. Raises UsageError where it is not there or cannot be made."""
    name, equals, argument = text.partition("=")
    known = installed()
    if name not in known:
        offered = ", ".join(sorted(known)) or "none is installed"
        raise UsageError(f"--sink {name}: no package offers it ({offered})", hint=f"see the entry point group {GROUP}")
    try:
        sink: Sink = known[name].load()(argument if equals else None)
    except EdgeMnv2Error:
        raise
    except Exception as error:
        raise UsageError(f"--sink {name}: {type(error).__name__}: {error}") from error
    for method in ("write", "close"):
        if not callable(getattr(sink, method, None)):
            raise UsageError(f"--sink {name}: what it makes has no method {method}")
    if not getattr(sink, "name", None):
        sink.name = name
    return sink


def need(module: str, extra: str, option: str) -> ModuleType:
    """Import `module`, which `option` needs and the extra `extra` brings. Raises UsageError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = getattr(error, "name", None) or module
        raise UsageError(
            f"{option} needs the package {missing}",
            hint=extra_hint(extra),
        ) from None
