"""What a run needs before its first step: a device, a network with weights, a batch that fits into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from edge_mnv2.board.cpus import MemoryReader, usable_cpus
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.builder.recipe import IMAGENET_ENTRY
from edge_mnv2.builder.request import IMAGENET
from edge_mnv2.builder.weights import Weights, trainable_weights
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.network.blocks import Convolution, elements
from edge_mnv2.network.network import Head, Network, mobilenet_v2
from edge_mnv2.train.batches import Order, Pictures, make_loader
from edge_mnv2.train.module import NetworkModule, load_tensors
from edge_mnv2.train.training_data import Augmentation, TrainingData
from edge_mnv2.train.training_request import SCRATCH, TrainRequest
from edge_mnv2.zoo.labels import labels_text
from edge_mnv2.zoo.sidecar import write_files

_MOST_WORKERS = 8

_ACTIVATIONS = 3
"""Tensors that a convolution, its normalization and its activation function hold for the backward pass."""

_FLOAT = 4
_RESERVE = 0.85


def choose_device(request: TrainRequest, say: Callable[[str], None]) -> torch.device:
    """CUDA if it is available and the CPU was not asked for. Sets the number of threads. Raises UsageError."""
    usable = usable_cpus()
    if request.threads is not None and request.threads > usable:
        say(f"{request.threads} threads asked for, {usable} CPUs are usable: using {usable}")
    torch.set_num_threads(min(request.threads or usable, usable))
    cuda = torch.cuda.is_available()
    if request.accelerator == "cuda" and not cuda:
        raise UsageError(
            "--accelerator cuda: PyTorch finds no CUDA device here", hint="--accelerator auto takes the CPU"
        )
    if request.accelerator == "cpu" or not cuda:
        say(f"training on the CPU, {torch.get_num_threads()} threads")
        return torch.device("cpu")
    say(f"training on {torch.cuda.get_device_name(0)}")
    return torch.device("cuda")


def open_module(
    request: TrainRequest, data: TrainingData, device: torch.device, say: Callable[[str], None]
) -> tuple[NetworkModule, bool]:
    """The network on `device`, and whether its weights were trained before.

    Raises ModelError for weights that do not fit, and UsageError for a batch that does not fit into memory.
    """
    weights = _weights(request, say)
    width = request.width
    if weights is not None:
        if weights.width is None:
            raise ModelError(f"weights {weights.source}: no MobileNetV2 has tensors of these shapes")
        if width is not None and width != weights.width:
            raise ModelError(
                f"weights {weights.source} have width {weights.width:g}, --width says {width:g}",
                hint="leave --width out, or begin with --weights none",
            )
        width = weights.width
    divisor = weights.divisor if weights is not None else 8
    width = 1.0 if width is None else width
    network = mobilenet_v2(width, request.resolution, data.outputs, Head(request.task), divisor=divisor)
    if device.type == "cpu":
        available = MemoryReader(Sysroot()).read().available
        check_batch(network, request.batch, available << 20 if available is not None else None)
    module = NetworkModule(network)
    if weights is not None:
        for name, values in weights.tensors.items():
            if not np.isfinite(values).all():
                raise ModelError(f"weights {weights.source}: '{name}' holds NaN or infinity", hint="give other weights")
        # A head of several layers is not what is trained here.
        load_tensors(module, weights.tensors, classifier=weights.outputs == data.outputs and not weights.hidden)
    if request.task == "regression":
        _begin_at_mean(module, data)
    module.freeze(request.freeze_until)
    say(
        f"{network.name}, {network.outputs} outputs, {network.parameters / 1e6:.2f} M parameters, "
        f"{'from scratch' if weights is None else 'from ' + weights.source}; "
        f"{len(data.train)} pictures to train, {len(data.validation)} to validate"
    )
    return module.to(device, memory_format=torch.channels_last), weights is not None


def _weights(request: TrainRequest, say: Callable[[str], None]) -> Optional[Weights]:
    chosen = request.weights
    if chosen is None:
        if request.width not in (None, 1.0):
            say(f"from scratch: the imagenet weights exist for width 1.0 only, not {request.width:g}")
        chosen = IMAGENET if request.width in (None, 1.0) else SCRATCH
    if chosen == SCRATCH:
        return None
    if chosen == IMAGENET:
        from edge_mnv2.zoo.pull import fetch

        return trainable_weights(fetch(IMAGENET_ENTRY, "the trained weights to begin with, once"))
    return trainable_weights(Path(chosen))


def _begin_at_mean(module: NetworkModule, data: TrainingData) -> None:
    """Let a regression answer the mean of the training values first, with a spread like theirs."""
    values = data.values()
    name = module.network.classifier.name
    classifier = module.get_submodule(name)
    with torch.no_grad():
        classifier.weight.mul_(float(values.std()))
        classifier.bias.fill_(float(values.mean()))


def picture_bytes(network: Network) -> int:
    """About the bytes that one picture of a batch takes in a training step."""
    values = sum(
        elements(layer.output) * (_ACTIVATIONS if isinstance(layer, Convolution) else 1) for layer in network.layers()
    )
    return values * _FLOAT


def check_batch(network: Network, batch: int, available: Optional[int]) -> None:
    """Raises UsageError if `batch` needs more than `available` bytes; None: not known.

    Without this a machine would swap, or end the process without a word.
    """
    if available is None:
        return
    each = picture_bytes(network)
    fits = int(available * _RESERVE) // each
    if batch > max(2, fits):
        raise UsageError(
            f"--batch {batch} at {network.input[0]} pixels needs about {batch * each / 2**30:.1f} GB, "
            f"{available / 2**30:.1f} GB are free",
            hint=f"--batch {max(2, fits)} would fit",
        )


class Loaders:
    """Batches for training and for validation; `teacher_size` adds views for a teacher."""

    def __init__(
        self, request: TrainRequest, data: TrainingData, teacher_size: Optional[int], device: torch.device
    ) -> None:
        pinned = device.type == "cuda"
        augmentation = Augmentation.parse(request.augment, request.least_area)
        pictures = Pictures(data.train, request.resolution, request.seed, augmentation, teacher_size)
        order = Order(len(data.train), request.batch, seed=request.seed)
        workers = request.workers
        if workers is None:
            # On a CPU every core is training already.
            workers = min(_MOST_WORKERS, usable_cpus()) if device.type == "cuda" else 0
        self.train = make_loader(pictures, order, workers, pinned=pinned)
        held_out = Pictures(data.validation, request.resolution)
        in_turn = Order(len(data.validation), request.batch, shuffle=False)
        self.validation = make_loader(held_out, in_turn, workers, pinned=pinned)


def write_labels(out: Path, data: TrainingData) -> None:
    """`labels.txt`: the classes in the order of the outputs. Raises UsageError where it cannot be written."""
    if data.classes:
        write_files([(out / "labels.txt", labels_text(data.classes).encode())])
