"""The state of a run in one file: a killed run continues from it, bit for bit."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Optional

import torch

from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.train.training_request import TrainRequest
from edge_mnv2.zoo.sidecar import write_files

NAME = "checkpoint.pt"
VERSION = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists and dictionaries of them) to `path`, whole or not at all.

    Raises UsageError where it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_files([(path, buffer.getvalue())])


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote. Nothing in the file is executed. Raises ModelError where it is damaged or another's."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # A damaged file raises nearly anything in the unpickler.
        raise ModelError(f"{path} is damaged or no checkpoint", hint="delete it to begin anew") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ModelError(f"{path} is no checkpoint of this version", hint="delete it to begin anew")
    return state


def random_state() -> dict[str, Any]:
    """The state of PyTorch's random numbers, on every device."""
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: dict[str, Any]) -> None:
    """Go on with the random numbers of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def earlier_run(
    request: TrainRequest, chosen: Collection[str], say: Callable[[str], None]
) -> tuple[Optional[dict[str, Any]], TrainRequest]:
    """The checkpoint to go on from, and the request with what the earlier run was asked for.

    A field in `chosen` that differs from the earlier run's, or a folder that holds a run without --resume, raises
    UsageError.
    """
    path = request.out / NAME
    if not path.is_file():
        if request.resume:
            say(f"{request.out} holds no checkpoint yet: beginning anew")
        return None, request
    if not request.resume:
        raise UsageError(f"{request.out} holds a run already", hint="--resume goes on with it, or name another --out")
    state = load(path)
    asked = state["request"]
    for name, value in request.decisive().items():
        if name in chosen and name in asked and value != asked[name]:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} {value}: the run in {request.out} began with {_shown(asked[name])}",
                hint="leave the option out, or name another --out",
            )
    changes: dict[str, Any] = {name: value for name, value in asked.items() if hasattr(request, name)}
    if "threads" not in chosen:
        # Sums are rounded differently where they are cut into other pieces.
        changes["threads"] = state["threads"]
    return state, dataclasses.replace(request, **changes)


def _shown(value: Any) -> str:
    return "its default" if value is None else str(Path(value) if isinstance(value, Path) else value)
