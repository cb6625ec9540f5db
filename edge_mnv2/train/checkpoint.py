"""The state of a run in one file, so that a run which was killed goes on as if nothing had happened."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from edge_mnv2.errors import ModelError
from edge_mnv2.zoo.sidecar import write_all

NAME = "checkpoint.pt"
VERSION = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists and dictionaries of them) to `path`, whole or not at all.

    Raises UsageError where it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_all([(path, buffer.getvalue())])


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
