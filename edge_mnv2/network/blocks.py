"""Building blocks: MobileNetV2's inverted residual and what it is compared with.

- ordinary residual and bottleneck residual: He et al. 2015, "Deep Residual Learning for Image Recognition", figure 5
- depthwise separable convolution: Howard et al. 2017, "MobileNets", figure 3
- inverted residual with linear bottleneck: Sandler et al. 2018, "MobileNetV2", table 1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.network.layers import Convolution, Layer, Linear, Pool, Shape, elements


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

    @property
    def peak_activations(self) -> int:
        """Most activation values alive at once where every layer's output is kept whole: a layer's input and output,
        and the block's input while it waits for the addition (which is done in place)."""
        waiting = 0 if self.shortcut is None else elements(self.input)
        alive = [elements(layer.input) + elements(layer.output) for layer in self.path]
        alive[1:] = [values + waiting for values in alive[1:]]
        if self.shortcut:
            alive.append(waiting + 2 * elements(self.output))
        return max(alive)

    @property
    def carried_activations(self) -> int:
        """Activation values between blocks: input and output. It is all that a runtime needs which computes the inside
        of the block a few channels at a time (MobileNetV2, section 5.1)."""
        return elements(self.input) + elements(self.output)


def _named(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def convolution(
    input: Shape, channels: int, kernel: int = 3, stride: int = 1, activation: str = "relu6", prefix: str = ""
) -> Block:
    """Plain convolution, batch normalization, activation; torchvision's names `PREFIX.0` and `PREFIX.1`."""
    layer = Convolution(
        _named(prefix, "0"), _named(prefix, "1"), input, channels, kernel, stride, activation=activation
    )
    return Block("conv2d 1x1" if kernel == 1 else "conv2d", (layer,))


def depthwise_separable(
    input: Shape, channels: int, stride: int = 1, activation: str = "relu6", prefix: str = ""
) -> Block:
    """Depthwise 3x3, then pointwise 1x1, both activated (MobileNetV1)."""
    depthwise = Convolution(
        _named(prefix, "0.0"), _named(prefix, "0.1"), input, input[2], 3, stride, input[2], activation
    )
    pointwise = Convolution(
        _named(prefix, "1.0"), _named(prefix, "1.1"), depthwise.output, channels, 1, activation=activation
    )
    return Block("depthwise separable", (depthwise, pointwise))


def inverted_residual(input: Shape, channels: int, stride: int = 1, expansion: int = 6, prefix: str = "") -> Block:
    """Expand 1x1 (left out where `expansion` is 1), depthwise 3x3, project 1x1 without activation.

    The shortcut joins the thin ends, where stride is 1 and the channels stay the same. torchvision's names
    `PREFIX.conv.N`.
    """
    inner = input[2] * expansion
    path: list[Layer] = []
    shape = input
    if expansion != 1:
        path.append(Convolution(_named(prefix, "conv.0.0"), _named(prefix, "conv.0.1"), shape, inner, 1))
        shape = path[-1].output
    step = len(path)
    path.append(
        Convolution(_named(prefix, f"conv.{step}.0"), _named(prefix, f"conv.{step}.1"), shape, inner, 3, stride, inner)
    )
    path.append(
        Convolution(
            _named(prefix, f"conv.{step + 1}"),
            _named(prefix, f"conv.{step + 2}"),
            path[-1].output,
            channels,
            1,
            activation="linear",
        )
    )
    same = stride == 1 and input[2] == channels
    return Block("bottleneck", tuple(path), () if same else None)


def _shortcut(input: Shape, channels: int, stride: int, prefix: str) -> tuple[Layer, ...]:
    if stride == 1 and input[2] == channels:
        return ()
    name = _named(prefix, "downsample")
    return (Convolution(f"{name}.0", f"{name}.1", input, channels, 1, stride, activation="linear"),)


def residual(input: Shape, channels: int, stride: int = 1, prefix: str = "") -> Block:
    """Ordinary residual block: two 3x3 convolutions at full width; identity or a 1x1 projection as shortcut."""
    first = Convolution(_named(prefix, "conv1"), _named(prefix, "bn1"), input, channels, 3, stride, activation="relu")
    second = Convolution(_named(prefix, "conv2"), _named(prefix, "bn2"), first.output, channels, 3, activation="linear")
    return Block("residual", (first, second), _shortcut(input, channels, stride, prefix), "relu")


def bottleneck_residual(input: Shape, channels: int, stride: int = 1, reduction: int = 4, prefix: str = "") -> Block:
    """Bottleneck residual block: wide, thin, wide. 1x1 to channels / `reduction`, 3x3 there, 1x1 back."""
    inner = max(1, channels // reduction)
    reduce = Convolution(_named(prefix, "conv1"), _named(prefix, "bn1"), input, inner, 1, activation="relu")
    middle = Convolution(
        _named(prefix, "conv2"), _named(prefix, "bn2"), reduce.output, inner, 3, stride, activation="relu"
    )
    restore = Convolution(
        _named(prefix, "conv3"), _named(prefix, "bn3"), middle.output, channels, 1, activation="linear"
    )
    path = (reduce, middle, restore)
    return Block("bottleneck residual", path, _shortcut(input, channels, stride, prefix), "relu")


def global_average_pool(input: Shape) -> Block:
    """One value a channel."""
    return Block(f"avgpool {input[0]}x{input[1]}", (Pool(input),))


def classifier(input: Shape, outputs: int, name: str) -> Block:
    """A fully connected layer on the pooled features; a 1x1 convolution in the papers' tables."""
    return Block("linear", (Linear(name, input, outputs),))
