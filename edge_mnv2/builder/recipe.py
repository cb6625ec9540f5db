"""From weights to a model file: everything `edge-mnv2 build` does, as one call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.board import accelerators
from edge_mnv2.builder.calibration import (
    Crops,
    activation_limits,
    ranges_document,
    read_crops,
    read_ranges,
    rounded_ranges,
    shipped_ranges,
    spanned,
)
from edge_mnv2.builder.comparison import Comparison, choose_share, compare, onnx_ms, tflite_ms
from edge_mnv2.builder.inference import (
    IMAGENET_PICTURES,
    TENSORFLOW_PICTURES,
    Normalization,
    Operation,
    operations,
)
from edge_mnv2.builder.request import IMAGENET, TASKS, BuildReport, BuildRequest, report_page
from edge_mnv2.builder.tflite_model import QuantizedNetwork, direct_pixels, float_model, integer_model, numbers
from edge_mnv2.builder.weights import Weights, fit, read_weights
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.network.network import Head, Network, mobilenet_v2
from edge_mnv2.zoo.labels import fit_labels, read_labels
from edge_mnv2.zoo.sidecar import companions, write_files

IMAGENET_ENTRY = "torchvision-mobilenet_v2"
RESOLUTION = 224

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Called with what is done, and so many steps of so many; of 0 where nobody knows."""


def build(request: BuildRequest, say: Say = lambda _: None, progress: Optional[Progress] = None) -> BuildReport:
    """Build, write and measure. Every file appears whole or not at all.

    Raises UsageError for what cannot go together or be written, ModelError for weights that do not fit, LabelsError,
    DownloadError where the ImageNet weights cannot be had.
    """
    request.check()
    at = progress or (lambda _words, _done, _total: None)
    at("weights", 0, 0)
    trained = trained_network(request, say)
    request, network, weights, pictures = trained.request, trained.network, trained.weights, trained.pictures
    steps, reference = trained.steps, trained.floats()
    if request.floating:
        return trained.finish(reference)
    crops = None
    if request.calibration is not None:
        at("pictures", 0, 0)
        crops = read_crops(request.calibration, network.input[0])
    if request.ranges is not None:
        ranges = read_ranges(request.ranges, network, weights)
    elif crops is not None:
        say(f"calibrating with {len(crops.images)} crops of {crops.pictures} pictures")
        limits = activation_limits(reference, steps, _counted(crops.images, "calibrating", at))
        at("choosing ranges", 0, 0)
        ranges, wider = chosen_ranges(network, steps, reference, crops.images, limits, pictures)
        if wider:
            say("ranges: wider than the pictures' mean, which answers more like the float model")
    else:
        ranges = shipped_ranges(network, weights)
    at("integers", 0, 0)
    integers = numbers(network, steps, ranges, pictures)
    model = integer_model(
        network, trained.steps, integers, input_dtype=request.input_dtype, output_dtype=request.output_dtype
    )
    if (row := accelerators.named(request.target)) is not None:
        import_module(row.limits).check(model)
    if crops is None:
        return trained.finish(model, integers)
    at("comparing", 0, 0)
    whole = [image for image, is_whole in zip(crops.images, crops.whole) if is_whole]
    compared = compare(reference, model, steps, whole, task=network.head.task)
    document = ranges_document(network, weights, ranges, crops.pictures, len(crops.images))
    return trained.finish(model, integers, compared, crops, document)


def _counted(images: Sequence[np.ndarray], words: str, at: Progress) -> Iterator[np.ndarray]:
    for number, image in enumerate(images):
        at(words, number, len(images))
        yield image


def chosen_ranges(
    network: Network,
    steps: list[Operation],
    reference: bytes,
    images: Sequence[np.ndarray],
    limits: Mapping[str, np.ndarray],
    pictures: Normalization = IMAGENET_PICTURES,
) -> tuple[dict[str, tuple[float, float]], bool]:
    """Activation ranges, as their file keeps them, from the `limits` that the float model `reference` shows on
    `images`; and whether they are wider than the pictures' mean."""

    def ranges(some: Mapping[str, np.ndarray], share: float) -> dict[str, tuple[float, float]]:
        return spanned(some, share, regression=network.head.task == "regression")

    def integers(some: Mapping[str, np.ndarray], share: float) -> bytes:
        return integer_model(network, steps, numbers(network, steps, ranges(some, share), pictures))

    share = choose_share(reference, images, limits, integers)
    return rounded_ranges(ranges(limits, share)), share > 0


def trained_network(request: BuildRequest, say: Say) -> Trained:
    """The network that `request` asks for, with its weights. Raises as `build`."""
    network, weights = _network(request, say)
    request = replace(request, task=network.head.task, resolution=network.input[0])
    pictures = _pictures(request, weights, say)
    steps = operations(network, weights.tensors, same_padding=weights.tensorflow)
    return Trained(request, network, weights, steps, _labels(request, network, say), pictures)


@dataclass(frozen=True)
class Trained:
    """Everything that is known before a model is made, and what is done when it is."""

    request: BuildRequest
    network: Network
    weights: Weights
    steps: list[Operation]
    labels: Optional[list[str]]
    pictures: Normalization

    def floats(self) -> bytes:
        """The float `.tflite`."""
        return float_model(self.network, self.steps, self.pictures)

    def finish(
        self,
        model: bytes,
        integers: Optional[QuantizedNetwork] = None,
        compared: Optional[Comparison] = None,
        crops: Optional[Crops] = None,
        ranges: Optional[str] = None,
    ) -> BuildReport:
        """Write `model`, the .tflite, or its ONNX form, with all companions; measure and report."""
        request = self.request
        if request.format == "onnx":
            model = self._onnx(integers)
        milliseconds = onnx_ms(model) if request.format == "onnx" else tflite_ms(model)
        files: list[tuple[Path, bytes]] = []
        if ranges is not None:
            files.append((request.out.with_suffix(".ranges.json"), ranges.encode()))
        origin = f"built by edge-mnv2 from {self.weights.source}, sha256 {self.weights.sha256}"
        trained = {"mean": self.pictures.mean, "std": self.pictures.std}
        files += companions(
            request.out,
            model,
            origin,
            task=self.network.head.task,
            labels=self.labels,
            unit=request.unit,
            trained=trained,
        )
        files.append((request.out, model))
        report = BuildReport(
            request,
            self.network,
            self.weights,
            self.pictures,
            hashlib.sha256(model).hexdigest(),
            len(model),
            milliseconds,
            tuple(self.steps),
            compared,
            len(crops.images) if crops is not None else None,
            tuple(path for path, _ in files),
        )
        if request.report is not None:
            files.insert(0, (request.report, report_page(report).encode()))
        write_files(files)
        return report

    def _onnx(self, integers: Optional[QuantizedNetwork]) -> bytes:
        from edge_mnv2.builder.onnx_model import onnx_model

        metadata = {"task": self.network.head.task, "weights_sha256": self.weights.sha256, "input": "RGB, uint8, NHWC"}
        if self.labels is not None:
            metadata["labels"] = "\n".join(self.labels)
        if self.request.unit:
            metadata["unit"] = self.request.unit
        pixels = None if integers is None else direct_pixels(integers[0])
        if pixels is not None:
            metadata["mean"], metadata["std"] = (f"{number:.9g}" for number in pixels)
        return onnx_model(self.network, self.steps, integers, metadata, self.pictures)


def _network(request: BuildRequest, say: Say) -> tuple[Network, Weights]:
    if request.weights == IMAGENET:
        from edge_mnv2.zoo.pull import fetch

        path = Path(fetch(IMAGENET_ENTRY, "the trained weights, once"))
    else:
        path = Path(request.weights)
    weights = read_weights(path)
    width = request.width if request.width is not None else weights.width
    outputs = request.classes if request.classes is not None else weights.outputs
    if width is None:
        raise ModelError(
            f"weights {path}: no MobileNetV2 has tensors of these shapes",
            hint="give --width; other depths than the paper's cannot be built",
        )
    task = request.task or weights.task
    if outputs == 1 and task is None:
        raise UsageError(
            f"weights {path} have one output: a class's logit or a measured value?",
            hint="--task classification or --task regression",
        )
    # Logits, not probabilities: the runtime's softmax in float keeps small scores apart that 1/256 steps make equal.
    head = Head(task or TASKS[0], bounds=request.bounds)
    resolution = request.resolution or weights.resolution or RESOLUTION
    network = mobilenet_v2(width, resolution, outputs, head, hidden=weights.hidden, divisor=weights.divisor)
    fit(weights, network)
    say(f"{network.name}: {network.parameters / 1e6:.2f} M parameters, {network.macs / 1e6:.1f} M MACs")
    return network, weights


def _pictures(request: BuildRequest, weights: Weights, say: Say) -> Normalization:
    """How pictures were normalized for the weights, by the options, the file, or the custom of who wrote it."""
    option = request.pictures()
    if option is not None:
        return option
    if weights.mean is not None and weights.std is not None:
        say(f"pictures are normalized as the weights' file says: mean {_list(weights.mean)}, std {_list(weights.std)}")
        return Normalization(weights.mean, weights.std)
    assumed = TENSORFLOW_PICTURES if weights.tensorflow else IMAGENET_PICTURES
    if request.weights != IMAGENET:
        say(
            f"assumed: pictures were normalized with mean {_list(assumed.mean)}, std {_list(assumed.std)} "
            "(--mean R,G,B --std R,G,B say otherwise)"
        )
    return assumed


def _list(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _labels(request: BuildRequest, network: Network, say: Say) -> Optional[list[str]]:
    if request.labels is not None:
        listed = read_labels(request.labels)
        # One logit is the answer for two classes.
        binary = network.outputs == 1 and network.head.task == TASKS[0] and len(listed) == 2
        names, note = fit_labels(listed, 2 if binary else network.outputs)
        if note is not None:
            say(f"{request.labels}: {note}")
        return names
    if request.weights == IMAGENET:
        return read_labels(paths.packaged("models", "labels", "imagenet.txt"))
    return None
