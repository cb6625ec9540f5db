"""How good a network is on the pictures that were kept: one pass without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Optional

import torch

from edge_mnv2.train.module import normalized
from edge_mnv2.train.objective import Objective
from edge_mnv2.train.pictures import Batch

Forward = Callable[[torch.Tensor], torch.Tensor]
Teach = Callable[[Batch, torch.device], torch.Tensor]
"""A teacher's outputs for a batch, on the device."""


@dataclass(frozen=True)
class Measures:
    """`top1`, `top5` are shares of `pictures` (None for a regression), `rmse`, `mae` in the value's unit (None for
    classes). `loss` is the objective's, with a teacher where one was asked."""

    pictures: int
    loss: float
    top1: Optional[float] = None
    top5: Optional[float] = None
    rmse: Optional[float] = None
    mae: Optional[float] = None

    def better_than(self, other: Optional[Measures], by_loss: bool = False) -> bool:
        """Whether these are the better measures; the loss decides between equal shares. NaN is never better."""
        mine = self._rank(by_loss)
        if any(value != value for value in mine):
            return False
        return other is None or mine < other._rank(by_loss)

    def _rank(self, by_loss: bool) -> tuple[float, ...]:
        if self.top1 is not None:
            return (self.loss,) if by_loss else (-self.top1, self.loss)
        return (self.loss if by_loss or self.rmse is None else self.rmse,)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None and name != "pictures"}


def validate(
    forward: Forward,
    batches: Iterable[Batch],
    objective: Objective,
    device: torch.device,
    on_failure: Callable[[str, str], None],
    teach: Optional[Teach] = None,
) -> Measures:
    """Measures of `forward` over `batches`; with `teach` the loss is the distance to the teacher too."""
    count, loss, first, five, square, absolute = 0, 0.0, 0, 0, 0.0, 0.0
    classes = True
    with torch.inference_mode():
        for batch in batches:
            for name, reason in batch.failures:
                on_failure(name, reason)
            if not len(batch):
                continue
            outputs = forward(normalized(batch.pixels.to(device)))
            truth = batch.truth.to(device)
            size = len(truth)
            loss += float(objective(outputs, truth, teach(batch, device) if teach is not None else None)) * size
            count += size
            classes = not truth.dtype.is_floating_point
            if classes:
                best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices == truth[:, None]
                first += int(best[:, 0].sum())
                five += int(best.any(1).sum())
            else:
                square += float((outputs - truth).square().sum())
                absolute += float((outputs - truth).abs().sum())
    if not count:
        return Measures(0, float("nan"))
    if classes:
        return Measures(count, loss / count, first / count, five / count)
    return Measures(count, loss / count, rmse=(square / count) ** 0.5, mae=absolute / count)
