"""`edge-mnv2 train`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.cli.options import JSON, given, option
from edge_mnv2.cli.table import aligned
from edge_mnv2.errors import PARTIAL, UsageError

if TYPE_CHECKING:
    from edge_mnv2.train.training_loop import Position, TrainingPhase

_STOPPED = 130
_MOST = 256


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    context: typer.Context,
    folder: Path = typer.Argument(
        ..., metavar="DIR", help="Pictures: DIR/train and DIR/val, or DIR itself; one folder a class, or labels.csv."
    ),
    out: Path = option("--out", help="The folder to write (default: trained).", default=Path("trained"), metavar="DIR"),
    task: str = option("--task", help="classification (default) or regression.", default="classification"),
    weights: Optional[str] = option(
        "--weights", help="imagenet (default at width 1.0), none, or a file.", metavar="imagenet|none|FILE"
    ),
    width: Optional[float] = option("--width", help="Width multiplier; default: the weights', else 1.0."),
    resolution: int = option("--resolution", help="Input size in pixels (default 224).", default=224),
    epochs: int = option("--epochs", help="Times through the pictures (default 30).", default=30),
    batch: int = option("--batch", help="Pictures a step (default 32).", default=32),
    optimizer: str = option("--optimizer", help="sgd, momentum, adagrad, rmsprop or adam (default).", default="adam"),
    learning_rate: Optional[float] = option("--learning-rate", help="The highest rate; default: the optimizer's."),
    weight_decay: float = option("--weight-decay", help="Of the kernels (default 1e-4).", default=1e-4),
    loss: Optional[str] = option("--loss", help="cross-entropy, mse, rmse or mape; default: the task's."),
    schedule: str = option("--schedule", help="cosine (default), step or constant.", default="cosine"),
    label_smoothing: float = option("--label-smoothing", help="From 0 (default) to below 1.", default=0.0),
    class_weights: str = option("--class-weights", help="none (default), or balanced.", default="none"),
    augment: str = option(
        "--augment", help="Some of crop,flip,colour (default: all), or none.", default="crop,flip,colour"
    ),
    least_area: float = option("--least-area", help="Least share that a crop keeps (default 0.35).", default=0.35),
    freeze_until: int = option("--freeze-until", help="Keep the first N blocks as they are.", default=0, metavar="N"),
    val_share: float = option("--val-share", help="Share kept where there is no DIR/val (default 0.2).", default=0.2),
    patience: int = option("--patience", help="End after N epochs without progress; 0 never (default).", default=0),
    qat: int = option("--qat", help="Epochs of quantization-aware training at the end.", default=0, metavar="N"),
    teacher: Optional[str] = option("--teacher", help="A model or weights to learn from.", metavar="NAME|PATH"),
    teacher_resolution: Optional[int] = option("--teacher-resolution", help="Pixels for a teacher's weights."),
    temperature: float = option("--temperature", help="Softens the teacher's answers (default 4).", default=4.0),
    teacher_share: float = option("--teacher-share", help="The teacher's part in the loss (default 0.7).", default=0.7),
    seed: int = option("--seed", help="For weights, order, augmentation, split (default 0).", default=0),
    workers: str = option(
        "--workers", help="Processes that decode; auto (default): none on a CPU.", default="auto", metavar="auto|N"
    ),
    threads: str = option(
        "--threads", help="Threads on the CPU; auto (default): all cores.", default="auto", metavar="auto|N"
    ),
    accelerator: str = option("--accelerator", help="auto (default), cpu or cuda.", default="auto"),
    checkpoint_every: int = option("--checkpoint-every", help="Steps between checkpoints (default 100).", default=100),
    resume: bool = option("--resume", help="Go on with the run in --out.", default=False),
    tensorboard: bool = option("--tensorboard", help="Write a TensorBoard log too.", default=False),
    as_json: bool = JSON,
) -> None:
    """Train or fine-tune the whole network on a workstation."""
    values = {name: value for name, value in locals().items() if name not in ("context", "as_json")}
    from edge_mnv2.train.training_request import TrainRequest, require_torch

    values.update(workers=_count("--workers", workers, 0), threads=_count("--threads", threads, 1))
    request = TrainRequest(**values)
    require_torch()
    from edge_mnv2.train.training_run import train as run

    chosen = [name for name in values if given(context, name) is not None]
    document = run(request, say=_say, watcher=_Progress(), chosen=chosen)
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2) if as_json else _text(document))
    if document["ended"] == "signal":
        _say(f"stopped: edge-mnv2 train {folder} --out {out} --resume goes on from here")
        raise typer.Exit(_STOPPED)
    _say(_next(document, folder))
    if document["failed"]:
        raise typer.Exit(PARTIAL)


def _count(name: str, text: str, least: int) -> Optional[int]:
    """A number, or None for auto."""
    if text == "auto":
        return None
    if not (text.isdecimal() and least <= int(text) <= _MOST):
        raise UsageError(f"{name} {text}", hint=f"auto, or a number from {least} to {_MOST}")
    return int(text)


def _say(line: str) -> None:
    typer.echo(line, err=True)


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
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    def epoch(self, entry: dict[str, Any], phase: TrainingPhase, seconds_left: float) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
        measures = ", ".join(
            f"{title} {_shown(key, entry['validation'][key])}" for key, title in _MEASURES if key in entry["validation"]
        )
        best = ", the best so far" if entry["best"] else ""
        _say(
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
    return f"{value:.1%}" if key in _SHARES else f"{value:.4g}"


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
