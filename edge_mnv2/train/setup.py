"""What a run needs before its first step: a device, a network with weights, batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Optional

import torch

from edge_mnv2.board.cpus import usable_cpus
from edge_mnv2.board.memory import MemoryReader
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.builder.recipe import IMAGENET_ENTRY
from edge_mnv2.builder.request import IMAGENET
from edge_mnv2.builder.weights import Weights, read_weights
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.network.mobilenet_v2 import mobilenet_v2
from edge_mnv2.network.network import Head
from edge_mnv2.train.augment import Augmentation
from edge_mnv2.train.data import TrainingData
from edge_mnv2.train.memory import check_batch
from edge_mnv2.train.module import NetworkModule, load_tensors
from edge_mnv2.train.pictures import Order, Pictures, make_loader
from edge_mnv2.train.request import SCRATCH, TrainRequest
from edge_mnv2.zoo.sidecar import write_all

_MOST_WORKERS = 8


def choose_device(request: TrainRequest, say: Callable[[str], None]) -> torch.device:
    """CUDA where there is one and nobody asked for the CPU. Sets the number of threads. Raises UsageError."""
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
    network = mobilenet_v2(1.0 if width is None else width, request.resolution, data.outputs, Head(request.task))
    if device.type == "cpu":
        available = MemoryReader(Sysroot()).read().available
        check_batch(network, request.batch, available << 20 if available is not None else None)
    module = NetworkModule(network)
    if weights is not None:
        load_tensors(module, weights.tensors, classifier=weights.outputs == data.outputs)
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

        return read_weights(fetch(IMAGENET_ENTRY))
    return read_weights(Path(chosen))


def _begin_at_mean(module: NetworkModule, data: TrainingData) -> None:
    """Let a regression answer the mean of the training values first, with a spread like theirs."""
    values = data.values()
    name = module.network.classifier.name
    classifier = module.get_submodule(name)
    with torch.no_grad():
        classifier.weight.mul_(float(values.std()))
        classifier.bias.fill_(float(values.mean()))


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
        kept = Pictures(data.validation, request.resolution)
        in_turn = Order(len(data.validation), request.batch, shuffle=False)
        self.validation = make_loader(kept, in_turn, workers, pinned=pinned)


def write_labels(out: Path, data: TrainingData) -> None:
    """`labels.txt`: the classes in the order of the outputs. Raises UsageError where it cannot be written."""
    if data.classes:
        write_all([(out / "labels.txt", ("\n".join(data.classes) + "\n").encode())])
