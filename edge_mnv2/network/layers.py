"""The layers that networks here are made of, as data: shapes, parameters and multiply-accumulates, no weights.

Shapes are (height, width, channels). A convolution stands for the three operations that are trained together and merged
for inference: convolution without bias, batch normalization, activation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

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
