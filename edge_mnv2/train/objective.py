"""What is made small: the loss against the truth, and with a teacher the distance to the teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import torch
from torch.nn import functional

from edge_mnv2.train.losses import Loss


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a regression's training values."""

    mean: float = 0.0
    spread: float = 1.0


@dataclass(frozen=True)
class Objective:
    """`loss` of outputs and truth, for values in units of `scale`'s spread; `raw` keeps the values as they are.

    With a teacher's logits: teacher_share * distillation + (1 - teacher_share) * loss.
    """

    loss: Loss
    scale: Scale = Scale()
    raw: bool = False
    temperature: float = 1.0
    teacher_share: float = 0.0

    def __call__(
        self, outputs: torch.Tensor, truth: torch.Tensor, teacher: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        if truth.dtype.is_floating_point and not self.raw:
            outputs = (outputs - self.scale.mean) / self.scale.spread
            truth = (truth - self.scale.mean) / self.scale.spread
            if teacher is not None:
                teacher = (teacher - self.scale.mean) / self.scale.spread
        plain = self.loss(outputs, truth)
        if teacher is None or not self.teacher_share:
            return plain
        if truth.dtype.is_floating_point:
            taught = functional.mse_loss(outputs, teacher)
        else:
            taught = distillation(outputs, teacher, self.temperature)
        return self.teacher_share * taught + (1.0 - self.teacher_share) * plain


def distillation(outputs: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """temperature^2 * KL(teacher || student), both softened (Hinton, Vinyals and Dean 2015, section 2).

    The square keeps the gradient's size when the temperature changes. Logits (batch, classes).
    """
    wanted = functional.log_softmax(teacher / temperature, dim=1)
    found = functional.log_softmax(outputs / temperature, dim=1)
    return temperature**2 * functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
