"""`--sink NAME=ARGUMENT`: an output of another package, without options of its own (with them: a row, `table.GROUP`).

An entry point of the group `edge_mnv2.sinks` names a callable that takes one text (what follows `NAME=`, None without)
and returns a `Sink`:

    [project.entry-points."edge_mnv2.sinks"]
    conveyor = "my_package:ConveyorSink"
"""

from __future__ import annotations

from typing import Any

from edge_mnv2.entry_points import load, offered
from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.outputs.sink import Sink
from edge_mnv2.outputs.table import OutputValues

GROUP = "edge_mnv2.sinks"


def open_output(values: OutputValues, _live: Any) -> list[Sink]:
    return [open_sink(text) for text in values["sink"]]


def open_sink(text: str) -> Sink:
    """The sink for `NAME` or `NAME=ARGUMENT`. Raises UsageError where it is not there or cannot be made."""
    name, equals, argument = text.partition("=")
    known = offered(GROUP)
    if name not in known:
        names = ", ".join(sorted(known)) or "none is installed"
        raise UsageError(f"--sink {name}: no package offers it ({names})", hint=f"see the entry point group {GROUP}")
    try:
        sink: Sink = load(known[name])(argument if equals else None)
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
