"""Losses by name: PyTorch's own where it has one, in the form (outputs, truth) → scalar.

Classification: `outputs` are logits (batch, classes), `truth` int64 (batch,). `mse` and `rmse` compare probabilities
with one-hot answers (Brier 1950). Regression: both are (batch, 1), in units of the training values' standard deviation
except for `mape`, which needs the values themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import torch
from torch.nn import functional

from edge_mnv2.errors import UsageError

LOSSES = ("cross-entropy", "mse", "rmse", "mape")

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_LEAST_SQUARE = 1e-12
_LEAST_VALUE = 1e-6


def rmse(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """sqrt(mean((outputs - truth)^2)); its slope is 0, not infinite, where everything is exact."""
    return functional.mse_loss(outputs, truth).clamp_min(_LEAST_SQUARE).sqrt()


def mape(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean of |outputs - truth| / |truth|, a share; truths closer to 0 than 1e-6 count as 1e-6."""
    return ((outputs - truth).abs() / truth.abs().clamp_min(_LEAST_VALUE)).mean()


def default_loss(task: str) -> str:
    """The loss of a task where none is asked for."""
    return "cross-entropy" if task == "classification" else "mse"


def check_loss(name: str, task: str, smoothing: float = 0.0) -> None:
    """Raises UsageError for an unknown loss and for one that does not fit the task."""
    if name not in LOSSES:
        raise UsageError(f"--loss {name}", hint=f"one of {', '.join(LOSSES)}")
    if name == "cross-entropy" and task == "regression":
        raise UsageError("--loss cross-entropy is for classes", hint="a measured value takes mse, rmse or mape")
    if name == "mape" and task == "classification":
        raise UsageError("--loss mape divides by the truth, which is 0 for most classes", hint="cross-entropy or mse")
    if not 0.0 <= smoothing < 1.0:
        raise UsageError(f"--label-smoothing {smoothing:g}", hint="from 0 to below 1; 0.1 is usual")
    if smoothing and name != "cross-entropy":
        raise UsageError(f"--label-smoothing belongs to cross-entropy, not to {name}")


def make_loss(name: str, task: str, *, class_weights: Optional[torch.Tensor] = None, smoothing: float = 0.0) -> Loss:
    """The loss `name` for `task`; `class_weights` (classes,) weigh each picture by its class."""
    if name == "cross-entropy":
        return lambda outputs, truth: functional.cross_entropy(
            outputs, truth, weight=class_weights, label_smoothing=smoothing
        )
    measures: dict[str, Loss] = {"mse": functional.mse_loss, "rmse": rmse, "mape": mape}
    measure = measures[name]
    if task == "regression":
        return measure

    def of_probabilities(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        answers = functional.one_hot(truth, outputs.shape[1]).to(outputs.dtype)
        shares = outputs.softmax(1)
        if class_weights is not None:
            # The square of the root's multiple is the multiple itself.
            root = class_weights[truth].sqrt()[:, None]
            answers, shares = answers * root, shares * root
        return measure(shares, answers)

    return of_probabilities
