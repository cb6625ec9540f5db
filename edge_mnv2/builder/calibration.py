"""Calibration: crops of pictures, the activation ranges that the float model shows on them, and ranges as a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.builder.inference import LOGITS, Operation
from edge_mnv2.builder.quantization import Ranges
from edge_mnv2.builder.weights import Weights
from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.errors import ModelError, SourceError, UsageError
from edge_mnv2.network.network import Network, width_text
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter


def activation_limits(model: bytes, steps: list[Operation], pictures: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Each activation's minimum and maximum on each of `pictures` (RGB uint8 of the model's size): (pictures, 2).

    `model` is the float model of `steps`.
    """
    names = [step.output for step in steps if step.kind != "pad"]
    with open_interpreter(model, xnnpack=False, preserve_all_tensors=True, threads=2) as interpreter:
        index = {details["name"]: details["index"] for details in interpreter.tensor_details()}
        to_input = InputWriter(interpreter.inputs[0])
        seen = []
        for picture in pictures:
            interpreter.set_input(to_input(picture))
            interpreter.invoke()
            values = [interpreter.tensor(index[name]) for name in names]
            seen.append([(float(value.min()), float(value.max())) for value in values])
    limits = np.array(seen)
    return {name: limits[:, place] for place, name in enumerate(names)}


def spanned(
    limits: Mapping[str, np.ndarray], share: float = 0.0, *, regression: bool = False
) -> dict[str, tuple[float, float]]:
    """Ranges of activations: the mean of the pictures' minima and maxima, `share` of the way to the extremes.

    The mean keeps one odd picture from making every step coarser; small networks need wider ranges. The logits always
    get the mean, which `LOGIT_MARGIN` widens. For a `regression` the last one gets the extremes: every picture's value
    has to fit.
    """
    ranges = {}
    for name, each in limits.items():
        ends = np.array([each[:, 0].min(), each[:, 1].max()])
        part = share if name != LOGITS else float(regression)
        low, high = (1 - part) * each.mean(axis=0) + part * ends
        ranges[name] = (float(low), float(high))
    return ranges


def activation_ranges(
    model: bytes, steps: list[Operation], pictures: Iterable[np.ndarray], *, regression: bool = False
) -> dict[str, tuple[float, float]]:
    """`spanned` of the `activation_limits` on `pictures`: the mean of their ranges."""
    return spanned(activation_limits(model, steps, pictures), regression=regression)


log = logging.getLogger(__name__)

CROPS = 50
"""About so many crops settle the mean of the ranges; more change nothing that can be measured."""

_LEAST = 3
_CORNER = 0.7


@dataclass(frozen=True)
class Crops:
    """`images` are RGB uint8 of the model's size; `whole` marks those that are a picture's usual centre crop."""

    images: Sequence[np.ndarray]
    whole: Sequence[bool]
    pictures: int


def read_crops(folder: Path, size: int, crops: int = CROPS, option: str = "--calibration") -> Crops:
    """Crops of the pictures in `folder`: the usual centre crop of each, and where they are few, more parts of each.

    Raises UsageError where the folder has fewer than three readable pictures.
    """
    try:
        files = list_stills(folder)
    except SourceError as error:
        raise UsageError(f"{option} {folder}: {error.message}") from error
    pictures = []
    if len(files) > crops:
        # Evenly over the whole folder, which may be sorted by class.
        files = [files[round(place * (len(files) - 1) / (crops - 1))] for place in range(crops)]
    for file in files:
        try:
            pictures.append(read_still(file))
        except SourceError as error:
            log.warning("%s", error)
    if len(pictures) < _LEAST:
        raise UsageError(
            f"{option} {folder}: {len(pictures)} readable picture{'' if len(pictures) == 1 else 's'}",
            hint=f"give a folder with at least {_LEAST}; about {crops} are enough",
        )
    each = min(6, -(-crops // len(pictures)))
    images, whole = [], []
    for picture in pictures:
        for number, (left, top, wide, high) in enumerate(_boxes(*picture.shape[:2])[:each]):
            part = picture[top : top + high, left : left + wide]
            images.append(resized(part, size))
            whole.append(number == 0)
    return Crops(images, whole, len(pictures))


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """`picture` (HxWx3 uint8) as `size` x `size`, one linear resize as in every command; without OpenCV by numpy, whose
    values differ by one level at most. (32-bit Arm has no OpenCV wheel, and a build needs nothing else of it.)"""
    try:
        import cv2
    except ImportError:
        return linear(picture, size)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


def linear(picture: np.ndarray, size: int) -> np.ndarray:
    """`resized` in numpy: each new pixel's centre lies between two rows and two columns of the old ones."""
    rows = picture.astype(np.float32)
    for axis in (0, 1):
        place = np.clip((np.arange(size) + 0.5) * (rows.shape[axis] / size) - 0.5, 0, rows.shape[axis] - 1)
        first = np.minimum(place.astype(int), max(rows.shape[axis] - 2, 0))
        second = np.minimum(first + 1, rows.shape[axis] - 1)
        share = (place - first).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        rows = rows.take(first, axis) * (1 - share) + rows.take(second, axis) * share
    return np.rint(rows).astype(np.uint8)


def _boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(left, top, width, height): the usual centre crop, four corners, the whole picture."""
    short = min(height, width)
    centre, corner = max(1, round(short * 224 / 256)), max(1, round(short * _CORNER))
    return [
        ((width - centre) // 2, (height - centre) // 2, centre, centre),
        (0, 0, corner, corner),
        (width - corner, height - corner, corner, corner),
        (width - corner, 0, corner, corner),
        (0, height - corner, corner, corner),
        (0, 0, width, height),
    ]


_DIGITS = 6
_CALIBRATE = "give --calibration DIR with about fifty pictures like those that the model will see"


def rounded_ranges(ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Ranges as the JSON file keeps them, so that a rebuild from the file gives the same bytes."""
    return {name: (_short(low), _short(high)) for name, (low, high) in ranges.items()}


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def ranges_document(network: Network, weights: Weights, ranges: Ranges, pictures: int, crops: int) -> str:
    """The JSON text of calibration ranges, as it is kept beside a model and read by `shipped_ranges`."""
    content = {
        "network": {"width": weights.width, "resolution": network.input[0], "outputs": network.outputs},
        "weights_sha256": weights.sha256,
        "pictures": pictures,
        "crops": crops,
        "ranges": {name: list(pair) for name, pair in ranges.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def shipped_ranges(network: Network, weights: Weights) -> dict[str, tuple[float, float]]:
    """The ranges that ship for `weights` at the network's resolution. Raises UsageError where there are none."""
    size = network.input[0]
    path = paths.packaged("models", f"mobilenet_v2_{width_text(weights.width or 0)}_{size}.ranges.json")
    if not path.is_file():
        raise UsageError(f"no calibration ranges ship for these weights at {size} pixels", hint=_CALIBRATE)
    return _read_ranges(path, weights)


def read_ranges(path: Path, network: Network, weights: Weights) -> dict[str, tuple[float, float]]:
    """The ranges in file `path`. Raises ModelError for another kind of file, UsageError where they belong to other
    weights or another resolution."""
    try:
        size = json.loads(path.read_text(encoding="utf-8"))["network"]["resolution"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"--ranges {path} holds no calibration ranges ({error})") from error
    if size != network.input[0]:
        raise UsageError(
            f"--ranges {path} are for {size} pixels, the model takes {network.input[0]}", hint=f"--resolution {size}"
        )
    return _read_ranges(path, weights, f"the ranges in {path}")


def _read_ranges(
    path: Path, weights: Weights, what: str = "the shipped calibration ranges"
) -> dict[str, tuple[float, float]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest, ranges = content["weights_sha256"], content["ranges"]
        values = {str(name): (float(low), float(high)) for name, (low, high) in ranges.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} holds no calibration ranges ({error})", hint="install edge-mnv2 again") from error
    if digest != weights.sha256:
        raise UsageError(f"weights {weights.source} are not those that {what} belong to", hint=_CALIBRATE)
    return values
