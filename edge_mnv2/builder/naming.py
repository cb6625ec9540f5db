"""What people's training code calls MobileNetV2's tensors: one table of namings, and the head behind the features.

A naming is recognized by two of its names behind any prefix, so wrappers (`module.`, `model.backbone.`, a `Sequential`)
need no table of their own. Each name is translated into torchvision's, which is the network's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Callable, Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.network.blocks import NORM_EPSILON
from edge_mnv2.network.network import BOTTLENECKS

Tensors = Mapping[str, np.ndarray]

LAST = 1 + sum(repeats for _, _, repeats, _ in BOTTLENECKS)
"""Place of the last convolution among torchvision's `features`."""

HEAD = "classifier.1"
_NORM_FIELDS = ("weight", "bias", "running_mean", "running_var")
_COPY = re.compile(r"(?:^|[._])(?:ema|swa|averaged|teacher|momentum|target)")
_SHOWN = 3


@dataclass(frozen=True)
class Naming:
    """`first` and `second` are two names that tell this naming; `translate` gives torchvision's name, or None.

    `tensorflow`: trained with TensorFlow's conventions: `SAME` padding and pictures from -1 to 1. `epsilon` is the
    normalization's.
    """

    name: str
    first: str
    second: str
    translate: Callable[[str], Optional[str]]
    tensorflow: bool = False
    epsilon: float = NORM_EPSILON


@dataclass(frozen=True)
class Linear:
    """One layer of a head: float64 `weights` (outputs, inputs), `bias` (outputs,)."""

    weights: np.ndarray
    bias: np.ndarray


@dataclass
class Named:
    """A network's tensors by torchvision's names (float32) and what else the file says about them.

    `head` are its linear layers, with a ReLU between them. `left_out`: names that belong to no layer of the network.
    `assumed`: sentences about what the file does not say. `mean` and `std` are the pictures' (of 1), None if unknown.
    `task` and `resolution` (pixels) are known of Keras files.
    """

    features: dict[str, np.ndarray]
    head: list[Linear]
    left_out: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    tensorflow: bool = False
    mean: Optional[tuple[float, ...]] = None
    std: Optional[tuple[float, ...]] = None
    task: Optional[str] = None
    resolution: Optional[int] = None


def _torchvision(name: str) -> Optional[str]:
    return f"features.{name}" if re.match(r"\d+\.", name) else None


def _flat(name: str) -> Optional[str]:
    """One flat `conv` a block: convolution, normalization and activation each have a place in it."""
    if name.startswith("conv."):
        return f"features.{LAST}.{name[len('conv.') :]}"
    block = re.fullmatch(r"(features\.(\d+)\.conv)\.(\d)\.(\w+)", name)
    if not block:
        return name if name.startswith("features.") else None
    places = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
    if block[2] != "1":
        places = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}
    return f"{block[1]}.{places[block[3]]}.{block[4]}" if block[3] in places else name


def _timm(name: str) -> Optional[str]:
    ends = {"conv_stem.": "0.0.", "bn1.": "0.1.", "conv_head.": f"{LAST}.0.", "bn2.": f"{LAST}.1."}
    for start, place in ends.items():
        if name.startswith(start):
            return f"features.{place}{name[len(start) :]}"
    block = re.fullmatch(r"blocks\.(\d)\.(\d)\.(\w+)\.(\w+)", name)
    if not block or int(block[1]) >= len(BOTTLENECKS):
        return f"features.{name}" if name.startswith("blocks.") else None
    stage = int(block[1])
    index = 1 + sum(repeats for _, _, repeats, _ in BOTTLENECKS[:stage]) + int(block[2])
    places = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
    if BOTTLENECKS[stage][0] == 1:
        places = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
    return f"features.{index}.conv.{places[block[3]]}.{block[4]}" if block[3] in places else f"features.{name}"


def _transformers(name: str) -> Optional[str]:
    layer = re.fullmatch(r"(conv_stem|layer\.(\d+)|conv_1x1)\.(?:(\w+)\.)?(convolution|normalization)\.(\w+)", name)
    if not layer:
        return f"features.{name}" if name.startswith(("conv_stem.", "layer.", "conv_1x1.")) else None
    part, number, inner, kind, value = layer.groups()
    norm = kind == "normalization"
    if part == "conv_1x1" or inner == "first_conv":
        return f"features.{LAST if part == 'conv_1x1' else 0}.{int(norm)}.{value}"
    index = 1 if part == "conv_stem" else 2 + int(number)
    step = {"expand_1x1": 0, "conv_3x3": 0 if index == 1 else 1, "reduce_1x1": 1 if index == 1 else 2}.get(inner or "")
    if step is None:
        return f"features.{name}"
    place = f"{step + norm}" if inner == "reduce_1x1" else f"{step}.{int(norm)}"
    return f"features.{index}.conv.{place}.{value}"


def _keras(name: str) -> Optional[str]:
    """Layers of `keras.applications`, which `keras_file` has given PyTorch's fields."""
    layer, _, value = name.rpartition(".")
    ends = {"Conv1": "0.0", "bn_Conv1": "0.1", "Conv_1": f"{LAST}.0", "Conv_1_bn": f"{LAST}.1"}
    if layer in ends:
        return f"features.{ends[layer]}.{value}"
    block = re.fullmatch(r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)(_BN)?", layer)
    if block is None:
        return None
    step = {"expand": 0, "depthwise": 1, "project": 2}[block[2]] - (block[1] is None)
    norm = block[3] is not None
    place = f"{step + norm}" if block[2] == "project" else f"{step}.{int(norm)}"
    return f"features.{1 + int(block[1] or 0)}.conv.{place}.{value}"


NAMINGS = (
    Naming("torchvision", "0.0.weight", "1.conv.0.0.weight", _torchvision),
    Naming("flat", "features.0.0.weight", "features.1.conv.3.weight", _flat),
    Naming("timm", "conv_stem.weight", "blocks.0.0.conv_dw.weight", _timm),
    Naming(
        "transformers",
        "conv_stem.first_conv.convolution.weight",
        "layer.0.expand_1x1.convolution.weight",
        _transformers,
        tensorflow=True,
        epsilon=1e-3,
    ),
    Naming("keras.applications", "Conv1.weight", "block_1_expand.weight", _keras, tensorflow=True),
)


def recognized(names: Iterable[str]) -> Optional[tuple[Naming, str]]:
    """The naming that `names` follow and the prefix before it (no copy's, the shortest); None for another network."""
    known = set(names)
    matches = [
        (name[: -len(naming.first)], naming)
        for naming in NAMINGS
        for name in known
        if name.endswith(naming.first)
        and (len(name) == len(naming.first) or name[-len(naming.first) - 1] == ".")
        and name[: -len(naming.first)] + naming.second in known
    ]
    if not matches:
        return None
    prefix, naming = min(matches, key=lambda match: (is_copy(match[0]), len(match[0]), match[0]))
    return naming, prefix


def is_copy(path: str) -> bool:
    """Whether names say that this is an averaged copy or a teacher beside the network that was trained."""
    return _COPY.search(path.lower()) is not None


def named(tensors: Tensors, source: str) -> Named:
    """`tensors` by torchvision's names. Raises ModelError, which calls the file `source`, for another network, and for
    a head that cannot be built."""
    match = recognized(tensors)
    if match is None:
        raise ModelError(
            f"{source} are of another network: they begin with {', '.join(list(tensors)[:_SHOWN])}",
            hint="names of torchvision, timm, transformers, keras.applications and flat ones are understood",
        )
    naming, prefix = match
    features: dict[str, np.ndarray] = {}
    others: dict[str, np.ndarray] = {}
    for name, values in tensors.items():
        translated = naming.translate(name[len(prefix) :]) if name.startswith(prefix) else None
        if name.endswith("num_batches_tracked"):
            continue
        field_name = name.rpartition(".")[2]
        if translated is None or (field_name not in _NORM_FIELDS and values.size <= 1):
            # Counters of profilers and observers hold one number; a layer's own values are more, or have these names.
            others[name] = values
            continue
        if values.dtype.kind != "f":
            raise ModelError(f"{source}: '{name}' is {values.dtype}, not a floating-point number")
        with np.errstate(over="ignore"):
            features[translated] = values.astype(np.float32)
    if naming.epsilon != NORM_EPSILON:
        # Another epsilon is a larger variance: (variance + 1e-3) = (variance + 1e-3 - 1e-5) + 1e-5.
        more = np.float32(naming.epsilon - NORM_EPSILON)
        features = {name: v + more if name.endswith("running_var") else v for name, v in features.items()}
    result = Named(features, [], tensorflow=naming.tensorflow)
    size = features[f"features.{LAST}.0.weight"].shape[0] if f"features.{LAST}.0.weight" in features else None
    scope = prefix
    while True:
        inside = {name: values for name, values in others.items() if name.startswith(scope)}
        head, used = _head(inside, size, source, result.assumed)
        if head or not scope:
            break
        scope = scope.rstrip(".").rpartition(".")[0]
        scope += "." if scope else ""
    if not head:
        raise ModelError(f"{source} have no classifier: {_without_head(others, size)}")
    result.head = head
    result.left_out = [name for name in others if name not in used]
    _normalization(result, others)
    return result


def _without_head(others: Tensors, size: Optional[int]) -> str:
    if size is None:
        return "the last convolution before it is missing too"
    matrices = [(name, values.shape[1]) for name, values in others.items() if values.ndim == 2]
    if matrices:
        name, inputs = matrices[0]
        return f"'{name}' takes {inputs} values, not the {size} features of the average pool"
    return "the features alone cannot be built into a model"


def _normalization(result: Named, others: Tensors) -> None:
    """Buffers that hold the pictures' mean and standard deviation, as wrappers register them."""
    values = {}
    for key in ("mean", "std"):
        buffers = [one for name, one in others.items() if re.search(rf"(?:^|[._]){key}$", name) and one.size == 3]
        if len(buffers) != 1:
            return
        values[key] = tuple(float(value) for value in buffers[0].reshape(-1))
    scale = 255.0 if max(*values["mean"], *values["std"]) > 1 else 1.0
    if min(values["std"]) > 0:
        result.mean, result.std = (tuple(value / scale for value in values[key]) for key in ("mean", "std"))


def _head(tensors: Tensors, size: Optional[int], source: str, assumed: list[str]) -> tuple[list[Linear], set[str]]:
    """The chain of linear layers in `tensors` that begins at `size` features, and the names of its tensors.

    Batch normalization on the way is merged. Raises ModelError for two chains, and for layers that cannot be merged.
    """
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, values in tensors.items():
        module, _, value = name.rpartition(".")
        modules.setdefault(module, {})[value] = values
    chain = _Chain(size)
    used: set[str] = set()
    first = last = ""
    for module, fields in modules.items():
        weights = fields.get("weight")
        if "running_var" in fields and fields["running_var"].shape == (chain.size,):
            chain.normalization(fields, _gap(last, module) > 1)
        elif weights is not None and _matrix(weights) is not None:
            matrix = _matrix(weights)
            assert matrix is not None
            if matrix.shape[1] == chain.size:
                chain.linear(matrix, fields.get("bias"), _gap(last, module))
                first = first or module
            elif first and matrix.shape[1] == size:
                raise ModelError(
                    f"{source} have two heads, '{first}' and '{module}'", hint="save the one that is meant alone"
                )
            else:
                continue
        elif weights is not None and weights.shape == (chain.size,) and "bias" in fields:
            raise ModelError(f"{source}: the head normalizes layers ('{module}'), which cannot be built")
        else:
            continue
        last = module
        used |= {f"{module}.{value}" if module else value for value in fields}
    if not first:
        return [], set()
    if chain.activations:
        assumed.append(f"a ReLU between the head's {len(chain.layers)} layers (the file does not name it)")
    return chain.finished(), used


def _matrix(weights: np.ndarray) -> Optional[np.ndarray]:
    """(outputs, inputs) of a linear layer or a 1x1 convolution."""
    if weights.ndim == 4 and weights.shape[2:] == (1, 1):
        weights = weights[:, :, 0, 0]
    return weights if weights.ndim == 2 and weights.dtype.kind == "f" else None


def _gap(before: str, after: str) -> int:
    """Places between two modules of one `Sequential`; 0 where their names do not tell."""
    one, two = before.rpartition("."), after.rpartition(".")
    same = one[0] == two[0] and one[2].isdecimal() and two[2].isdecimal()
    return int(two[2]) - int(one[2]) if same else 0


class _Chain:
    """A head that grows layer by layer; batch normalization becomes part of the layer before or after it."""

    def __init__(self, size: Optional[int]) -> None:
        self.size = size
        self.layers: list[Linear] = []
        self.activations = 0
        self._waiting: Optional[tuple[np.ndarray, np.ndarray]] = None
        self._activated = False

    def linear(self, matrix: np.ndarray, bias: Optional[np.ndarray], gap: int) -> None:
        weights = matrix.astype(np.float64)
        offsets = np.zeros(len(weights)) if bias is None else bias.astype(np.float64)
        if self._waiting is not None:
            factor, shift = self._waiting
            weights, offsets = weights * factor, offsets + weights @ shift
            self._waiting = None
        if self.layers and gap == 1 and not self._activated:
            # Neighbours in a Sequential: no activation is between them.
            before = self.layers.pop()
            weights, offsets = weights @ before.weights, weights @ before.bias + offsets
        elif self.layers:
            self.activations += 1
        self.layers.append(Linear(weights, offsets))
        self.size, self._activated = len(offsets), False

    def normalization(self, values: Mapping[str, np.ndarray], behind_activation: bool) -> None:
        factor = 1 / np.sqrt(values["running_var"].astype(np.float64) + NORM_EPSILON)
        factor = factor * values["weight"].astype(np.float64) if "weight" in values else factor
        shift = -values["running_mean"].astype(np.float64) * factor
        shift = shift + values["bias"].astype(np.float64) if "bias" in values else shift
        if not self.layers or behind_activation:
            self._waiting = factor, shift
            self._activated = bool(self.layers)
            return
        before = self.layers[-1]
        self.layers[-1] = Linear(before.weights * factor[:, None], before.bias * factor + shift)

    def finished(self) -> list[Linear]:
        if self._waiting is not None and self.layers:
            raise ModelError("the head ends in an activation and a batch normalization, which cannot be built")
        return self.layers
