"""Quantization-aware training: the last part of a run, on the simulated int8 model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from edge_mnv2.builder.calibration import activation_ranges, ranges_document, read_crops, rounded_ranges
from edge_mnv2.builder.inference import operations
from edge_mnv2.builder.tflite_model import float_model
from edge_mnv2.builder.weights import read_weights
from edge_mnv2.train import checkpoint
from edge_mnv2.train.course import Course
from edge_mnv2.train.data import TrainingData
from edge_mnv2.train.module import NetworkModule, load_tensors, normalized, saved_state, tensors_of
from edge_mnv2.train.objective import Objective
from edge_mnv2.train.optimizers import default_rate, make_optimizer, parameter_groups
from edge_mnv2.train.pictures import Batch
from edge_mnv2.train.request import TrainRequest
from edge_mnv2.train.simulation import Simulation
from edge_mnv2.zoo.sidecar import write_all

NAME = "qat"
WEIGHTS, RANGES = "qat.pth", "qat.ranges.json"

_GENTLE = 0.05
"""Of the rate for fine-tuning: the weights are to move by parts of a quantum. With four times as much they wander about
as far as rounding had moved the answers."""


def qat_course(
    request: TrainRequest, module: NetworkModule, data: TrainingData, objective: Objective, device: torch.device
) -> Course:
    """The course that begins with the best float network in `request.out` and the ranges of `build`'s calibration.

    The float network teaches its integer child: what is made small is the distance to its answers alone, as the truth
    has had its part in training the parent.
    """
    load_tensors(module, read_weights(request.out / "best.pth").tensors)
    parent = copy.deepcopy(module).eval().requires_grad_(False)
    simulation = Simulation(module, calibrated(module, data.pictures))
    rate = (request.learning_rate or default_rate(request.optimizer, trained=True)) * _GENTLE
    groups = parameter_groups(module, request.weight_decay, request.optimizer, objective.scale.spread)

    def teach(batch: Batch, where: torch.device) -> torch.Tensor:
        with torch.no_grad():
            return parent(normalized(batch.pixels.to(where)))

    def load_state(state: dict[str, Any]) -> None:
        simulation.ranges = {name: (pair[0], pair[1]) for name, pair in state["ranges"].items()}

    return Course(
        NAME,
        request.qat,
        rate,
        make_optimizer(request.optimizer, groups, rate),
        simulation,
        simulation.train,
        Objective(objective.loss, objective.scale, objective.raw, temperature=1.0, teacher_share=1.0),
        teach,
        by_loss=True,
        state=lambda: {"ranges": {name: list(pair) for name, pair in simulation.ranges.items()}},
        load_state=load_state,
        keep_best=lambda: export(simulation, request.out, len(data.train)),
    )


def calibrated(module: NetworkModule, pictures: Path) -> dict[str, tuple[float, float]]:
    """Activation ranges of `module` as `build --calibration` finds them on the pictures below a folder."""
    network = module.network
    steps = operations(network, tensors_of(module))
    crops = read_crops(pictures, network.input[0])
    regression = network.head.task == "regression"
    return activation_ranges(float_model(network, steps), steps, crops.images, regression=regression)


def export(simulation: Simulation, out: Path, pictures: int) -> None:
    """Write the weights and, for `build --ranges`, the activation ranges. Raises UsageError."""
    checkpoint.save(out / WEIGHTS, saved_state(simulation.module))
    weights = read_weights(out / WEIGHTS)
    text = ranges_document(simulation.module.network, weights, rounded_ranges(simulation.ranges), pictures, pictures)
    write_all([(out / RANGES, text.encode())])
