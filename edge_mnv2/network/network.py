"""A network as stages of blocks, and what falls out of that: parameters, multiply-accumulates, a stage table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.network.blocks import Block
from edge_mnv2.network.layers import Convolution, Layer, Linear, Shape


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

    def convolutions(self) -> list[Convolution]:
        return [layer for layer in self.layers() if isinstance(layer, Convolution)]

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

    @property
    def peak_activations(self) -> int:
        """Most activation values alive at once, where every layer's output is kept whole."""
        return max(block.peak_activations for block in self.blocks)

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
