"""Whether the output folder holds a run already, and whether this call may go on with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.train import checkpoint
from edge_mnv2.train.request import TrainRequest


def earlier_run(
    request: TrainRequest, given: Collection[str], say: Callable[[str], None]
) -> tuple[Optional[dict[str, Any]], TrainRequest]:
    """The checkpoint to go on from, and the request with what the earlier run was asked for.

    A field in `given` that differs from the earlier run's, or a folder that holds a run without --resume, raises
    UsageError.
    """
    path = request.out / checkpoint.NAME
    if not path.is_file():
        if request.resume:
            say(f"{request.out} holds no checkpoint yet: beginning anew")
        return None, request
    if not request.resume:
        raise UsageError(f"{request.out} holds a run already", hint="--resume goes on with it, or name another --out")
    state = checkpoint.load(path)
    asked = state["request"]
    for name, value in request.decisive().items():
        if name in given and name in asked and value != asked[name]:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} {value}: the run in {request.out} began with {_shown(asked[name])}",
                hint="leave the option out, or name another --out",
            )
    changes: dict[str, Any] = {name: value for name, value in asked.items() if hasattr(request, name)}
    if "threads" not in given:
        # Sums are rounded differently where they are cut into other pieces.
        changes["threads"] = state["threads"]
    return state, dataclasses.replace(request, **changes)


def _shown(value: Any) -> str:
    return "its default" if value is None else str(Path(value) if isinstance(value, Path) else value)
