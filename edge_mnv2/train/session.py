"""A whole training run: from what a person asks for to the files that `build` takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import torch

from edge_mnv2.errors import UsageError
from edge_mnv2.train import checkpoint
from edge_mnv2.train.checkpoint import random_state, set_random_state
from edge_mnv2.train.course import Course, Failures, Position
from edge_mnv2.train.data import TrainingData, class_weights, read_training_data
from edge_mnv2.train.loop import Loop, Watcher
from edge_mnv2.train.losses import default_loss, make_loss
from edge_mnv2.train.module import NetworkModule, saved_state
from edge_mnv2.train.objective import Objective, Scale
from edge_mnv2.train.optimizers import default_rate, make_optimizer, parameter_groups
from edge_mnv2.train.records import Records
from edge_mnv2.train.request import TrainRequest, check, check_names
from edge_mnv2.train.resuming import earlier_run
from edge_mnv2.train.setup import Loaders, choose_device, open_module, write_labels
from edge_mnv2.train.stopping import stop_requests

FLOAT, QAT = "float", "qat"


@dataclass
class _Run:
    request: TrainRequest
    data: TrainingData
    module: NetworkModule
    device: torch.device
    objective: Objective
    trained: bool
    records: Records
    failures: Failures
    stopped: threading.Event


def train(
    request: TrainRequest,
    *,
    say: Callable[[str], None],
    watcher: Watcher,
    given: Collection[str] = (),
) -> dict[str, Any]:
    """Train and write `best.pth`, `last.pth`, `labels.txt`, `metrics.jsonl` and `curves.html` into `request.out`.

    `given` names the fields that a person chose, for a run that is resumed. Returns the JSON document of the command.
    Raises UsageError, SourceError, ModelError, DownloadError, TrainingError.
    """
    began = time.monotonic()
    earlier, request = earlier_run(request, given, say)
    check(request)
    check_names(request)
    data = read_training_data(request.folder, request.task, request.val_share, request.seed)
    for note in data.notes:
        say(note)
    if earlier is not None and earlier["data"] != data.digest():
        raise UsageError(
            f"{request.folder} holds other pictures than when the run in {request.out} began",
            hint="name another --out to train on these",
        )
    device = choose_device(request, say)
    torch.manual_seed(request.seed)
    module, trained = open_module(request, data, device, say)
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {request.out} cannot be made: {error.strerror or error}") from error
    write_labels(request.out, data)
    records = Records(request.out, list(earlier["history"]) if earlier else [], request.tensorboard, say)
    failures = Failures(say, dict(earlier["failures"]) if earlier else {})
    with stop_requests() as stopped, contextlib.closing(records):
        run = _Run(
            request, data, module, device, _objective(request, data, device), trained, records, failures, stopped
        )
        ended, positions, quantized = _courses(run, earlier, watcher, say)
    return _document(run, ended, positions, quantized, time.monotonic() - began)


def _courses(
    run: _Run, earlier: Optional[dict[str, Any]], watcher: Watcher, say: Callable[[str], None]
) -> tuple[str, dict[str, Position], Optional[dict[str, Any]]]:
    request = run.request
    positions = {name: Position.from_dict(state) for name, state in earlier["positions"].items()} if earlier else {}
    teacher = None
    if request.teacher is not None:
        from edge_mnv2.train.teacher import open_teacher

        resolution = request.teacher_resolution or request.resolution
        teacher = open_teacher(request.teacher, run.data.classes, resolution, run.device, request.threads or 1)
    loaders = Loaders(request, run.data, teacher.size if teacher is not None else None, run.device)
    loop = Loop(
        run.device,
        loaders.train,
        loaders.validation,
        schedule=request.schedule,
        patience=request.patience,
        checkpoint_every=request.checkpoint_every,
        failures=run.failures,
        watcher=watcher,
        save=lambda course, at: _save(run, loop, course, positions),
        record=run.records.add,
        stopped=run.stopped.is_set,
    )
    ended = "epochs"
    for name in [FLOAT, *([QAT] if request.qat else [])]:
        if earlier is not None and name != earlier["course"] and name in positions:
            continue
        at = positions.setdefault(name, Position())
        course = _course(run, name, teacher, loaders)
        if earlier is not None and name == earlier["course"]:
            _restore(run, loop, course, earlier)
            say(f"going on in epoch {at.epoch + 1}, step {at.step + 1}")
        ended = loop.run(course, at)
        if ended == "signal":
            return ended, positions, None
    quantized = None
    if request.qat:
        from edge_mnv2.train.quantized_report import compare_quantized

        quantized = compare_quantized(request, run.data, say)
    return ended, positions, quantized


def _course(run: _Run, name: str, teacher: Any, loaders: Loaders) -> Course:
    request = run.request
    if name == QAT:
        from edge_mnv2.train.qat import qat_course

        return qat_course(request, run.module, run.data, run.objective, run.device)
    module = run.module
    rate = request.learning_rate or default_rate(request.optimizer, trained=run.trained)
    groups = parameter_groups(module, request.weight_decay, request.optimizer, run.objective.scale.spread)
    teach = None
    if teacher is not None:
        chosen = teacher

        def teach(batch: Any, device: torch.device) -> torch.Tensor:
            return chosen(batch.teacher.to(device))

    return Course(
        FLOAT,
        request.epochs,
        rate,
        make_optimizer(request.optimizer, groups, rate),
        module,
        module.train,
        run.objective,
        teach,
        keep_best=lambda: checkpoint.save(request.out / "best.pth", saved_state(module)),
    )


def _objective(request: TrainRequest, data: TrainingData, device: torch.device) -> Objective:
    name = request.loss or default_loss(request.task)
    weights = None
    if request.class_weights == "balanced":
        weights = torch.tensor(class_weights(data.class_counts()), dtype=torch.float32, device=device)
    loss = make_loss(name, request.task, class_weights=weights, smoothing=request.label_smoothing)
    scale = Scale()
    if request.task == "regression":
        values = data.values()
        scale = Scale(float(values.mean()), float(values.std()))
    share = request.teacher_share if request.teacher is not None else 0.0
    return Objective(loss, scale, name == "mape", request.temperature, share)


def _save(run: _Run, loop: Loop, course: Course, positions: dict[str, Position]) -> None:
    if positions[course.name].step == 0:
        # Before the checkpoint: where a kill comes between the two, the checkpoint leads to the same file again.
        checkpoint.save(run.request.out / "last.pth", saved_state(run.module))
    checkpoint.save(
        run.request.out / checkpoint.NAME,
        {
            "version": checkpoint.VERSION,
            "request": _plain(run.request.decisive()),
            "threads": torch.get_num_threads(),
            "data": run.data.digest(),
            "course": course.name,
            "positions": {name: at.as_dict() for name, at in positions.items()},
            "module": run.module.state_dict(),
            "optimizer": course.optimizer.state_dict(),
            "scaler": loop.scaler.state_dict(),
            "extra": course.state(),
            "random": random_state(),
            "history": run.records.history,
            "failures": run.failures.found,
        },
    )


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def _restore(run: _Run, loop: Loop, course: Course, earlier: dict[str, Any]) -> None:
    run.module.load_state_dict(earlier["module"])
    course.optimizer.load_state_dict(earlier["optimizer"])
    loop.scaler.load_state_dict(earlier["scaler"])
    course.load_state(earlier["extra"])
    set_random_state(earlier["random"])


def _document(
    run: _Run, ended: str, positions: dict[str, Position], quantized: Optional[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    request, data = run.request, run.data
    at = positions[FLOAT]
    best = at.best.as_dict() if at.best is not None else {}
    network = run.module.network
    return {
        "out": str(request.out),
        "weights": str(request.out / "best.pth") if at.best is not None else None,
        "network": network.name,
        "parameters": network.parameters,
        "macs": network.macs,
        "task": request.task,
        "classes": len(data.classes) or None,
        "pictures": {"train": len(data.train), "validation": len(data.validation)},
        "epochs": at.epoch,
        "best_epoch": at.best_epoch,
        **{name: best.get(name) for name in ("top1", "top5", "rmse", "mae", "loss")},
        "quantization": quantized,
        "ended": ended,
        "device": str(run.device),
        "seconds": round(seconds, 1),
        "failed": [{"file": name, "error": reason} for name, reason in run.failures.found.items()],
    }
