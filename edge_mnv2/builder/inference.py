"""A trained network as the sequence of operations that inference runs: batch normalization merged, padding explicit.

Both the float and the integer model are written from this one sequence, so their tensors carry the same names. All
arithmetic is elementwise float64 in a fixed order, so the same weights give the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.network.blocks import NORM_EPSILON, Convolution, Layer, Linear, Pool, Shape
from edge_mnv2.network.network import Network

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's RGB mean and standard deviation for pixels in 0..1, which torchvision's and timm's weights expect."""


@dataclass(frozen=True)
class Normalization:
    """How pictures were prepared for the weights: (pixel / 255 - mean) / std, one value a colour (RGB)."""

    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def common_std(self) -> float:
        """One standard deviation for all colours, the mean of the three: the first weights make up for the rest."""
        return round(sum(self.std) / len(self.std), 9)

    @property
    def zero_pixel(self) -> int:
        """The grey pixel that stands for 0: the mean of the three means, in 0..255."""
        return min(max(round(255 * sum(self.mean) / len(self.mean)), 0), 255)


IMAGENET_PICTURES = Normalization()
TENSORFLOW_PICTURES = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Pictures from -1 to 1, as TensorFlow's and Keras's MobileNetV2 take them."""

INPUT = "input"
LOGITS = "logits"


@dataclass(frozen=True)
class Operation:
    """One step: `kind` is pad, convolution, depthwise, add, mean or linear; `output` names the tensor it makes.

    `size`: rows and columns of a convolution's input. `weights` float64 in the layout of `.tflite` (convolution: out,
    rows, columns, in; depthwise: 1, rows, columns, out; linear: out, in), `bias` float64 (out,). `before` and `after`
    are rows and columns of zeros to add, for pad.
    `same` says that the convolution pads itself as `SAME` does. `spread` is the trained standard deviation of each
    channel before the activation, `centre` its mean; None where no normalization was merged.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape
    weights: Optional[np.ndarray] = None
    bias: Optional[np.ndarray] = None
    stride: int = 1
    same: bool = True
    activation: str = "linear"
    before: int = 0
    after: int = 0
    size: tuple[int, int] = (1, 1)
    centre: Optional[np.ndarray] = None
    spread: Optional[np.ndarray] = None


def operations(network: Network, tensors: Mapping[str, np.ndarray], *, same_padding: bool = False) -> list[Operation]:
    """What inference of `network` with the state dict `tensors` runs, from `INPUT` to `LOGITS`.

    `same_padding`: the weights were trained with TensorFlow's `SAME`, else with kernel // 2 zeros on each side.
    """
    steps: list[Operation] = []
    current = INPUT
    for stage in network.stages:
        for block in stage.blocks:
            entry = current
            current = _path(steps, block.path, tensors, entry, same_padding)
            if block.shortcut is not None:
                waiting = _path(steps, block.shortcut, tensors, entry, same_padding)
                result = f"{current}.sum"
                steps.append(Operation("add", (waiting, current), result, block.output, activation=block.activation))
                current = result
    return steps


def _path(
    steps: list[Operation], path: tuple[Layer, ...], tensors: Mapping[str, np.ndarray], current: str, same: bool
) -> str:
    for layer in path:
        if isinstance(layer, Convolution):
            current = _convolution(steps, layer, tensors, current, same)
        elif isinstance(layer, Pool):
            steps.append(Operation("mean", (current,), "features", layer.output))
            current = "features"
        else:
            output = LOGITS if layer is path[-1] else layer.name
            steps.append(_linear(layer, tensors, current, output))
            current = output
    return current


def zeros_around(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows of zeros before and after `size` rows that a convolution padded by kernel // 2 on each side uses."""
    before = kernel // 2
    outputs = -(-size // stride)
    return before, max(0, (outputs - 1) * stride + kernel - size - before)


def same_zeros(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Rows of zeros before and after `size` rows that TensorFlow's `SAME` adds: the odd one at the end."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def pads_like_same(size: int, kernel: int, stride: int) -> bool:
    """Whether `SAME` puts the zeros where PyTorch does. At stride 2 and an even size it does not: it pads the end."""
    return zeros_around(size, kernel, stride) == same_zeros(size, kernel, stride)


def _convolution(
    steps: list[Operation], layer: Convolution, tensors: Mapping[str, np.ndarray], current: str, same: bool
) -> str:
    height, width, channels = layer.input
    same = same or all(pads_like_same(size, layer.kernel, layer.stride) for size in (height, width))
    if not same:
        before, after = zeros_around(height, layer.kernel, layer.stride)
        padded = f"{current}.padded"
        shape = (height + before + after, width + before + after, channels)
        steps.append(Operation("pad", (current,), padded, shape, before=before, after=after))
        current = padded
    weights, bias, centre, spread = _merged(layer, tensors)
    steps.append(
        Operation(
            "depthwise" if layer.depthwise else "convolution",
            (current,),
            layer.norm,
            layer.output,
            weights,
            bias,
            layer.stride,
            same,
            layer.activation,
            size=(height, width),
            centre=centre,
            spread=spread,
        )
    )
    return layer.norm


def _merged(
    layer: Convolution, tensors: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    gamma, beta, mean, variance = (
        tensors[f"{layer.norm}.{field}"].astype(np.float64)
        for field in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / np.sqrt(variance + NORM_EPSILON)
    weights = tensors[layer.name + ".weight"].astype(np.float64) * factor[:, None, None, None]
    order = (1, 2, 3, 0) if layer.depthwise else (0, 2, 3, 1)
    return np.ascontiguousarray(weights.transpose(order)), beta - mean * factor, beta, np.abs(gamma)


def _linear(layer: Linear, tensors: Mapping[str, np.ndarray], current: str, output: str) -> Operation:
    weights, bias = (tensors[f"{layer.name}.{field}"].astype(np.float64) for field in ("weight", "bias"))
    return Operation("linear", (current,), output, layer.output, weights, bias, activation=layer.activation)
