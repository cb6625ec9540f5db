"""Optimizers by name, all PyTorch's own, with the learning rate that each starts from."""

from __future__ import annotations

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


def check_optimizer(name: str) -> None:
    """Raises UsageError for an unknown name."""
    if name not in _RATES:
        raise UsageError(f"--optimizer {name}", hint=f"one of {', '.join(OPTIMIZERS)}")


def default_rate(name: str, *, trained: bool) -> float:
    """The learning rate where none is asked for; `trained` says that the weights are not from scratch."""
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
