"""What to train: every choice of the command line in one place, checked before anything heavy begins."""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.installed import extra_hint

SCRATCH = "none"

ACCELERATORS = ("auto", "cpu", "cuda")

FREE = ("folder", "out", "workers", "threads", "accelerator", "checkpoint_every", "resume", "tensorboard")
"""Fields that may change when a run goes on: none of them decides what is computed, threads in the last bits only."""


@dataclass(frozen=True)
class TrainRequest:
    """One training run. None where the data, the weights or a default decide.

    `workers` are processes that decode, none of them on a CPU where None; `threads` all cores where None.

    `weights` is "imagenet", "none" (from scratch) or a file; `learning_rate` is the highest of the schedule;
    `patience` epochs without progress end the run, 0 never; `qat` epochs of quantization-aware training follow.
    """

    folder: Path
    out: Path = Path("trained")
    task: str = "classification"
    weights: Optional[str] = None
    width: Optional[float] = None
    resolution: int = 224
    epochs: int = 30
    batch: int = 32
    optimizer: str = "adam"
    learning_rate: Optional[float] = None
    weight_decay: float = 1e-4
    loss: Optional[str] = None
    schedule: str = "cosine"
    label_smoothing: float = 0.0
    class_weights: str = "none"
    augment: str = "crop,flip,colour"
    least_area: float = 0.35
    freeze_until: int = 0
    val_share: float = 0.2
    patience: int = 0
    qat: int = 0
    teacher: Optional[str] = None
    teacher_resolution: Optional[int] = None
    temperature: float = 4.0
    teacher_share: float = 0.7
    seed: int = 0
    workers: Optional[int] = None
    threads: Optional[int] = None
    accelerator: str = "auto"
    checkpoint_every: int = 100
    resume: bool = False
    tensorboard: bool = False

    def decisive(self) -> dict[str, Any]:
        """The fields that decide what is computed, by name."""
        return {name: value for name, value in vars(self).items() if name not in FREE}


def check(request: TrainRequest) -> None:
    """Raises UsageError for a value that is out of range or that does not go with another."""
    if request.task not in ("classification", "regression"):
        raise UsageError(f"--task {request.task}", hint="classification or regression")
    for option, value, least in (
        ("--epochs", request.epochs, 1),
        ("--batch", request.batch, 2),
        ("--qat", request.qat, 0),
        ("--patience", request.patience, 0),
        ("--checkpoint-every", request.checkpoint_every, 1),
        ("--seed", request.seed, 0),
    ):
        if value < least:
            raise UsageError(f"{option} {value}", hint=f"{least} or more")
    rate = request.learning_rate
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise UsageError(f"--learning-rate {rate:g}", hint="a number above 0")
    if not (math.isfinite(request.weight_decay) and request.weight_decay >= 0):
        raise UsageError(f"--weight-decay {request.weight_decay:g}", hint="0 or more")
    if request.class_weights not in ("none", "balanced"):
        raise UsageError(f"--class-weights {request.class_weights}", hint="none or balanced")
    if request.class_weights == "balanced" and request.task == "regression":
        raise UsageError("--class-weights balanced is for classes, not for a measured value")
    if request.accelerator not in ACCELERATORS:
        raise UsageError(f"--accelerator {request.accelerator}", hint=f"one of {', '.join(ACCELERATORS)}")
    if not (math.isfinite(request.temperature) and request.temperature > 0):
        raise UsageError(f"--temperature {request.temperature:g}", hint="a number above 0; 4 is usual")
    if not 0 <= request.teacher_share <= 1:
        raise UsageError(f"--teacher-share {request.teacher_share:g}", hint="from 0 to 1")
    if request.teacher is not None and request.task == "regression":
        raise UsageError("--teacher is for classes, not for a measured value")
    if request.teacher is None and request.teacher_resolution is not None:
        raise UsageError("--teacher-resolution without --teacher")
    # Imported here: the command line reads the defaults above, and `--help` shall not wait for numpy.
    from edge_mnv2.builder.request import IMAGENET

    if request.weights == IMAGENET and request.width not in (None, 1.0):
        raise UsageError(
            f"the imagenet weights exist for width 1.0 only, not {request.width:g}",
            hint="--weights none begins from scratch",
        )
    from edge_mnv2.train.training_data import Augmentation

    Augmentation.parse(request.augment, request.least_area)
    if request.out.exists() and not request.out.is_dir():
        raise UsageError(f"--out {request.out} is a file", hint="name a folder")


def check_names(request: TrainRequest) -> None:
    """`check` for what needs PyTorch to be known: losses, optimizers, schedules."""
    from edge_mnv2.train.objective import check_loss, default_loss
    from edge_mnv2.train.optimizers import check_optimizer, check_schedule

    check_optimizer(request.optimizer)
    check_schedule(request.schedule)
    check_loss(request.loss or default_loss(request.task), request.task, request.label_smoothing)


def require_torch() -> None:
    """Raises UsageError where PyTorch is not installed or does not start."""
    hint = f"training needs PyTorch, on a workstation: {extra_hint('train')} (docs/training.md: without a GPU)"
    if importlib.util.find_spec("torch") is None:
        raise UsageError("PyTorch is not installed", hint=hint)
    # Waiting threads sleep instead of spinning: beside other work on the same cores, spinning made a step thirty times
    # slower, and sleeping costs nothing that can be measured. The variable is read at the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(f"PyTorch does not start ({error})", hint=hint) from error
