"""Quantization-aware training: the last phase of a run, on the simulated int8 model; and what it saves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import torch
from torch.nn import functional

from edge_mnv2.builder.calibration import activation_limits, ranges_document, read_crops, rounded_ranges
from edge_mnv2.builder.inference import operations
from edge_mnv2.builder.recipe import build, chosen_ranges
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.builder.tflite_model import float_model
from edge_mnv2.builder.weights import read_weights
from edge_mnv2.camera.still import read_still
from edge_mnv2.datasets.labelled_pictures import Example
from edge_mnv2.errors import SourceError
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter, Preprocessor
from edge_mnv2.train import checkpoint
from edge_mnv2.train.batches import Batch
from edge_mnv2.train.module import NetworkModule, load_tensors, normalized, saved_state, tensors_of
from edge_mnv2.train.objective import Objective
from edge_mnv2.train.optimizers import default_rate, make_optimizer, parameter_groups
from edge_mnv2.train.simulation import Simulation
from edge_mnv2.train.training_data import TrainingData
from edge_mnv2.train.training_loop import TrainingPhase
from edge_mnv2.train.training_request import TrainRequest
from edge_mnv2.zoo.sidecar import write_files

NAME = "qat"
WEIGHTS, RANGES = "qat.pth", "qat.ranges.json"
FLOAT_MODEL, POST, AWARE = "float", "post_training_int8", "qat_int8"

_GENTLE = 0.05
"""Of the rate for fine-tuning: the weights are to move by parts of a quantum. With four times as much they wander about
as far as rounding had moved the answers."""


def qat_phase(request: TrainRequest, module: NetworkModule, data: TrainingData, objective: Objective) -> TrainingPhase:
    """The phase that begins with the best float network in `request.out` and the ranges of `build`'s calibration.

    The float network teaches its integer child: what is made small is the distance to its answers alone, as the truth
    has had its part in training the parent.
    """
    load_tensors(module, read_weights(request.out / "best.pth").tensors)
    parent = copy.deepcopy(module).eval().requires_grad_(False)
    simulation = Simulation(module, calibrated(module, data.pictures))
    usual = default_rate(request.optimizer, trained=True) * _GENTLE
    rate = request.learning_rate * _GENTLE if request.learning_rate else usual
    groups = parameter_groups(module, request.weight_decay, request.optimizer, objective.scale.spread)

    def teach(batch: Batch, target: torch.device) -> torch.Tensor:
        with torch.no_grad():
            return parent(normalized(batch.pixels.to(target)))

    def load_state(state: dict[str, Any]) -> None:
        simulation.ranges = {name: (pair[0], pair[1]) for name, pair in state["ranges"].items()}

    return TrainingPhase(
        NAME,
        request.qat,
        rate,
        make_optimizer(request.optimizer, groups, rate),
        simulation,
        simulation.train,
        Objective(objective.loss, objective.scale, objective.raw, temperature=1.0, teacher_share=1.0),
        usual,
        teach,
        by_loss=True,
        state=lambda: {"ranges": {name: list(pair) for name, pair in simulation.ranges.items()}},
        load_state=load_state,
        save_best=lambda: export(simulation, request.out, len(data.train)),
    )


def calibrated(module: NetworkModule, pictures: Path) -> dict[str, tuple[float, float]]:
    """Activation ranges of `module` as `build --calibration` finds them on the pictures below a folder."""
    network = module.network
    steps = operations(network, tensors_of(module))
    crops = read_crops(pictures, network.input[0])
    reference = float_model(network, steps)
    limits = activation_limits(reference, steps, crops.images)
    return chosen_ranges(network, steps, reference, crops.images, limits)[0]


def export(simulation: Simulation, out: Path, pictures: int) -> None:
    """Write the weights and, for `build --ranges`, the activation ranges. Raises UsageError."""
    checkpoint.save(out / WEIGHTS, saved_state(simulation.module))
    weights = read_weights(out / WEIGHTS)
    text = ranges_document(simulation.module.network, weights, rounded_ranges(simulation.ranges), pictures, pictures)
    write_files([(out / RANGES, text.encode())])


def compare_quantized(request: TrainRequest, data: TrainingData, say: Callable[[str], None]) -> dict[str, Any]:
    """What quantization costs, and what training for it saves, on the validation pictures.

    Builds three models into `request.out` and measures them by the runtime that boards use: the float network, the int8
    file after post-training quantization, and the int8 file after quantization-aware training.

    By name: `model` (its file), `top1`, `agreement` (same top-1 as the float network) and `distance`, the mean relative
    entropy KL(float || integer) of the probabilities, in nats: agreement without its coarse steps. For a regression
    `rmse` and `deviation`, the root mean square distance from the float network's values.
    """
    out = request.out
    labels = out / "labels.txt" if data.classes else None

    def made(name: str, weights: Path, **more: Any) -> Path:
        target = out / f"{name}.tflite"
        build(
            BuildRequest(target, str(weights), resolution=request.resolution, labels=labels, task=request.task, **more)
        )
        return target

    best = out / "best.pth"
    models = {
        FLOAT_MODEL: made(FLOAT_MODEL, best, floating=True),
        POST: made(POST, best, calibration=data.pictures),
        AWARE: made(AWARE, out / WEIGHTS, ranges=out / RANGES),
    }
    report: dict[str, Any] = {}
    reference: Optional[np.ndarray] = None
    for name, model in models.items():
        outputs, truths = _answers(model, data.validation, request.resolution)
        reference = outputs if reference is None else reference
        report[name] = {"model": str(model), **_measures(outputs, truths, reference, bool(data.classes))}
        say(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in report[name].items() if key != "model"))
    return report


def _answers(model: Path, examples: list[Example], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Dequantized outputs (pictures, outputs) and truths (pictures,) of what can be read."""
    fit, outputs, truths = Preprocessor(size, size), [], []
    with open_interpreter(model) as interpreter:
        writer, spec = InputWriter(interpreter.inputs[0]), interpreter.outputs[0]
        for example in examples:
            try:
                pixels = read_still(example.path)
            except SourceError:
                continue
            interpreter.set_input(writer(fit.to_rgb(pixels)))
            interpreter.invoke()
            outputs.append(spec.dequantize(interpreter.output().reshape(-1)).copy())
            truths.append(example.truth if isinstance(example.truth, int) else example.truth[0])
    return np.array(outputs, np.float64), np.array(truths)


def _measures(outputs: np.ndarray, truths: np.ndarray, reference: np.ndarray, classes: bool) -> dict[str, float]:
    if classes:
        best = outputs.argmax(1)
        ours, parents = (functional.log_softmax(torch.from_numpy(one), dim=1).numpy() for one in (outputs, reference))
        return {
            "top1": float((best == truths).mean()),
            "agreement": float((best == reference.argmax(1)).mean()),
            "distance": float((np.exp(parents) * (parents - ours)).sum(1).mean()),
        }
    return {
        "rmse": float(np.sqrt(np.square(outputs[:, 0] - truths).mean())),
        "deviation": float(np.sqrt(np.square(outputs - reference).mean())),
    }
