"""The training loop: steps, epochs, validation, the best network, early end, checkpoints."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol

import torch
from torch.utils.data import DataLoader

from edge_mnv2.errors import SourceError, TrainingError
from edge_mnv2.train.batches import Batch, Order
from edge_mnv2.train.module import normalized
from edge_mnv2.train.objective import Forward, Measures, Objective, Sums, Teach, validate
from edge_mnv2.train.optimizers import current_rate, rate_at, set_rate


@dataclass
class TrainingPhase:
    """One part of a run: training in floating point, or the quantization-aware part that may follow it.

    `forward` maps normalized pictures to outputs, in training and in validation; `train_mode` switches between the two.
    `teach` gives a teacher's outputs for a batch on the device, or is None. The best epoch has the best accuracy or
    error, or with `by_loss` the least distance to the teacher. `usual_rate` is the optimizer's learning rate.

    `state` and `load_state`: what the phase adds to a checkpoint besides the network and the optimizer.
    """

    name: str
    epochs: int
    rate: float
    optimizer: torch.optim.Optimizer
    forward: Forward
    train_mode: Callable[[bool], object]
    objective: Objective
    usual_rate: float
    teach: Optional[Teach] = None
    by_loss: bool = False
    state: Callable[[], dict[str, Any]] = dict
    load_state: Callable[[dict[str, Any]], None] = lambda _: None
    save_best: Callable[[], None] = lambda: None


@dataclass
class Position:
    """The progress of a phase: `step` counts within `epoch`; `sums` are those of the running epoch."""

    epoch: int = 0
    step: int = 0
    sums: Sums = field(default_factory=Sums)
    stale: int = 0
    best: Optional[Measures] = None
    best_epoch: Optional[int] = None

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "sums": vars(self.sums), "best": vars(self.best) if self.best is not None else None}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Position:
        """Also from checkpoints that hold only the mean of the batches' losses."""
        state, best = dict(state), state["best"]
        loss, pictures = state.pop("loss_sum", 0.0), state.pop("seen", 0)
        sums = Sums(**state.pop("sums")) if "sums" in state else Sums(loss, float(pictures), 0.0, pictures)
        return cls(**{**state, "sums": sums, "best": Measures(**best) if best is not None else None})


@dataclass
class Failures:
    """Pictures that could not be read, each named once."""

    say: Callable[[str], None]
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        if name not in self.reasons:
            self.reasons[name] = reason
            self.say(f"left out: {reason}")


class Watcher(Protocol):
    """Follows the progress of a run."""

    def step(self, phase: TrainingPhase, at: Position, steps: int, seconds_left: Optional[float]) -> None: ...

    def epoch(self, entry: dict[str, Any], phase: TrainingPhase, seconds_left: float) -> None: ...


class Loop:
    """Runs phases on one device. `save` writes a checkpoint of everything, `stopped` says whether to end early."""

    def __init__(
        self,
        device: torch.device,
        train: DataLoader,
        validation: DataLoader,
        *,
        schedule: str,
        patience: int,
        checkpoint_every: int,
        failures: Failures,
        watcher: Watcher,
        save: Callable[[TrainingPhase, Position], None],
        record: Callable[[dict[str, Any]], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._device = device
        self._train, self._validation = train, validation
        order = train.batch_sampler
        assert isinstance(order, Order)
        self._order = order
        self._schedule, self._patience, self._every = schedule, patience, checkpoint_every
        self._failures, self._watcher = failures, watcher
        self._save, self._record, self._stopped = save, record, stopped
        half = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16
        self._half = half if device.type == "cuda" else None
        self.scaler = torch.amp.GradScaler("cuda", enabled=self._half == torch.float16)
        self._began, self._done = 0.0, 0

    def run(self, phase: TrainingPhase, at: Position) -> str:
        """From `at` to the end of `phase`; why it ended: "epochs", "patience" or "signal".

        Raises TrainingError if the loss is not finite, or memory runs out.
        """
        self._began, self._done = time.monotonic(), 0
        if phase.by_loss and at.best is None and at.epoch == at.step == 0:
            # The start counts too: the end is never further from the teacher.
            at.best, at.best_epoch = self._measured(phase), 0
            phase.save_best()
        while at.epoch < phase.epochs:
            if self._patience and at.stale >= self._patience:
                return "patience"
            began = time.monotonic()
            if not self._epoch(phase, at):
                return "signal"
            self._end_epoch(phase, at, time.monotonic() - began)
        return "epochs"

    def _epoch(self, phase: TrainingPhase, at: Position) -> bool:
        """The rest of the epoch that `at` is in; False after a request to stop."""
        order = self._order
        order.epoch, order.start = at.epoch, at.step
        steps = order.batches()
        phase.train_mode(True)
        for batch in self._train:
            for name, reason in batch.failures:
                self._failures.add(name, reason)
            number = at.epoch * steps + at.step
            set_rate(phase.optimizer, rate_at(self._schedule, phase.rate, number, phase.epochs * steps))
            # Fewer than two pictures have no statistics to normalize by.
            if len(batch) > 1:
                self._step(phase, batch, at)
            at.step += 1
            self._done += 1
            self._watcher.step(phase, at, steps, self._left(phase, at))
            if self._stopped():
                self._save(phase, at)
                return False
            if at.step % self._every == 0 and at.step < steps:
                self._save(phase, at)
        if not at.sums.pictures:
            raise SourceError("none of the training pictures can be read")
        return True

    def _end_epoch(self, phase: TrainingPhase, at: Position, seconds: float) -> None:
        measures = self._measured(phase)
        if not math.isfinite(measures.loss):
            raise self._diverged(phase, at, "the validation loss")
        best = measures.better_than(at.best, phase.by_loss)
        entry = {
            "course": phase.name,
            "epoch": at.epoch + 1,
            "learning_rate": current_rate(phase.optimizer),
            "train_loss": phase.objective.over(at.sums),
            "validation": measures.as_dict(),
            "best": best,
            "seconds": round(seconds, 3),
        }
        if best:
            at.best, at.best_epoch, at.stale = measures, at.epoch + 1, 0
            phase.save_best()
        else:
            at.stale += 1
        at.epoch, at.step, at.sums = at.epoch + 1, 0, Sums()
        self._record(entry)
        self._save(phase, at)
        self._watcher.epoch(entry, phase, self._left(phase, at) or 0.0)

    def _measured(self, phase: TrainingPhase) -> Measures:
        phase.train_mode(False)
        teach = phase.teach if phase.by_loss else None
        measures = validate(phase.forward, self._validation, phase.objective, self._device, self._failures.add, teach)
        if not measures.pictures:
            raise SourceError("none of the validation pictures can be read")
        return measures

    def _step(self, phase: TrainingPhase, batch: Batch, at: Position) -> None:
        try:
            self._forward_and_back(phase, batch, at)
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            size = len(batch)
        phase.optimizer.zero_grad(set_to_none=True)
        raise out_of_memory(size, lambda pictures: self._attempt(phase, batch, pictures))

    def _forward_and_back(self, phase: TrainingPhase, batch: Batch, at: Position) -> None:
        phase.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            plain, taught = self._parts(phase, batch)
            loss = phase.objective.combined(plain, taught)
        if not math.isfinite(float(loss.detach())):
            raise self._diverged(phase, at, "the loss")
        self.scaler.scale(loss).backward()
        self.scaler.step(phase.optimizer)
        self.scaler.update()
        distance = float(taught.detach()) if taught is not None else None
        phase.objective.add(at.sums, float(plain.detach()), distance, batch.truth.to(self._device))

    def _attempt(self, phase: TrainingPhase, batch: Batch, pictures: int) -> None:
        teacher = None if batch.teacher is None else batch.teacher[:pictures]
        with self._autocast():
            part = Batch(batch.pixels[:pictures], batch.truth[:pictures], teacher, ())
            phase.objective.combined(*self._parts(phase, part)).backward()
        phase.optimizer.zero_grad(set_to_none=True)

    def _parts(self, phase: TrainingPhase, batch: Batch) -> tuple[torch.Tensor, Optional[torch.Tensor]]:
        outputs = phase.forward(normalized(batch.pixels.to(self._device, non_blocking=True)))
        taught = phase.teach(batch, self._device) if phase.teach is not None else None
        return phase.objective.parts(outputs.float(), batch.truth.to(self._device), taught)

    def _autocast(self) -> AbstractContextManager:
        # Half precision is slower than float32 on most CPUs, and coarser everywhere.
        return nullcontext() if self._half is None else torch.autocast("cuda", dtype=self._half)

    def _diverged(self, phase: TrainingPhase, at: Position, figure: str) -> TrainingError:
        rate = current_rate(phase.optimizer)
        if at.epoch == 0 and at.step == 0:
            hint = "this is the first step: check the values in labels.csv and the weights"
        else:
            # A tenth of a rate that is far too high is far too high as well.
            hint = f"the learning rate {phase.rate:g} is too high, try --learning-rate {lower_rate(phase):g}"
        best = (
            "no epoch was finished" if at.best_epoch is None else f"the best network is that of epoch {at.best_epoch}"
        )
        return TrainingError(
            f"{figure} is not finite any more in epoch {at.epoch + 1}, step {at.step + 1} (rate {rate:.3g}); {best}",
            hint=hint,
        )

    def _left(self, phase: TrainingPhase, at: Position) -> Optional[float]:
        if not self._done:
            return None
        steps = (phase.epochs - at.epoch) * self._order.batches() - at.step
        return (time.monotonic() - self._began) / self._done * steps


def lower_rate(phase: TrainingPhase) -> float:
    """A learning rate to try after `phase` diverged: a tenth of its own, and not above the optimizer's usual one."""
    return min(phase.rate / 10, phase.usual_rate)


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
