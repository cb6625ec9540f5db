"""A whole training run: from the request to the files that `build` takes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import numpy as np
import torch

from edge_mnv2.errors import UsageError
from edge_mnv2.signals import on_signals
from edge_mnv2.train import checkpoint
from edge_mnv2.train.checkpoint import earlier_run, random_state, set_random_state
from edge_mnv2.train.module import NetworkModule, saved_state
from edge_mnv2.train.objective import Objective, Scale, default_loss, make_loss
from edge_mnv2.train.optimizers import default_rate, make_optimizer, parameter_groups
from edge_mnv2.train.setup import Loaders, choose_device, open_module, write_labels
from edge_mnv2.train.training_data import TrainingData, check_relative_values, class_weights, read_training_data
from edge_mnv2.train.training_loop import Failures, Loop, Position, TrainingPhase, Watcher
from edge_mnv2.train.training_records import Records
from edge_mnv2.train.training_request import TrainRequest, check, check_names

FLOAT, QAT = "float", "qat"
_FIGURES = ("top1", "top5", "balanced_top1", "macro_f1", "rmse", "mae", "mape", "loss")


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
    chosen: Collection[str] = (),
) -> dict[str, Any]:
    """Train and write `best.pth`, `last.pth`, `labels.txt`, `metrics.jsonl` and `curves.html` into `request.out`.

    `chosen` names the fields that a person chose, for a run that is resumed. SIGINT, SIGTERM and SIGHUP end the run
    after the step under way, with a checkpoint; a second signal ends it at once. Returns the command's JSON document.
    Raises UsageError, SourceError, ModelError, DownloadError, TrainingError.
    """
    began = time.monotonic()
    earlier, request = earlier_run(request, chosen, say)
    check(request)
    check_names(request)
    data = read_training_data(request.folder, request.task, request.val_share, request.seed)
    if request.loss == "mape":
        check_relative_values(data)
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
    stopped = threading.Event()
    with _stopping(stopped), contextlib.closing(records):
        run = _Run(
            request, data, module, device, _objective(request, data, device), trained, records, failures, stopped
        )
        ended, positions, quantized = _phases(run, earlier, watcher, say)
    for warning in (warnings := _implausible(run, positions[FLOAT])):
        say(f"warning: {warning}")
    return {**_document(run, ended, positions, quantized, time.monotonic() - began), "warnings": warnings}


@contextlib.contextmanager
def _stopping(stopped: threading.Event) -> Iterator[None]:
    """The first signal sets `stopped`; the next one does what it did before."""
    with contextlib.ExitStack() as handlers:

        def stop(_number: int, _frame: Optional[FrameType]) -> None:
            stopped.set()
            handlers.close()

        handlers.enter_context(on_signals(stop))
        yield


def _phases(
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
        save=lambda phase, _: _save(run, loop, phase, positions),
        record=run.records.add,
        stopped=run.stopped.is_set,
    )
    ended = "epochs"
    for name in [FLOAT, *([QAT] if request.qat else [])]:
        if earlier is not None and name != earlier["course"] and name in positions:
            continue
        at = positions.setdefault(name, Position())
        phase = _phase(run, name, teacher)
        if earlier is not None and name == earlier["course"]:
            _restore(run, loop, phase, earlier)
            say(f"going on in epoch {at.epoch + 1}, step {at.step + 1}")
        ended = loop.run(phase, at)
        if ended == "signal":
            return ended, positions, None
    quantized = None
    if request.qat:
        from edge_mnv2.train.qat import compare_quantized

        quantized = compare_quantized(request, run.data, say)
    return ended, positions, quantized


def _phase(run: _Run, name: str, teacher: Any) -> TrainingPhase:
    request = run.request
    if name == QAT:
        from edge_mnv2.train.qat import qat_phase

        return qat_phase(request, run.module, run.data, run.objective)
    module = run.module
    usual = default_rate(request.optimizer, trained=run.trained)
    rate = request.learning_rate or usual
    groups = parameter_groups(module, request.weight_decay, request.optimizer, run.objective.scale.spread)
    teach = None
    if teacher is not None:
        chosen = teacher

        def teach(batch: Any, device: torch.device) -> torch.Tensor:
            return chosen(batch.teacher.to(device))

    return TrainingPhase(
        FLOAT,
        request.epochs,
        rate,
        make_optimizer(request.optimizer, groups, rate),
        module,
        module.train,
        run.objective,
        usual,
        teach,
        save_best=lambda: checkpoint.save(request.out / "best.pth", saved_state(module)),
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


def _save(run: _Run, loop: Loop, phase: TrainingPhase, positions: dict[str, Position]) -> None:
    if positions[phase.name].step == 0:
        # Before the checkpoint: after a kill between the two, the checkpoint leads to the same file again.
        checkpoint.save(run.request.out / "last.pth", saved_state(run.module))
    checkpoint.save(
        run.request.out / checkpoint.NAME,
        {
            "version": checkpoint.VERSION,
            "request": _plain(run.request.decisive()),
            "threads": torch.get_num_threads(),
            "data": run.data.digest(),
            "course": phase.name,
            "positions": {name: at.as_dict() for name, at in positions.items()},
            "module": run.module.state_dict(),
            "optimizer": phase.optimizer.state_dict(),
            "scaler": loop.scaler.state_dict(),
            "extra": phase.state(),
            "random": random_state(),
            "history": run.records.history,
            "failures": run.failures.reasons,
        },
    )


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in fields.items()}


def _restore(run: _Run, loop: Loop, phase: TrainingPhase, earlier: dict[str, Any]) -> None:
    run.module.load_state_dict(earlier["module"])
    phase.optimizer.load_state_dict(earlier["optimizer"])
    loop.scaler.load_state_dict(earlier["scaler"])
    phase.load_state(earlier["extra"])
    set_random_state(earlier["random"])


def _implausible(run: _Run, at: Position) -> list[str]:
    """What a network that learned nothing shows: no better than one answer for every picture."""
    best, data = at.best, run.data
    if best is None:
        return []
    if data.classes:
        counts = Counter(one.truth for one in data.validation)
        truth, most = counts.most_common(1)[0]
        if best.top1 is None or best.top1 > most / len(data.validation):
            return []
        assert isinstance(truth, int)
        always, figure = f"'{data.classes[truth]}' for every picture", f"top-1 {best.top1:.1%}"
    else:
        values = np.array([one.value for one in data.validation])
        constant = float(np.sqrt(np.mean((values - data.values().mean()) ** 2)))
        relative = run.request.loss == "mape"
        if (relative and (best.mape or 0.0) < 1) or (not relative and (best.rmse or 0.0) < constant):
            return []
        always = "0 for every picture" if relative else "the mean value for every picture"
        figure = f"MAPE {best.mape:.1%}" if relative else f"RMSE {best.rmse:.4g}"
    return [f"the best network ({figure}) is no better than the answer {always}: it has learned nothing useful"]


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
        **{name: best.get(name) for name in _FIGURES},
        "quantization": quantized,
        "ended": ended,
        "device": str(run.device),
        "seconds": round(seconds, 1),
        "unvalidated": data.unvalidated(),
        "failed": [{"file": name, "error": reason} for name, reason in run.failures.reasons.items()],
    }
