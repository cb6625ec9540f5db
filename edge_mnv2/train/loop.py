"""The training loop: steps, epochs, validation, the best network, early end, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Optional, Protocol

import torch
from torch.utils.data import DataLoader

from edge_mnv2.errors import SourceError, TrainingError
from edge_mnv2.train.course import Course, Failures, Position
from edge_mnv2.train.memory import is_out_of_memory, out_of_memory
from edge_mnv2.train.module import normalized
from edge_mnv2.train.optimizers import current_rate, set_rate
from edge_mnv2.train.pictures import Batch, Order
from edge_mnv2.train.schedule import rate_at
from edge_mnv2.train.validation import Measures, validate


class Watcher(Protocol):
    """Who is told how a run goes on."""

    def step(self, course: Course, at: Position, steps: int, seconds_left: Optional[float]) -> None: ...

    def epoch(self, entry: dict[str, Any], course: Course, seconds_left: float) -> None: ...


class Loop:
    """Runs courses on one device. `save` writes a checkpoint of everything, `stopped` says whether to end early."""

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
        save: Callable[[Course, Position], None],
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

    def run(self, course: Course, at: Position) -> str:
        """From `at` to the end of `course`; why it ended: "epochs", "patience" or "signal".

        Raises TrainingError where the loss is no finite number, or memory runs out.
        """
        self._began, self._done = time.monotonic(), 0
        if course.by_loss and at.best is None and at.epoch == at.step == 0:
            # What it begins with counts too: the end is never further from the teacher.
            at.best, at.best_epoch = self._measured(course), 0
            course.keep_best()
        while at.epoch < course.epochs:
            if self._patience and at.stale >= self._patience:
                return "patience"
            began = time.monotonic()
            if not self._epoch(course, at):
                return "signal"
            self._end_epoch(course, at, time.monotonic() - began)
        return "epochs"

    def _epoch(self, course: Course, at: Position) -> bool:
        """The rest of the epoch that `at` is in; False where somebody asked to stop."""
        order = self._order
        order.epoch, order.start = at.epoch, at.step
        steps = order.batches()
        course.train_mode(True)
        for batch in self._train:
            self._note(batch)
            number = at.epoch * steps + at.step
            set_rate(course.optimizer, rate_at(self._schedule, course.rate, number, course.epochs * steps))
            # Fewer than two pictures have no statistics to normalize by.
            if len(batch) > 1:
                at.loss_sum += self._step(course, batch, at) * len(batch)
                at.seen += len(batch)
            at.step += 1
            self._done += 1
            self._watcher.step(course, at, steps, self._left(course, at))
            if self._stopped():
                self._save(course, at)
                return False
            if at.step % self._every == 0 and at.step < steps:
                self._save(course, at)
        if not at.seen:
            raise SourceError("none of the training pictures can be read")
        return True

    def _end_epoch(self, course: Course, at: Position, seconds: float) -> None:
        measures = self._measured(course)
        if not math.isfinite(measures.loss):
            raise self._diverged(course, at, "the validation loss")
        best = measures.better_than(at.best, course.by_loss)
        entry = {
            "course": course.name,
            "epoch": at.epoch + 1,
            "learning_rate": current_rate(course.optimizer),
            "train_loss": at.loss_sum / at.seen,
            "validation": measures.as_dict(),
            "best": best,
            "seconds": round(seconds, 3),
        }
        if best:
            at.best, at.best_epoch, at.stale = measures, at.epoch + 1, 0
            course.keep_best()
        else:
            at.stale += 1
        at.epoch, at.step, at.loss_sum, at.seen = at.epoch + 1, 0, 0.0, 0
        self._record(entry)
        self._save(course, at)
        self._watcher.epoch(entry, course, self._left(course, at) or 0.0)

    def _measured(self, course: Course) -> Measures:
        course.train_mode(False)
        teach = course.teach if course.by_loss else None
        measures = validate(course.forward, self._validation, course.objective, self._device, self._failures.add, teach)
        if not measures.pictures:
            raise SourceError("none of the validation pictures can be read")
        return measures

    def _step(self, course: Course, batch: Batch, at: Position) -> float:
        try:
            return self._forward_and_back(course, batch, at)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            size = len(batch)
        course.optimizer.zero_grad(set_to_none=True)
        raise out_of_memory(size, lambda pictures: self._attempt(course, batch, pictures))

    def _forward_and_back(self, course: Course, batch: Batch, at: Position) -> float:
        course.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._loss(course, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(course, at, "the loss")
        self.scaler.scale(loss).backward()
        self.scaler.step(course.optimizer)
        self.scaler.update()
        return value

    def _attempt(self, course: Course, batch: Batch, pictures: int) -> None:
        teacher = None if batch.teacher is None else batch.teacher[:pictures]
        with self._autocast():
            self._loss(course, Batch(batch.pixels[:pictures], batch.truth[:pictures], teacher, ())).backward()
        course.optimizer.zero_grad(set_to_none=True)

    def _loss(self, course: Course, batch: Batch) -> torch.Tensor:
        outputs = course.forward(normalized(batch.pixels.to(self._device, non_blocking=True)))
        taught = course.teach(batch, self._device) if course.teach is not None else None
        return course.objective(outputs.float(), batch.truth.to(self._device), taught)

    def _autocast(self) -> AbstractContextManager:
        # Half precision is slower than float32 on most CPUs, and coarser everywhere.
        return nullcontext() if self._half is None else torch.autocast("cuda", dtype=self._half)

    def _diverged(self, course: Course, at: Position, what: str) -> TrainingError:
        rate = current_rate(course.optimizer)
        if at.epoch == 0 and at.step == 0:
            cause = "it is the very first step: look at the values in labels.csv and at the weights"
        else:
            cause = f"the learning rate {course.rate:g} is likely too high, try --learning-rate {course.rate / 10:g}"
        kept = (
            "no epoch was finished" if at.best_epoch is None else f"the best network, of epoch {at.best_epoch}, is kept"
        )
        return TrainingError(
            f"{what} is no finite number any more in epoch {at.epoch + 1}, step {at.step + 1} "
            f"(rate {rate:.3g}); {kept}",
            hint=cause,
        )

    def _left(self, course: Course, at: Position) -> Optional[float]:
        if not self._done:
            return None
        steps = (course.epochs - at.epoch) * self._order.batches() - at.step
        return (time.monotonic() - self._began) / self._done * steps

    def _note(self, batch: Batch) -> None:
        for name, reason in batch.failures:
            self._failures.add(name, reason)
