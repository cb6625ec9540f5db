"""A runtime for `.colours` files: each line is the colour (red green blue) of a class, and the nearest one wins.

It stands for the SDK of your accelerator: load a file in `open_model`, run it in `invoke`. To edge-mnv2 it is one of
its own: labels, smoothing, decisions, outputs, the page, `profile`, `doctor`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.table import Runtime, TensorSpec

SIDE = 32


class Nearest:
    """The Protocol is `edge_mnv2.runtime.table.AnyInterpreter`. One thread at a time."""

    engine = "cpu"  # where it ran: shown with each result
    delegate = "none"
    runtime = "nearest 1.0"

    def __init__(self, colours: np.ndarray, threads: int) -> None:
        self.threads = threads
        self._colours = colours
        # Pixels go in as they are; real numbers come out, which are made probabilities.
        self.inputs = [TensorSpec("image", 0, (1, SIDE, SIDE, 3), np.dtype(np.uint8), 0.0, 0)]
        self.outputs = [TensorSpec("logits", 0, (1, len(colours)), np.dtype(np.float32), 0.0, 0)]

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        self._picture = values.copy()

    def invoke(self) -> None:
        mean = self._picture.reshape(-1, 3).mean(0)
        self._answer = (-np.linalg.norm(self._colours - mean, axis=1) / 20)[None].astype(np.float32)

    def output(self, position: int = 0) -> np.ndarray:
        return self._answer

    def close(self) -> None:
        """Put the device down here."""


def open_model(
    row: Runtime,
    path: Union[Path, str],
    *,
    threads: int = 1,
    accelerate: bool = True,
    input_size: Optional[tuple[int, int]] = None,
) -> Any:
    """As `edge_mnv2.runtime.table.Runtime.open` says. A file that is wrong is a ModelError, which people read."""
    try:
        colours = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ModelError(
            f"{path} is no list of colours: {error}", hint="a line for each class: RED GREEN BLUE"
        ) from None
    if colours.shape[1] != 3:
        raise ModelError(f"{path} has {colours.shape[1]} numbers a line", hint="a line for each class: RED GREEN BLUE")
    return Nearest(colours, threads)


def about(row: Runtime) -> str:
    """A line for `edge-mnv2 doctor`."""
    return "nearest 1.0, for .colours files"
