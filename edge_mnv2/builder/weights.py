"""Trained weights for our network: from a file's names to the network's own, and what does not fit is said by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2.builder.checkpoint import read_tensors
from edge_mnv2.errors import ModelError
from edge_mnv2.network.mobilenet_v2 import BOTTLENECKS, WIDTHS, mobilenet_v2
from edge_mnv2.network.network import Network

_SHOWN = 3
_WIDTHS = sorted(
    {*WIDTHS, *(round(0.05 * step, 2) for step in range(1, 81))}, key=lambda width: (width not in WIDTHS, width)
)


@dataclass(frozen=True)
class Weights:
    """A state dict in torchvision's names (float32), and where it came from.

    `width` and `outputs` are what the tensors' shapes say; None where no MobileNetV2 has such shapes.
    """

    tensors: Mapping[str, np.ndarray]
    source: str
    sha256: str
    width: Optional[float]
    outputs: Optional[int]


def read_weights(path: Path) -> Weights:
    """Weights from a `.pth` or `.safetensors` file with torchvision's or timm's names, with or without a prefix.

    Raises ModelError for a file that cannot be read, holds no MobileNetV2, or has values that are no finite numbers.
    """
    path = Path(path)
    tensors = _torchvision_names(read_tensors(path), f"weights {path}")
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise ModelError(f"weights {path}: '{name}' holds NaN or infinity", hint="the training diverged")
        if name.endswith("running_var") and (values < 0).any():
            raise ModelError(f"weights {path}: '{name}' holds a negative variance")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    classifier = tensors.get("classifier.1.weight")
    outputs = classifier.shape[0] if classifier is not None and classifier.ndim == 2 else None
    return Weights(tensors, path.name, digest, _width(tensors), outputs)


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
    advice = [f"--width {weights.width:g}"] if _shapes(weights.width) != _shapes_of(network) else []
    if weights.outputs is not None and weights.outputs != network.outputs:
        advice.append(f"--classes {weights.outputs}")
    return f"they fit {' and '.join(advice)}" if advice else "their backbone is MobileNetV2's, their classifier is not"


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape) or "no dimensions"


def _shapes_of(network: Network) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in network.state_dict_shapes().items() if name.startswith("features.")}


def _shapes(width: float) -> dict[str, tuple[int, ...]]:
    return _shapes_of(mobilenet_v2(width, 224, 1))


def _width(tensors: Mapping[str, np.ndarray]) -> Optional[float]:
    found = {name: values.shape for name, values in tensors.items() if name.startswith("features.")}
    for width in _WIDTHS:
        if _shapes(width) == found:
            return width
    return None


def _torchvision_names(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """`tensors` by the names that torchvision gives them, as float32; counters of the training are dropped."""
    found = [
        (name[: -len(first)], first)
        for first in ("features.0.0.weight", "conv_stem.weight")
        for name in tensors
        if name == first or name.endswith("." + first)
    ]
    if not found:
        names = ", ".join(list(tensors)[:_SHOWN])
        raise ModelError(
            f"{source} are of another network: they begin with {names}",
            hint="torchvision's names (features.0.0.weight) or timm's (conv_stem.weight) are understood",
        )
    prefix, first = min(found, key=lambda pair: len(pair[0]))
    translate = _from_timm if first.startswith("conv_stem") else str
    named = {}
    for name, values in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        if not name.startswith(prefix):
            raise ModelError(f"{source}: '{name}' belongs to another part than '{prefix}{first}'")
        if values.dtype.kind != "f":
            raise ModelError(f"{source}: '{name}' is {values.dtype}, not a floating-point number")
        with np.errstate(over="ignore"):
            named[translate(name[len(prefix) :])] = values.astype(np.float32)
    return _one_classifier(named, source)


def _from_timm(name: str) -> str:
    last = 1 + sum(repeats for _, _, repeats, _ in BOTTLENECKS)
    for old, new in (
        ("conv_stem.", "features.0.0."),
        ("bn1.", "features.0.1."),
        ("conv_head.", f"features.{last}.0."),
        ("bn2.", f"features.{last}.1."),
        ("classifier.", "classifier.1."),
    ):
        if name.startswith(old):
            return new + name[len(old) :]
    found = re.fullmatch(r"blocks\.(\d)\.(\d)\.(\w+)\.(\w+)", name)
    if not found or int(found[1]) >= len(BOTTLENECKS):
        return name
    stage, repeat = int(found[1]), int(found[2])
    index = 1 + sum(repeats for _, _, repeats, _ in BOTTLENECKS[:stage]) + repeat
    if BOTTLENECKS[stage][0] == 1:
        places = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
    else:
        places = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
    return f"features.{index}.conv.{places[found[3]]}.{found[4]}" if found[3] in places else name


def _one_classifier(named: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """A replaced classifier (`classifier`, `classifier.1.1`, ...) gets the usual name, where it is one layer."""
    matrices = [name for name in named if not name.startswith("features.") and name.endswith("weight")]
    if len(matrices) > 1:
        raise ModelError(
            f"{source} have {len(matrices)} layers behind the features: {', '.join(matrices[:_SHOWN])}",
            hint="a single linear layer can be built",
        )
    if not matrices:
        raise ModelError(f"{source} have no classifier: the features alone cannot be built into a model")
    prefix = matrices[0][: -len("weight")]
    if prefix + "bias" not in named:
        named[prefix + "bias"] = np.zeros(named[matrices[0]].shape[:1], np.float32)
    return {
        "classifier.1." + name[len(prefix) :] if name.startswith(prefix) else name: values
        for name, values in named.items()
    }
