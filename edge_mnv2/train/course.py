"""One part of a run: training in floating point, or the quantization-aware part that may follow it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

import torch

from edge_mnv2.train.objective import Objective
from edge_mnv2.train.validation import Forward, Measures, Teach


@dataclass
class Course:
    """How to train for `epochs`. `forward` maps normalized pictures to outputs, in training and in validation;
    `train_mode` switches between the two. `teach` gives a teacher's outputs for a batch on the device, or is None.

    The best epoch is that of the best accuracy or error, or with `by_loss` of the least distance to the teacher.

    `state` and `load_state` are what the course keeps besides the network and the optimizer.
    """

    name: str
    epochs: int
    rate: float
    optimizer: torch.optim.Optimizer
    forward: Forward
    train_mode: Callable[[bool], object]
    objective: Objective
    teach: Optional[Teach] = None
    by_loss: bool = False
    state: Callable[[], dict[str, Any]] = dict
    load_state: Callable[[dict[str, Any]], None] = lambda state: None
    keep_best: Callable[[], None] = lambda: None


@dataclass
class Position:
    """Where a course is: `step` counts within `epoch`. The sums are those of the running epoch."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    stale: int = 0
    best: Optional[Measures] = None
    best_epoch: Optional[int] = None

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "best": vars(self.best) if self.best is not None else None}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Position:
        best = state["best"]
        return cls(**{**state, "best": Measures(**best) if best is not None else None})


@dataclass
class Failures:
    """Pictures that could not be read, each named once."""

    say: Callable[[str], None]
    found: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        if name not in self.found:
            self.found[name] = reason
            self.say(f"left out: {reason}")
