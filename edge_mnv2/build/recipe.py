"""From weights to a model file: everything `edge-mnv2 build` does, as one call."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.build.calibration import activation_ranges
from edge_mnv2.build.companions import Files, check_target, companions, write_all
from edge_mnv2.build.comparison import Comparison, compare
from edge_mnv2.build.float_model import float_model
from edge_mnv2.build.inference import Operation, operations
from edge_mnv2.build.integer_model import integer_model
from edge_mnv2.build.pictures import read_crops
from edge_mnv2.build.weights import Weights, fit, read_weights
from edge_mnv2.errors import LabelsError, ModelError, UsageError
from edge_mnv2.network.mobilenet_v2 import mobilenet_v2, width_text
from edge_mnv2.network.network import Head, Network
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.zoo.labels import read_labels

IMAGENET = "imagenet"
IMAGENET_ENTRY = "torchvision-mobilenet_v2"
_DIGITS = 6
_TIMED = 20


@dataclass(frozen=True)
class BuildRequest:
    """What to build. `weights` is "imagenet" or a `.pth` or `.safetensors` file; None where the weights decide."""

    out: Path
    weights: str = IMAGENET
    width: Optional[float] = None
    resolution: int = 224
    classes: Optional[int] = None
    labels: Optional[Path] = None
    calibration: Optional[Path] = None
    task: str = "classification"
    bounds: Optional[tuple[float, float]] = None
    unit: Optional[str] = None
    floating: bool = False
    target: str = "cpu"
    input_dtype: str = "uint8"


@dataclass(frozen=True)
class BuildReport:
    """The file that was written and what is known about it."""

    request: BuildRequest
    network: Network
    sha256: str
    bytes: int
    inference_ms: Optional[float]
    comparison: Optional[Comparison] = None
    layers: list[dict[str, Any]] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of `build`, by the names of the command line's contract."""
        compared = self.comparison
        return {
            "out": str(self.request.out),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "agreement": compared.agreement if compared else None,
            "logit_cosine": round(compared.logit_cosine, 6) if compared else None,
            "saturation": compared.saturation if compared else None,
            "pictures": compared.pictures if compared else None,
            "network": self.network.name,
            "parameters": self.network.parameters,
            "macs": self.network.macs,
            "inference_ms": self.inference_ms,
            "layers": self.layers,
            "written": [str(path) for path in self.written],
        }


Say = Callable[[str], None]


def build(request: BuildRequest, say: Say = lambda line: None) -> BuildReport:
    """Build, write and measure. Every file appears whole or not at all.

    Raises UsageError for what cannot go together or be written, ModelError for weights that do not fit, LabelsError,
    DownloadError where the ImageNet weights cannot be had.
    """
    _check(request)
    network, weights = _network(request, say)
    labels = _labels(request, network)
    steps = operations(network, weights.tensors)
    reference = float_model(network, steps)
    if request.floating:
        return _finish(request, network, weights, reference, steps, labels)
    folder_crops = None
    if request.calibration is not None:
        folder_crops = read_crops(request.calibration, request.resolution)
        say(f"calibrating with {len(folder_crops.images)} crops of {folder_crops.pictures} pictures")
        ranges = _rounded(
            activation_ranges(reference, steps, folder_crops.images, regression=request.task == "regression")
        )
    else:
        ranges = _shipped_ranges(network, weights)
    model = integer_model(network, steps, ranges, input_dtype=request.input_dtype)
    if request.target == "edgetpu":
        from edge_mnv2.build.edgetpu_limits import check_edgetpu

        check_edgetpu(model)
    compared = None
    if folder_crops is not None:
        compared = compare(
            reference,
            model,
            steps,
            [image for image, whole in zip(folder_crops.images, folder_crops.whole) if whole],
            classes=network.head.task == "classification" and network.outputs > 1,
        )
    document = None
    if folder_crops is not None:
        document = ranges_document(network, weights, ranges, folder_crops.pictures, len(folder_crops.images))
    return _finish(request, network, weights, model, steps, labels, compared, document)


def ranges_document(
    network: Network, weights: Weights, ranges: Mapping[str, tuple[float, float]], pictures: int, crops: int
) -> str:
    """The JSON text of calibration ranges, as it is kept beside a model and read by `_shipped_ranges`."""
    content = {
        "network": {"width": weights.width, "resolution": network.input[0], "outputs": network.outputs},
        "weights_sha256": weights.sha256,
        "pictures": pictures,
        "crops": crops,
        "ranges": {name: list(pair) for name, pair in ranges.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def _check(request: BuildRequest) -> None:
    if request.task not in ("classification", "regression"):
        raise UsageError(f"--task {request.task}", hint="classification or regression")
    if request.target not in ("cpu", "edgetpu"):
        raise UsageError(f"--target {request.target}", hint="cpu or edgetpu")
    if request.floating and request.target == "edgetpu":
        raise UsageError("--float and --target edgetpu exclude each other", hint="an Edge TPU runs integers only")
    if request.weights == IMAGENET:
        if request.width not in (None, 1.0):
            raise UsageError(
                f"the imagenet weights exist for width 1.0 only, not {request.width:g}", hint="give --weights FILE"
            )
        if request.classes not in (None, 1000):
            raise UsageError(f"the imagenet weights have 1000 classes, not {request.classes}")
        if request.task != "classification":
            raise UsageError("the imagenet weights are a classifier's", hint="give --weights FILE of a regression")
    check_target("--out", request.out, ".tflite")
    if request.bounds is not None and not request.floating:
        raise UsageError("bounds can be built as a float model only", hint="add --float, or leave the value linear")


def _network(request: BuildRequest, say: Say) -> tuple[Network, Weights]:
    if request.weights == IMAGENET:
        from edge_mnv2.zoo.pull import fetch

        path = Path(fetch(IMAGENET_ENTRY))
    else:
        path = Path(request.weights)
    weights = read_weights(path)
    width = request.width if request.width is not None else weights.width
    outputs = request.classes if request.classes is not None else weights.outputs
    if width is None or outputs is None:
        raise ModelError(f"weights {path}: no MobileNetV2 has tensors of these shapes", hint="give --width, --classes")
    # Logits, not probabilities: the runtime's softmax in float keeps small scores apart that 1/256 steps make equal.
    head = Head(request.task, bounds=request.bounds)
    network = mobilenet_v2(width, request.resolution, outputs, head)
    fit(weights, network)
    say(f"{network.name}: {network.parameters / 1e6:.2f} M parameters, {network.macs / 1e6:.1f} M MACs")
    return network, weights


def _labels(request: BuildRequest, network: Network) -> Optional[list[str]]:
    if request.labels is not None:
        names = read_labels(request.labels)
        if len(names) != network.outputs:
            raise LabelsError(f"{request.labels} has {len(names)} names, the weights have {network.outputs} outputs")
        return names
    if request.weights == IMAGENET:
        return read_labels(paths.packaged("models", "labels", "imagenet.txt"))
    return None


def _rounded(ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Ranges as the JSON file keeps them, so that a rebuild from the file gives the same bytes."""
    return {name: (_short(low), _short(high)) for name, (low, high) in ranges.items()}


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _shipped_ranges(network: Network, weights: Weights) -> dict[str, tuple[float, float]]:
    size = network.input[0]
    name = f"mobilenet_v2_{width_text(weights.width or 0)}_{size}.ranges.json"
    path = paths.packaged("models", name)
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UsageError(
            f"no calibration ranges ship for these weights at {size} pixels",
            hint="give --calibration DIR with about fifty pictures like those that the model will see",
        ) from None
    if content["weights_sha256"] != weights.sha256:
        raise UsageError(
            f"weights {weights.source} are not those that the shipped calibration ranges belong to",
            hint="give --calibration DIR with about fifty pictures like those that the model will see",
        )
    return {tensor: (pair[0], pair[1]) for tensor, pair in content["ranges"].items()}


def _finish(
    request: BuildRequest,
    network: Network,
    weights: Weights,
    model: bytes,
    steps: list[Operation],
    labels: Optional[list[str]],
    compared: Optional[Comparison] = None,
    ranges: Optional[str] = None,
) -> BuildReport:
    milliseconds = _timed(model)
    files: Files = []
    if ranges is not None:
        files.append((request.out.with_suffix(".ranges.json"), ranges.encode()))
    origin = f"built by edge-mnv2 from {weights.source}, sha256 {weights.sha256}"
    files += companions(request.out, origin, task=request.task, labels=labels, unit=request.unit)
    written = write_all([*files, (request.out, model)])
    layers = [
        {
            "name": step.output,
            "operator": step.kind,
            "output": list(step.shape),
            "snr_db": compared.snr_db.get(step.output) if compared else None,
        }
        for step in steps
        if step.kind != "pad"
    ]
    digest = hashlib.sha256(model).hexdigest()
    return BuildReport(request, network, digest, len(model), milliseconds, compared, layers, written)


def _timed(model: bytes) -> Optional[float]:
    """Median milliseconds of one inference with one thread on this machine."""
    with open_interpreter(model) as interpreter:
        spec = interpreter.inputs[0]
        interpreter.set_input(np.zeros(spec.shape, spec.dtype))
        interpreter.invoke()
        times = []
        for _ in range(_TIMED):
            began = time.perf_counter()
            interpreter.invoke()
            times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e3, 3)
