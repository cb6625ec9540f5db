"""The layers and blocks that MobileNetV2 is made of, as data: shapes, parameters, multiply-accumulates, no weights.

Shapes are (height, width, channels). A convolution stands for the three operations that are trained together and merged
for inference: convolution without bias, batch normalization, activation. Blocks: plain convolution, inverted residual
with linear bottleneck, pooling, classifier (Sandler et al. 2018, "MobileNetV2", table 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Union

Shape = tuple[int, int, int]
ACTIVATIONS = ("linear", "relu", "relu6", "sigmoid", "tanh")

NORM_EPSILON = 1e-5
"""What torchvision's and timm's networks add to the variance in batch normalization."""


def elements(shape: Shape) -> int:
    """Number of values in an activation of that shape."""
    height, width, channels = shape
    return height * width * channels


def _strided(size: int, stride: int) -> int:
    return -(-size // stride)


@dataclass(frozen=True)
class Convolution:
    """Convolution (kernel x kernel, `groups`), batch normalization and activation.

    Padding is kernel // 2 on each side, as in PyTorch, so that the output has ceil(size / stride) rows. `name` and
    `norm` are the prefixes of the convolution's and the normalization's tensors in a state dict.
    """

    name: str
    norm: str
    input: Shape
    channels: int
    kernel: int
    stride: int = 1
    groups: int = 1
    activation: str = "relu6"

    @property
    def output(self) -> Shape:
        height, width, _ = self.input
        return _strided(height, self.stride), _strided(width, self.stride), self.channels

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.groups == self.input[2] == self.channels

    @property
    def padding(self) -> int:
        """Rows of zeros on each side."""
        return self.kernel // 2

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(output channels, input channels per group, rows, columns), as PyTorch stores it."""
        return self.channels, self.input[2] // self.groups, self.kernel, self.kernel

    @property
    def parameters(self) -> int:
        """Weights, without those of the normalization: inference merges them away."""
        outputs, inputs, rows, columns = self.weight_shape
        return outputs * inputs * rows * columns

    @property
    def norm_parameters(self) -> int:
        """Trained scale and shift of the normalization."""
        return 2 * self.channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates: each output value takes kernel^2 * inputs / groups of them."""
        return elements(self.output) * self.parameters // self.channels


@dataclass(frozen=True)
class Linear:
    """A fully connected layer with bias, on a pooled 1x1 activation."""

    name: str
    input: Shape
    channels: int
    activation: str = "linear"

    norm_parameters = 0

    @property
    def output(self) -> Shape:
        return 1, 1, self.channels

    @property
    def weight_shape(self) -> tuple[int, int]:
        return self.channels, elements(self.input)

    @property
    def parameters(self) -> int:
        return self.channels * (elements(self.input) + 1)

    @property
    def macs(self) -> int:
        return self.channels * elements(self.input)


@dataclass(frozen=True)
class Pool:
    """Pooling: "average" or "max" over windows, or over the whole picture where `kernel` is 0 (global)."""

    input: Shape
    kind: str = "average"
    kernel: int = 0
    stride: int = 1

    name = "pool"
    parameters = 0
    norm_parameters = 0
    macs = 0

    @property
    def output(self) -> Shape:
        height, width, channels = self.input
        if self.kernel == 0:
            return 1, 1, channels
        return (height - self.kernel) // self.stride + 1, (width - self.kernel) // self.stride + 1, channels


Layer = Union[Convolution, Linear, Pool]


@dataclass(frozen=True)
class Block:
    """A chain of layers with an optional shortcut that is added to its output.

    `shortcut` is None without one, empty for the identity, else the layers of a projection. `activation` follows the
    addition. `operator` is what a stage table calls the block.
    """

    operator: str
    path: tuple[Layer, ...]
    shortcut: Optional[tuple[Layer, ...]] = None
    activation: str = "linear"

    @property
    def input(self) -> Shape:
        return self.path[0].input

    @property
    def output(self) -> Shape:
        return self.path[-1].output

    def layers(self) -> Iterator[Layer]:
        yield from self.path
        yield from self.shortcut or ()

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers())

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers())


def named(prefix: str, name: str) -> str:
    """`name` behind `prefix`, with a dot between them where there is a prefix."""
    return f"{prefix}.{name}" if prefix else name


def convolution(
    input: Shape, channels: int, kernel: int = 3, stride: int = 1, activation: str = "relu6", prefix: str = ""
) -> Block:
    """Plain convolution, batch normalization, activation; torchvision's names `PREFIX.0` and `PREFIX.1`."""
    layer = Convolution(named(prefix, "0"), named(prefix, "1"), input, channels, kernel, stride, activation=activation)
    return Block("conv2d 1x1" if kernel == 1 else "conv2d", (layer,))


def inverted_residual(input: Shape, channels: int, stride: int = 1, expansion: int = 6, prefix: str = "") -> Block:
    """Expand 1x1 (left out where `expansion` is 1), depthwise 3x3, project 1x1 without activation.

    The shortcut joins the thin ends, where stride is 1 and the channels stay the same. torchvision's names
    `PREFIX.conv.N`.
    """
    inner = input[2] * expansion
    path: list[Layer] = []
    shape = input
    if expansion != 1:
        path.append(Convolution(named(prefix, "conv.0.0"), named(prefix, "conv.0.1"), shape, inner, 1))
        shape = path[-1].output
    step = len(path)
    path.append(
        Convolution(named(prefix, f"conv.{step}.0"), named(prefix, f"conv.{step}.1"), shape, inner, 3, stride, inner)
    )
    path.append(
        Convolution(
            named(prefix, f"conv.{step + 1}"),
            named(prefix, f"conv.{step + 2}"),
            path[-1].output,
            channels,
            1,
            activation="linear",
        )
    )
    same = stride == 1 and input[2] == channels
    return Block("bottleneck", tuple(path), () if same else None)


def global_average_pool(input: Shape) -> Block:
    """One value a channel."""
    return Block(f"avgpool {input[0]}x{input[1]}", (Pool(input),))


def classifier(input: Shape, outputs: int, name: str, hidden: Sequence[int] = ()) -> Block:
    """Fully connected layers on the pooled features, `hidden` ones with a ReLU; one is a 1x1 convolution in tables."""
    path: list[Layer] = []
    for number, size in enumerate(hidden):
        path.append(Linear(f"{name.partition('.')[0]}.hidden.{number}", input, size, "relu"))
        input = path[-1].output
    return Block("linear", (*path, Linear(name, input, outputs)))
