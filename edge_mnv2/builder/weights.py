"""Trained weights for our network: from a file's names to the network's own, and what does not fit is said by name."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2.builder.checkpoint import read_tensors
from edge_mnv2.builder.inference import MEAN, STD
from edge_mnv2.builder.keras_file import is_keras, read_keras
from edge_mnv2.builder.naming import HEAD, Named, named
from edge_mnv2.errors import ModelError
from edge_mnv2.network.network import WIDTHS, Network, mobilenet_v2

log = logging.getLogger(__name__)

_SHOWN = 3
_LARGEST = 1e10
"""No trained network has larger weights; with them 32-bit sums overflow."""
_WIDTHS = sorted(
    {*WIDTHS, *(round(0.05 * step, 2) for step in range(1, 81))}, key=lambda width: (width not in WIDTHS, width)
)
_DIVISORS = (8, 4)
"""Channels are multiples of 8; one public port takes multiples of 4 at width 0.1."""


@dataclass(frozen=True)
class Weights:
    """A state dict in torchvision's names (float32), and where it came from.

    `width`, `divisor` and `outputs` are what the tensors' shapes say (`width` None where no MobileNetV2 has such
    shapes); `hidden` the sizes of the head's layers before its last one. `tensorflow`: trained with `SAME` padding.
    `mean` and `std` are the pictures' (of 1), None where the file does not say. `left_out` names tensors of the file
    that are no part of the network, `assumed` are sentences about what it does not say. `task` and `resolution` are
    None where the file does not say them.
    """

    tensors: Mapping[str, np.ndarray]
    source: str
    sha256: str
    width: Optional[float]
    outputs: int
    divisor: int = 8
    hidden: tuple[int, ...] = ()
    tensorflow: bool = False
    mean: Optional[tuple[float, ...]] = None
    std: Optional[tuple[float, ...]] = None
    left_out: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    task: Optional[str] = None
    resolution: Optional[int] = None


def read_weights(path: Path) -> Weights:
    """Weights from a `.pth`, `.safetensors`, `.h5` or `.keras` file, by any of the known namings, in any wrapper.

    What is no part of the network is left out and said. Raises ModelError for a file that cannot be read, holds no
    MobileNetV2, or has values that are no finite numbers.
    """
    path = Path(path)
    source = f"weights {path}"
    network = read_keras(path) if is_keras(path) else named(read_tensors(path), source)
    tensors = dict(network.features)
    for number, layer in enumerate(network.head):
        name = HEAD if number == len(network.head) - 1 else f"classifier.hidden.{number}"
        tensors[f"{name}.weight"] = layer.weights.astype(np.float32)
        tensors[f"{name}.bias"] = layer.bias.astype(np.float32)
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise ModelError(f"{source}: '{name}' holds NaN or infinity", hint="the training diverged")
        if np.abs(values).max(initial=0) > _LARGEST:
            raise ModelError(
                f"{source}: '{name}' holds numbers up to {np.abs(values).max():.1e}", hint="the training diverged"
            )
        if name.endswith("running_var") and (values < 0).any():
            raise ModelError(f"{source}: '{name}' holds a negative variance")
    _report(network, source)
    width, divisor = _width(tensors)
    return Weights(
        tensors,
        path.name,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        width,
        len(network.head[-1].bias),
        divisor,
        tuple(len(layer.bias) for layer in network.head[:-1]),
        network.tensorflow,
        network.mean,
        network.std,
        tuple(network.left_out),
        tuple(network.assumed),
        network.task,
        network.resolution,
    )


def trainable_weights(path: Path) -> Weights:
    """`read_weights` for a training: PyTorch's padding, ImageNet's normalization. Raises ModelError for others."""
    weights = read_weights(path)
    if weights.tensorflow or (weights.mean or MEAN, weights.std or STD) != (MEAN, STD):
        raise ModelError(
            f"weights {path} were trained with another padding or normalization than `train` has",
            hint="`edge-mnv2 build` takes them; `train` begins with torchvision's or timm's",
        )
    return weights


def _report(network: Named, source: str) -> None:
    if network.left_out:
        rest = len(network.left_out) - _SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        log.warning("%s: left out, no part of the network: %s%s", source, ", ".join(network.left_out[:_SHOWN]), more)
    for sentence in network.assumed:
        log.warning("%s: assumed: %s", source, sentence)


def fit(weights: Weights, network: Network) -> None:
    """Check that `weights` has exactly the tensors of `network`.

    Raises ModelError that names the first tensors that do not fit, and the width or number of classes that would.
    """
    wanted = network.state_dict_shapes()
    wrong = [
        f"{name} has {_shown(weights.tensors[name].shape)}, not {_shown(shape)}"
        if name in weights.tensors
        else f"{name} is missing"
        for name, shape in wanted.items()
        if name not in weights.tensors or weights.tensors[name].shape != shape
    ]
    wrong += [f"{name} is unknown" for name in weights.tensors if name not in wanted]
    if not wrong:
        return
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    raise ModelError(
        f"weights {weights.source} do not fit {network.name} with {network.outputs} outputs: "
        f"{'; '.join(wrong[:_SHOWN])}{more}",
        hint=_advice(weights, network),
    )


def _advice(weights: Weights, network: Network) -> str:
    if weights.width is None:
        return "they are of another network than MobileNetV2"
    advice = [f"--width {weights.width:g}"] if _shapes(weights.width, weights.divisor) != _shapes_of(network) else []
    if weights.outputs != network.outputs:
        advice.append(f"--classes {weights.outputs}")
    return f"they fit {' and '.join(advice)}" if advice else "their backbone is MobileNetV2's, their classifier is not"


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "no dimensions"


def _shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in network.state_dict_shapes().items() if name.startswith("features.")}


def _shapes(width: float, divisor: int = 8) -> dict[str, tuple[int, ...]]:
    return _shapes_of(mobilenet_v2(width, 224, 1, divisor=divisor))


def _width(tensors: Mapping[str, np.ndarray]) -> tuple[Optional[float], int]:
    """The width multiplier and the divisor of channels that have these shapes."""
    shapes = {name: values.shape for name, values in tensors.items() if name.startswith("features.")}
    for divisor in _DIVISORS:
        for width in _WIDTHS:
            if _shapes(width, divisor) == shapes:
                return width, divisor
    return None, _DIVISORS[0]
