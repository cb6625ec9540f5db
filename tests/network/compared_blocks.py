"""The blocks that MobileNetV2's inverted residual is compared with.

- ordinary residual and bottleneck residual: He et al. 2015, "Deep Residual Learning for Image Recognition", figure 5
- depthwise separable convolution: Howard et al. 2017, "MobileNets", figure 3
"""

from __future__ import annotations

from edge_mnv2.network.blocks import Block, Convolution, Layer, Shape, named


def depthwise_separable(
    input: Shape, channels: int, stride: int = 1, activation: str = "relu6", prefix: str = ""
) -> Block:
    """Depthwise 3x3, then pointwise 1x1, both activated (MobileNetV1)."""
    depthwise = Convolution(
        named(prefix, "0.0"), named(prefix, "0.1"), input, input[2], 3, stride, input[2], activation
    )
    pointwise = Convolution(
        named(prefix, "1.0"), named(prefix, "1.1"), depthwise.output, channels, 1, activation=activation
    )
    return Block("depthwise separable", (depthwise, pointwise))


def _shortcut(input: Shape, channels: int, stride: int, prefix: str) -> tuple[Layer, ...]:
    if stride == 1 and input[2] == channels:
        return ()
    name = named(prefix, "downsample")
    return (Convolution(f"{name}.0", f"{name}.1", input, channels, 1, stride, activation="linear"),)


def residual(input: Shape, channels: int, stride: int = 1, prefix: str = "") -> Block:
    """Ordinary residual block: two 3x3 convolutions at full width; identity or a 1x1 projection as shortcut."""
    first = Convolution(named(prefix, "conv1"), named(prefix, "bn1"), input, channels, 3, stride, activation="relu")
    second = Convolution(named(prefix, "conv2"), named(prefix, "bn2"), first.output, channels, 3, activation="linear")
    return Block("residual", (first, second), _shortcut(input, channels, stride, prefix), "relu")


def bottleneck_residual(input: Shape, channels: int, stride: int = 1, reduction: int = 4, prefix: str = "") -> Block:
    """Bottleneck residual block: wide, thin, wide. 1x1 to channels / `reduction`, 3x3 there, 1x1 back."""
    inner = max(1, channels // reduction)
    reduce = Convolution(named(prefix, "conv1"), named(prefix, "bn1"), input, inner, 1, activation="relu")
    middle = Convolution(
        named(prefix, "conv2"), named(prefix, "bn2"), reduce.output, inner, 3, stride, activation="relu"
    )
    restore = Convolution(named(prefix, "conv3"), named(prefix, "bn3"), middle.output, channels, 1, activation="linear")
    path = (reduce, middle, restore)
    return Block("bottleneck residual", path, _shortcut(input, channels, stride, prefix), "relu")
