"""Whether a batch fits into memory, and which one would."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Optional

import torch

from edge_mnv2.errors import TrainingError, UsageError
from edge_mnv2.network.layers import Convolution, elements
from edge_mnv2.network.network import Network

_KEPT = 3
"""Activations that a convolution, its normalization and its activation function keep for the way back."""

_FLOAT = 4
_RESERVE = 0.85


def picture_bytes(network: Network) -> int:
    """About the bytes that one picture of a batch takes in a training step."""
    values = sum(
        elements(layer.output) * (_KEPT if isinstance(layer, Convolution) else 1) for layer in network.layers()
    )
    return values * _FLOAT


def check_batch(network: Network, batch: int, available: Optional[int]) -> None:
    """Raises UsageError where `batch` needs more than `available` bytes; None: not known.

    Without this a machine would swap, or end the process without a word.
    """
    if available is None:
        return
    each = picture_bytes(network)
    fits = int(available * _RESERVE) // each
    if batch > max(2, fits):
        raise UsageError(
            f"--batch {batch} at {network.input[0]} pixels needs about {batch * each / 2**30:.1f} GB, "
            f"{available / 2**30:.1f} GB are free",
            hint=f"--batch {max(2, fits)} would fit",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a training step means that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("not enough memory" in text or "can't allocate memory" in text)


def out_of_memory(batch: int, attempt: Callable[[int], None]) -> TrainingError:
    """The error to raise when a step of `batch` pictures ran out of memory.

    `attempt(pictures)` runs a step that changes nothing; half, a quarter and so on are tried until one fits.
    """
    size = batch // 2
    while size >= 2:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            attempt(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
        else:
            return TrainingError(f"a batch of {batch} does not fit into memory", hint=f"--batch {size} fits")
    return TrainingError(
        f"a batch of {batch} does not fit into memory, nor does one of 2", hint="lower --resolution or --width"
    )
