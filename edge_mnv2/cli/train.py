"""`edge-mnv2 train`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import typer

from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import CHOSEN, JSON, argument, flag, option
from edge_mnv2.cli.terminal import aligned, json_text, note
from edge_mnv2.errors import PARTIAL
from edge_mnv2.messages import digits, unfiltered, visible
from edge_mnv2.settings.kinds import File, Number, Whole
from edge_mnv2.train.training_request import TrainRequest, require_torch

if TYPE_CHECKING:
    from edge_mnv2.train.training_loop import Position, TrainingPhase

_STOPPED = 130
_MOST = 256


def train(
    folder: Path = argument(
        "DIR", "Pictures: DIR/train and DIR/val, or DIR itself; one folder a class, or labels.csv.", File()
    ),
    out: Path = option("out", "The folder to write.", File("DIR"), default=TrainRequest.out),
    task: str = option("task", "classification or regression.", default=TrainRequest.task),
    weights: Optional[str] = option(
        "weights", "imagenet (default at width 1.0), none, or a file.", metavar="imagenet|none|FILE"
    ),
    width: Optional[float] = option("width", "Width multiplier; default: the weights', else 1.0.", Number()),
    resolution: int = option("resolution", "Input size in pixels.", Whole(), default=TrainRequest.resolution),
    epochs: int = option("epochs", "Times through the pictures.", Whole(), default=TrainRequest.epochs),
    batch: int = option("batch", "Pictures a step.", Whole(), default=TrainRequest.batch),
    optimizer: str = option("optimizer", "sgd, momentum, adagrad, rmsprop or adam.", default=TrainRequest.optimizer),
    learning_rate: Optional[float] = option("learning-rate", "The highest rate; default: the optimizer's.", Number()),
    weight_decay: float = option("weight-decay", "Of the kernels.", Number(), default=TrainRequest.weight_decay),
    loss: Optional[str] = option("loss", "cross-entropy, mse, rmse or mape; default: the task's."),
    schedule: str = option("schedule", "cosine, step or constant.", default=TrainRequest.schedule),
    label_smoothing: float = option(
        "label-smoothing", "From 0 to below 1.", Number(), default=TrainRequest.label_smoothing
    ),
    class_weights: str = option("class-weights", "none, or balanced.", default=TrainRequest.class_weights),
    augment: str = option("augment", "Some of crop,flip,colour, or none.", default=TrainRequest.augment),
    least_area: float = option(
        "least-area", "Least share that a crop keeps.", Number(), default=TrainRequest.least_area
    ),
    freeze_until: int = option(
        "freeze-until", "Keep the first N blocks as they are.", Whole(), default=TrainRequest.freeze_until
    ),
    val_share: float = option(
        "val-share", "Share kept where there is no DIR/val.", Number(), default=TrainRequest.val_share
    ),
    patience: int = option(
        "patience", "End after N epochs without progress; 0 never.", Whole(), default=TrainRequest.patience
    ),
    qat: int = option("qat", "Epochs of quantization-aware training at the end.", Whole(), default=TrainRequest.qat),
    teacher: Optional[str] = option("teacher", "A model or weights to learn from.", metavar="NAME|PATH"),
    teacher_resolution: Optional[int] = option("teacher-resolution", "Pixels for a teacher's weights.", Whole()),
    temperature: float = option(
        "temperature", "Softens the teacher's answers.", Number(), default=TrainRequest.temperature
    ),
    teacher_share: float = option(
        "teacher-share", "The teacher's part in the loss.", Number(), default=TrainRequest.teacher_share
    ),
    seed: int = option("seed", "For weights, order, augmentation, split.", Whole(), default=TrainRequest.seed),
    workers: Union[int, str] = option(
        "workers", "Processes that decode; auto: none on a CPU.", Whole(0, _MOST, ("auto",)), default="auto"
    ),
    threads: Union[int, str] = option(
        "threads", "Threads on the CPU; auto: all cores.", Whole(1, _MOST, ("auto",)), default="auto"
    ),
    accelerator: str = option("accelerator", "auto, cpu or cuda.", default=TrainRequest.accelerator),
    checkpoint_every: int = option(
        "checkpoint-every", "Steps between checkpoints.", Whole(), default=TrainRequest.checkpoint_every
    ),
    resume: bool = flag("resume", "Go on with the run in --out."),
    tensorboard: bool = flag("tensorboard", "Write a TensorBoard log too."),
    chosen: frozenset[str] = CHOSEN,
    as_json: bool = JSON,
) -> None:
    """Train or fine-tune the whole network on a workstation."""
    values = {name: value for name, value in locals().items() if name not in ("chosen", "as_json")}
    values.update(workers=_count(workers), threads=_count(threads))
    request = TrainRequest(**values)
    require_torch()
    from edge_mnv2.train.training_run import train as run

    document = run(request, say=note, watcher=_Progress(), chosen=[name for name in values if name in chosen])
    typer.echo(json_text(document) if as_json else _text(document))
    if document["ended"] == "signal":
        note(f"stopped: `edge-mnv2 train {folder} --out {out} --resume` goes on from here")
        raise typer.Exit(_STOPPED)
    note(_next(document, folder))
    if document["failed"]:
        raise typer.Exit(PARTIAL)


def _count(number: Union[int, str]) -> Optional[int]:
    return None if isinstance(number, str) else number


class _Progress:
    """A line an epoch; on a terminal also a line that follows the steps."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = 0.0

    def step(self, phase: TrainingPhase, at: Position, steps: int, seconds_left: Optional[float]) -> None:
        if not self._live or time.monotonic() - self._shown < 0.2:
            return
        self._shown = time.monotonic()
        left = f", {_duration(seconds_left)} left" if seconds_left is not None else ""
        loss = f", loss {phase.objective.over(at.sums):.4f}" if at.sums.pictures else ""
        text = f"{phase.name} epoch {at.epoch + 1}/{phase.epochs}, step {at.step}/{steps}{loss}{left}"
        unfiltered(sys.stderr).write(f"\r\x1b[K{visible(text)}")
        sys.stderr.flush()

    def epoch(self, entry: dict[str, Any], phase: TrainingPhase, seconds_left: float) -> None:
        if self._live:
            unfiltered(sys.stderr).write("\r\x1b[K")
        measures = ", ".join(
            f"{title} {_shown(key, entry['validation'][key])}" for key, title in _MEASURES if key in entry["validation"]
        )
        best = ", the best so far" if entry["best"] else ""
        note(
            f"{phase.name} epoch {entry['epoch']}/{phase.epochs}: loss {entry['train_loss']:.4f}, "
            f"validation {measures}{best} ({entry['seconds']:.1f} s, {_duration(seconds_left)} left)"
        )


_MEASURES = (
    ("loss", "loss"),
    ("top1", "top-1"),
    ("macro_f1", "macro-F1"),
    ("rmse", "RMSE"),
    ("mae", "MAE"),
    ("mape", "MAPE"),
)
_SHARES = ("top1", "top5", "balanced_top1", "macro_f1", "mape", "agreement")


def _shown(key: str, value: float) -> str:
    return f"{value:.1%}" if key in _SHARES else digits(value, 4)


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes}:{int(seconds) % 60:02d}"


def _text(document: dict[str, Any]) -> str:
    rows = [
        ["weights", str(document["weights"])],
        ["network", f"{document['network']}, {document['parameters'] / 1e6:.2f} M parameters"],
        ["best epoch", f"{document['best_epoch']} of {document['epochs']}"],
    ]
    rows += [
        [title, _shown(key, document[key])]
        for key, title in (("top1", "top-1"), ("top5", "top-5"), *_MEASURES[2:])
        if document[key] is not None
    ]
    lines = [aligned(rows)]
    if document["quantization"]:
        keys = [key for key in ("top1", "agreement", "distance", "rmse", "deviation") if key in _first(document)]
        compared = [[name, *(_shown(key, one[key]) for key in keys)] for name, one in document["quantization"].items()]
        titles = ["", *(_TITLES.get(key, key) for key in keys)]
        lines += ["", aligned(compared, titles, right=tuple(range(1, len(titles))))]
    return "\n".join(lines)


_TITLES = {"top1": "top-1", "agreement": "same as float", "rmse": "RMSE"}


def _first(document: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = next(iter(document["quantization"].values()))
    return first


def _next(document: dict[str, Any], folder: Path) -> str:
    out = Path(document["out"])
    pictures = folder / "train" if (folder / "train").is_dir() else folder
    resolution = document["network"].rsplit("_", 1)[1]
    labels = f" --labels {out / 'labels.txt'}" if document["classes"] else " --task regression"
    weights = f"--weights {out / 'best.pth'}"
    if document["quantization"]:
        weights = f"--weights {out / 'qat.pth'} --ranges {out / 'qat.ranges.json'}"
    return (
        f"next: edge-mnv2 build {weights}{labels} --resolution {resolution} "
        f"--calibration {pictures} --out {out / 'model.tflite'}"
    )


COMMAND = Command(
    train,
    examples=(
        "edge-mnv2 train photos/ --epochs 20 --out trained",
        "edge-mnv2 train photos/ --out trained --resume",
    ),
)
