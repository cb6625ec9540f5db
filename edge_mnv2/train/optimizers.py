"""Optimizers by name, all PyTorch's own, with the learning rate that each starts from; and how that rate changes.

A schedule is a function of the step alone, so that a resumed run needs no state of a scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from edge_mnv2.errors import UsageError

_RATES = {"sgd": 0.1, "momentum": 0.05, "adagrad": 0.01, "rmsprop": 0.001, "adam": 0.002}
"""Rates for batches of about 32 with weights from scratch."""

OPTIMIZERS = tuple(_RATES)

FINE_TUNING = 0.25
"""Trained weights are moved more gently."""

MOMENTUM = 0.9

SCHEDULES = ("cosine", "step", "constant")

_WARMUP = 0.05
_DROPS, _DROP = (0.5, 0.8), 0.1


def check_optimizer(name: str) -> None:
    """Raises UsageError for an unknown name."""
    if name not in _RATES:
        raise UsageError(f"--optimizer {name}", hint=f"one of {', '.join(OPTIMIZERS)}")


def default_rate(name: str, *, trained: bool) -> float:
    """The learning rate of an optimizer; lower if the weights are `trained` before."""
    return _RATES[name] * (FINE_TUNING if trained else 1.0)


def parameter_groups(module: nn.Module, decay: float, name: str, spread: float = 1.0) -> list[dict[str, Any]]:
    """What is trained: kernels, which decay; biases and normalizations, which do not; the classifier.

    `spread` is the standard deviation of what the classifier answers. Its rate follows (`relative`), so that a value in
    millimetres is learned as one in metres is: in proportion for optimizers that divide by the gradient's size, else
    with the square, because the gradient shrinks too. Where it is not 1 the classifier does not decay.
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    last = [parameter for name, parameter in trained.items() if name.startswith("classifier.")]
    rest = [parameter for name, parameter in trained.items() if not name.startswith("classifier.")]
    if spread == 1.0:
        rest, last = [*rest, *last], []
    groups = [
        {"params": [one for one in rest if one.ndim > 1], "weight_decay": decay, "relative": 1.0},
        {"params": [one for one in rest if one.ndim <= 1], "weight_decay": 0.0, "relative": 1.0},
        {"params": last, "weight_decay": 0.0, "relative": spread**2 if name in ("sgd", "momentum") else spread},
    ]
    return [group for group in groups if group["params"]]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step have this learning rate, in each group's own proportion."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("relative", 1.0)


def current_rate(optimizer: torch.optim.Optimizer) -> float:
    """What `set_rate` set last."""
    group = optimizer.param_groups[0]
    rate: float = group["lr"] / group.get("relative", 1.0)
    return rate


def make_optimizer(name: str, parameters: Iterable[Any], rate: float) -> torch.optim.Optimizer:
    """PyTorch's optimizer for tensors or groups of them.

    "momentum" is the heavy ball (Polyak 1964) with 0.9; "adam" takes weight decay apart from the gradient (Loshchilov
    and Hutter 2019), which is plain Adam (Kingma and Ba 2015) where nothing decays.
    """
    check_optimizer(name)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=rate)
    if name == "momentum":
        return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM)
    if name == "adagrad":
        return torch.optim.Adagrad(parameters, lr=rate)
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)


def check_schedule(name: str) -> None:
    """Raises UsageError for an unknown name."""
    if name not in SCHEDULES:
        raise UsageError(f"--schedule {name}", hint=f"one of {', '.join(SCHEDULES)}")


def rate_at(name: str, peak: float, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    The first twentieth of every schedule rises linearly. "cosine" then falls along half a cosine to 0 (Loshchilov and
    Hutter 2017); "step" falls to a tenth after half and again after four fifths; "constant" stays.
    """
    warmup = max(1, int(steps * _WARMUP))
    if step < warmup:
        return peak * (step + 1) / warmup
    if name == "constant":
        return peak
    if name == "step":
        return peak * _DROP ** sum(step >= share * steps for share in _DROPS)
    done = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
