"""A network as stages of blocks, and what falls out of that: parameters, multiply-accumulates, a stage table.

`mobilenet_v2` makes one (Sandler et al. 2018, table 2) for any width multiplier, resolution and number of outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.network.blocks import (
    Block,
    Convolution,
    Layer,
    Linear,
    Shape,
    classifier,
    convolution,
    global_average_pool,
    inverted_residual,
)


@dataclass(frozen=True)
class Head:
    """What the network answers.

    Classification: one logit a class, followed by a softmax where `softmax` says so. Regression: the value itself
    (linear), or within `bounds` (low, high): low + (high - low) * sigmoid(z).
    """

    task: str = "classification"
    softmax: bool = False
    bounds: Optional[tuple[float, float]] = None

    def __post_init__(self) -> None:
        if self.task not in ("classification", "regression"):
            raise UsageError(f"unknown task '{self.task}'", hint="classification or regression")
        if self.task == "regression" and self.softmax:
            raise UsageError("a regression head has no softmax")
        if self.bounds is not None:
            low, high = self.bounds
            if self.task != "regression" or not (abs(low) < 1e30 and abs(high) < 1e30 and low < high):
                raise UsageError(f"bounds {low}, {high} do not fit", hint="a regression's low, then a higher high")


@dataclass(frozen=True)
class Stage:
    """`repeats` (n) blocks of one kind; the first has `stride` (s). `expansion` (t) is None where it means nothing."""

    operator: str
    blocks: tuple[Block, ...]
    expansion: Optional[int] = None
    stride: int = 1

    @property
    def input(self) -> Shape:
        return self.blocks[0].input

    @property
    def output(self) -> Shape:
        return self.blocks[-1].output


@dataclass(frozen=True)
class Network:
    """Stages from picture to answer; the last one is the classifier, the one before it the global pooling."""

    name: str
    stages: tuple[Stage, ...]
    head: Head = Head()

    @property
    def input(self) -> Shape:
        return self.stages[0].input

    @property
    def outputs(self) -> int:
        return self.stages[-1].output[2]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(block for stage in self.stages for block in stage.blocks)

    def layers(self) -> Iterator[Layer]:
        for block in self.blocks:
            yield from block.layers()

    @property
    def classifier(self) -> Linear:
        """The layer that makes the outputs."""
        return [layer for layer in self.layers() if isinstance(layer, Linear)][-1]

    @property
    def parameters(self) -> int:
        """Weights and the classifier's bias. Batch normalization is left out, as in published tables: inference merges
        it into the convolutions."""
        return sum(block.parameters for block in self.blocks)

    @property
    def trained_parameters(self) -> int:
        """With the normalization's scale and shift: what a training framework counts."""
        return self.parameters + sum(layer.norm_parameters for layer in self.layers())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one picture."""
        return sum(block.macs for block in self.blocks)

    def state_dict_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of trained weights that inference needs, name → shape, in network order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in self.layers():
            if isinstance(layer, Convolution):
                shapes[layer.name + ".weight"] = layer.weight_shape
                for field in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"{layer.norm}.{field}"] = (layer.channels,)
            elif isinstance(layer, Linear):
                shapes[layer.name + ".weight"] = layer.weight_shape
                shapes[layer.name + ".bias"] = (layer.channels,)
        return shapes


@dataclass(frozen=True)
class StageRow:
    """One row of the stage table: the paper's t, c, n, s (None where a column does not apply), shapes and cost."""

    input: Shape
    operator: str
    t: Optional[int]
    c: int
    n: int
    s: Optional[int]
    output: Shape
    parameters: int
    macs: int


def stage_table(network: Network) -> list[StageRow]:
    """The network like table 2 of the MobileNetV2 paper, with parameters and multiply-accumulates of each stage."""
    rows = []
    for stage in network.stages:
        convolutional = any(isinstance(layer, Convolution) for layer in stage.blocks[0].path)
        rows.append(
            StageRow(
                stage.input,
                stage.operator,
                stage.expansion,
                stage.output[2],
                len(stage.blocks),
                stage.stride if convolutional else None,
                stage.output,
                sum(block.parameters for block in stage.blocks),
                sum(block.macs for block in stage.blocks),
            )
        )
    return rows


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
