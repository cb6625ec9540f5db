"""What training minimizes, and how good a network is on the validation pictures.

Losses by name, PyTorch's own if it has one, in the form (outputs, truth) → scalar. Classification: `outputs` are logits
(batch, classes), `truth` int64 (batch,); `mse` and `rmse` compare probabilities with one-hot answers (Brier 1950).
Regression: both are (batch, 1), in units of the training values' standard deviation except for `mape`, which needs the
values themselves.

A loss over a set is that of all its pictures together, not the mean of its batches: the two differ for a root and for
weighted classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch.nn import functional

from edge_mnv2.errors import UsageError
from edge_mnv2.evaluate.metrics import balanced_recall, macro_f1, regression_errors
from edge_mnv2.train.batches import Batch
from edge_mnv2.train.module import normalized

LOSSES = ("cross-entropy", "mse", "rmse", "mape")

Forward = Callable[[torch.Tensor], torch.Tensor]
Teach = Callable[[Batch, torch.device], torch.Tensor]
"""A teacher's outputs for a batch, on the device."""

_LEAST_SQUARE = 1e-12


def rmse(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """sqrt(mean((outputs - truth)^2)); its slope is 0, not infinite, if everything is exact."""
    return functional.mse_loss(outputs, truth).clamp_min(_LEAST_SQUARE).sqrt()


def mape(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean of |outputs - truth| / |truth| over the truths that are not 0, a share: the definition of `evaluate`."""
    some = truth != 0
    return ((outputs - truth).abs()[some] / truth.abs()[some]).sum() / some.sum().clamp_min(1)


@dataclass(frozen=True)
class Loss:
    """`measure` is a mean over pictures, weighted by `class_weights` (classes,), or with `root` the root of one."""

    measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    class_weights: Optional[torch.Tensor] = None
    root: bool = False
    without_zeros: bool = False

    def __call__(self, outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return self.measure(outputs, truth)

    def weight(self, truth: torch.Tensor) -> float:
        """What a batch counts in the mean over a set."""
        if self.class_weights is not None:
            return float(self.class_weights[truth].sum())
        return float((truth != 0).sum()) if self.without_zeros else float(len(truth))


def default_loss(task: str) -> str:
    """The usual loss of a task."""
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
    """The loss `name` for `task`: with `class_weights` the weighted mean, sum(weight * loss) / sum(weight)."""
    if name == "cross-entropy":
        return Loss(
            lambda outputs, truth: functional.cross_entropy(
                outputs, truth, weight=class_weights, label_smoothing=smoothing
            ),
            class_weights,
        )
    measures: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]
    measures = {"mse": functional.mse_loss, "rmse": rmse, "mape": mape}
    measure = measures[name]
    if task == "regression":
        return Loss(measure, root=name == "rmse", without_zeros=name == "mape")

    def of_probabilities(outputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        answers = functional.one_hot(truth, outputs.shape[1]).to(outputs.dtype)
        shares = outputs.softmax(1)
        if class_weights is not None:
            weights = class_weights[truth]
            # The square of the root's multiple is the multiple itself.
            factor = (weights / weights.mean()).sqrt()[:, None]
            answers, shares = answers * factor, shares * factor
        return measure(shares, answers)

    return Loss(of_probabilities, class_weights, root=name == "rmse")


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of a regression's training values."""

    mean: float = 0.0
    spread: float = 1.0


@dataclass
class Sums:
    """Of the pictures so far: the loss times its weight, the weights, the distance to a teacher, the pictures."""

    loss: float = 0.0
    weight: float = 0.0
    taught: float = 0.0
    pictures: int = 0


@dataclass(frozen=True)
class Objective:
    """`loss` of outputs and truth, for values in units of `scale`'s spread; `raw` leaves the values as they are.

    With a teacher's outputs: teacher_share * distance to them + (1 - teacher_share) * loss.
    """

    loss: Loss
    scale: Scale = Scale()
    raw: bool = False
    temperature: float = 1.0
    teacher_share: float = 0.0

    def __call__(
        self, outputs: torch.Tensor, truth: torch.Tensor, teacher: Optional[torch.Tensor] = None
    ) -> torch.Tensor:
        return self.combined(*self.parts(outputs, truth, teacher))

    def parts(
        self, outputs: torch.Tensor, truth: torch.Tensor, teacher: Optional[torch.Tensor] = None
    ) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        """The loss, and the distance to the teacher's outputs or None."""
        regression = truth.dtype.is_floating_point
        if regression and not self.raw:
            outputs, truth = ((one - self.scale.mean) / self.scale.spread for one in (outputs, truth))
            if teacher is not None:
                teacher = (teacher - self.scale.mean) / self.scale.spread
        plain = self.loss(outputs, truth)
        if teacher is None or not self.teacher_share:
            return plain, None
        taught = (
            functional.mse_loss(outputs, teacher) if regression else distillation(outputs, teacher, self.temperature)
        )
        return plain, taught

    def combined(self, loss: Any, taught: Any) -> Any:
        """The objective of both parts, tensors or numbers."""
        return loss if taught is None else self.teacher_share * taught + (1.0 - self.teacher_share) * loss

    def add(self, sums: Sums, loss: float, taught: Optional[float], truth: torch.Tensor) -> None:
        """Count a batch's parts in `sums`."""
        weight = self.loss.weight(truth)
        sums.loss += (loss**2 if self.loss.root else loss) * weight
        sums.weight += weight
        sums.taught += (taught or 0.0) * len(truth)
        sums.pictures += len(truth)

    def over(self, sums: Sums) -> float:
        """The objective over all pictures of `sums`."""
        loss = sums.loss / sums.weight if sums.weight else 0.0
        taught = sums.taught / sums.pictures if self.teacher_share and sums.pictures else None
        return float(self.combined(loss**0.5 if self.loss.root else loss, taught))


def distillation(outputs: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """temperature^2 * KL(teacher || student), both softened (Hinton, Vinyals and Dean 2015, section 2).

    The square keeps the gradient's size when the temperature changes. Logits (batch, classes).
    """
    wanted = functional.log_softmax(teacher / temperature, dim=1)
    answers = functional.log_softmax(outputs / temperature, dim=1)
    return temperature**2 * functional.kl_div(answers, wanted, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Measures:
    """How good a network is on `pictures`, by the definitions of `evaluate`.

    Shares for classes: `top1`, `top5`, `balanced_top1`, `macro_f1`. For a measured value `rmse` and `mae` in its unit,
    `mape` as a share. None: belongs to the other task. `loss` is the objective's over all pictures, with a teacher too.
    """

    pictures: int
    loss: float
    top1: Optional[float] = None
    top5: Optional[float] = None
    balanced_top1: Optional[float] = None
    macro_f1: Optional[float] = None
    rmse: Optional[float] = None
    mae: Optional[float] = None
    mape: Optional[float] = None

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
    parts: list[tuple[torch.Tensor, ...]] = []
    with torch.inference_mode():
        for batch in batches:
            for name, reason in batch.failures:
                on_failure(name, reason)
            if not len(batch):
                continue
            outputs = forward(normalized(batch.pixels.to(device))).float()
            taught = (teach(batch, device).float(),) if teach is not None else ()
            parts.append((outputs, batch.truth.to(device), *taught))
        if not parts:
            return Measures(0, float("nan"))
        outputs, truth, *others = (torch.cat(tensors) for tensors in zip(*parts))
        loss = float(objective(outputs, truth, *others))
    if truth.dtype.is_floating_point:
        errors = regression_errors(truth[:, 0].tolist(), outputs[:, 0].tolist())
        assert errors is not None
        return Measures(len(truth), loss, rmse=errors.rmse, mae=errors.mae, mape=errors.mape)
    best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices.cpu()
    truth = truth.cpu()
    right = best == truth[:, None]
    predicted = np.asarray(best[:, 0])
    return Measures(
        len(truth),
        loss,
        int(right[:, 0].sum()) / len(truth),
        int(right.any(1).sum()) / len(truth),
        balanced_recall(np.asarray(truth), predicted),
        macro_f1(np.asarray(truth), predicted),
    )
