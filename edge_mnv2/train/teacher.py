"""A large network that teaches a narrow one: a `.tflite` model, or weights of a MobileNetV2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Optional

import numpy as np
import torch

from edge_mnv2.builder.weights import fit, trainable_weights
from edge_mnv2.errors import ModelError
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.train.module import NetworkModule, load_tensors, normalized

_LEAST_PROBABILITY = 1e-4
"""An integer softmax rounds small probabilities to 0, whose logarithm would say "never"."""

_WEIGHTS = (".pth", ".pt", ".safetensors")


class Teacher:
    """`size` in pixels; called with uint8 pictures (batch, 3, size, size), it gives logits float32 (batch, classes)."""

    def __init__(self, name: str, size: int, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.name = name
        self.size = size
        self._answer = answer

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self._answer(pixels)


def open_teacher(name: str, classes: Sequence[str], resolution: int, device: torch.device, threads: int = 1) -> Teacher:
    """The teacher that `name` means: a file of weights, which sees `resolution` pixels, or a model of the zoo or a
    `.tflite` file, which sees its own size. Raises ModelError where its classes are others."""
    if Path(name).suffix in _WEIGHTS:
        return _from_weights(Path(name), classes, resolution, device)
    return _from_model(name, classes, threads)


def _from_weights(path: Path, classes: Sequence[str], resolution: int, device: torch.device) -> Teacher:
    weights = trainable_weights(path)
    if weights.width is None or weights.outputs is None:
        raise ModelError(f"--teacher {path}: no MobileNetV2 has tensors of these shapes")
    _check_count(str(path), weights.outputs, classes)
    network = mobilenet_v2(weights.width, resolution, weights.outputs)
    fit(weights, network)
    module = NetworkModule(network)
    load_tensors(module, weights.tensors)
    module.to(device).eval()
    return Teacher(path.name, resolution, lambda pixels: module(normalized(pixels)))


def _from_model(name: str, classes: Sequence[str], threads: int) -> Teacher:
    from edge_mnv2.runtime.opening import open_classifier

    classifier, resolved, _ = open_classifier(name, resize="stretch", threads=threads)
    if classifier.task != "classification":
        raise ModelError(f"--teacher {name} measures a value, it knows no classes")
    _check_count(name, classifier.outputs, classes)
    if resolved.labels is not None and [label.casefold() for label in classifier.labels] != [
        label.casefold() for label in classes
    ]:
        pair = next((a, b) for a, b in zip(classifier.labels, classes) if a.casefold() != b.casefold())
        raise ModelError(f"--teacher {name} has other classes: '{pair[0]}' where these pictures have '{pair[1]}'")
    height, width = classifier.input_size
    if height != width:
        raise ModelError(f"--teacher {name} takes pictures of {width}x{height}, not square ones")
    return Teacher(resolved.name, height, lambda pixels: _logits(classifier, pixels))


def _logits(classifier: Classifier, pixels: torch.Tensor) -> torch.Tensor:
    """Logarithms of the model's probabilities: its logits but for a constant, which softmax takes away."""
    pictures = pixels.cpu().numpy().transpose(0, 2, 3, 1)
    scores = np.stack([classifier.scores(np.ascontiguousarray(picture)) for picture in pictures])
    return torch.from_numpy(np.log(np.maximum(scores, _LEAST_PROBABILITY))).to(pixels.device)


def _check_count(name: str, outputs: Optional[int], classes: Sequence[str]) -> None:
    if outputs != len(classes):
        raise ModelError(
            f"--teacher {name} knows {outputs} classes, these pictures have {len(classes)}",
            hint="train the teacher on the same folders first",
        )
