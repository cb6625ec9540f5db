"""MobileNetV2 (Sandler et al. 2018, table 2) for any width multiplier, resolution and number of outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge_mnv2.errors import UsageError
from edge_mnv2.network.blocks import classifier, convolution, global_average_pool, inverted_residual
from edge_mnv2.network.network import Head, Network, Stage

BOTTLENECKS = (
    # t, c, n, s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""The paper's table 2: expansion, output channels at width 1, repeats, stride of the first."""

STEM, LAST = 32, 1280
WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
"""Widths with published results; any other works too."""

MAX_WIDTH, MIN_RESOLUTION, MAX_RESOLUTION, MAX_OUTPUTS = 8.0, 32, 2048, 100_000


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least one of them, and never less than 90 % of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def last_channels(width: float) -> int:
    """Channels of the last convolution: they grow with the width and do not shrink below the paper's 1280."""
    return round_channels(LAST * max(1.0, width))


def width_text(width: float) -> str:
    """The width as model names have it: 1.0, 0.35."""
    return f"{width:.1f}" if width == round(width, 1) else f"{width:g}"


def mobilenet_v2(
    width: float = 1.0,
    resolution: int = 224,
    outputs: int = 1000,
    head: Head = Head(),
    *,
    hidden: Sequence[int] = (),
    divisor: int = 8,
) -> Network:
    """MobileNetV2 for square RGB pictures of `resolution` pixels, `outputs` classes or values.

    `hidden` are the sizes of linear layers with a ReLU before the last one; channels are multiples of `divisor`. Layers
    carry the names of torchvision's state dict. Raises UsageError where a number is out of range.
    """
    if not (math.isfinite(width) and 0 < width <= MAX_WIDTH):
        raise UsageError(f"the width multiplier is {width}", hint=f"above 0, up to {MAX_WIDTH:g}; 1.0 is the paper's")
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise UsageError(f"the resolution is {resolution}", hint=f"from {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels")
    if not 1 <= outputs <= MAX_OUTPUTS:
        raise UsageError(f"the number of outputs is {outputs}", hint=f"from 1 to {MAX_OUTPUTS}")
    stem = convolution((resolution, resolution, 3), round_channels(STEM * width, divisor), 3, 2, prefix="features.0")
    stages = [Stage("conv2d", (stem,), stride=2)]
    shape, index = stem.output, 1
    for expansion, channels, repeats, stride in BOTTLENECKS:
        blocks = []
        for repeat in range(repeats):
            block = inverted_residual(
                shape,
                round_channels(channels * width, divisor),
                stride if repeat == 0 else 1,
                expansion,
                f"features.{index}",
            )
            blocks.append(block)
            shape, index = block.output, index + 1
        stages.append(Stage("bottleneck", tuple(blocks), expansion, stride))
    last = convolution(shape, last_channels(width), 1, prefix=f"features.{index}")
    pool = global_average_pool(last.output)
    stages += [
        Stage(last.operator, (last,)),
        Stage(pool.operator, (pool,)),
        Stage("conv2d 1x1", (classifier(pool.output, outputs, "classifier.1", hidden),)),
    ]
    return Network(f"mobilenet_v2_{width_text(width)}_{resolution}", tuple(stages), head)
