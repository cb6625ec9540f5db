"""MobileNetV2's block beside those that it is compared with, by the same cost functions: the tables of docs/network.md.

`python -m tests.network.comparison` prints them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Union

from edge_mnv2.network.blocks import (
    Block,
    Convolution,
    Shape,
    classifier,
    convolution,
    elements,
    global_average_pool,
    inverted_residual,
)
from edge_mnv2.network.network import BOTTLENECKS, LAST, STEM, Network, Stage, mobilenet_v2
from tests.network.compared_blocks import bottleneck_residual, depthwise_separable, residual
from tests.network.mobilenet_v1 import mobilenet_v1

SIDE, THIN, EXPANSION = 14, 64, 6
"""Rows and columns, channels and expansion of MobileNetV2's longest stage, where single blocks are compared."""

MakeBlock = Callable[[Shape, int, int, int], Block]
"""(input, thin channels, stride, expansion) → a block."""


def _wide(make: Callable[..., Block]) -> MakeBlock:
    """`make` between activations of the expanded width."""
    return lambda shape, channels, stride, expansion: make(shape, channels * expansion, stride)


KINDS: dict[str, tuple[MakeBlock, bool]] = {
    "inverted residual": (inverted_residual, False),
    "ordinary residual, thin": (lambda shape, channels, stride, t: residual(shape, channels, stride), False),
    "bottleneck residual": (
        lambda shape, channels, stride, t: bottleneck_residual(shape, channels * t, stride, reduction=t),
        True,
    ),
    "depthwise separable, wide": (_wide(depthwise_separable), True),
    "ordinary residual, wide": (_wide(residual), True),
}
"""Name → the block, and whether the activations between blocks have the expanded width."""


def single_blocks() -> dict[str, Block]:
    """One block of each kind at stride 1, between activations of SIDE x SIDE x THIN or six times as wide."""
    return {
        name: make((SIDE, SIDE, THIN * (EXPANSION if wide else 1)), THIN, 1, EXPANSION)
        for name, (make, wide) in KINDS.items()
    }


def filtered_channels(block: Block) -> int:
    """Channels that the block's (last) 3x3 convolution makes: what looks at more than one pixel."""
    return [layer.channels for layer in block.path if isinstance(layer, Convolution) and layer.kernel > 1][-1]


def network_of(kind: str, resolution: int = 224, outputs: int = 1000) -> Network:
    """MobileNetV2's stages with every bottleneck replaced by a block of `kind`."""
    make, _ = KINDS[kind]
    stem = convolution((resolution, resolution, 3), STEM, 3, 2)
    stages, shape = [Stage("conv2d", (stem,), stride=2)], stem.output
    for expansion, channels, repeats, stride in BOTTLENECKS:
        blocks: list[Block] = []
        for repeat in range(repeats):
            blocks.append(make(shape, channels, stride if repeat == 0 else 1, expansion))
            shape = blocks[-1].output
        stages.append(Stage(blocks[0].operator, tuple(blocks), expansion, stride))
    last = convolution(shape, LAST, 1)
    pool = global_average_pool(last.output)
    for block in (last, pool, classifier(pool.output, outputs, "classifier")):
        stages.append(Stage(block.operator, (block,)))
    return Network(kind, tuple(stages))


def networks() -> dict[str, Network]:
    """Whole networks at 224 pixels: MobileNetV2 and V1, then MobileNetV2's stages with other blocks."""
    others = {f"V2's stages, {kind}": network_of(kind) for kind in list(KINDS)[1:]}
    return {"MobileNetV2 1.0": mobilenet_v2(), "MobileNetV1 1.0": mobilenet_v1(), **others}


def peak_activations(network: Union[Network, Block]) -> int:
    """Most activation values alive at once where every layer's output is kept whole: a layer's input and output,
    and the block's input while it waits for the addition (which is done in place)."""
    if isinstance(network, Network):
        return max(map(peak_activations, network.blocks))
    waiting = 0 if network.shortcut is None else elements(network.input)
    alive = [elements(layer.input) + elements(layer.output) for layer in network.path]
    alive[1:] = [values + waiting for values in alive[1:]]
    if network.shortcut:
        alive.append(waiting + 2 * elements(network.output))
    return max(alive)


def carried_activations(network: Union[Network, Block]) -> int:
    """Most values at a block's ends, input and output: all that a runtime has to keep which computes the inside of the
    block a few channels at a time (MobileNetV2, section 5.1)."""
    if isinstance(network, Network):
        return max(map(carried_activations, network.blocks))
    return elements(network.input) + elements(network.output)


def recoverable(dimensions: int, units: int) -> float:
    """Share of the inputs of `dimensions` values that can still be told from the output of `units` ReLUs.

    Over random weights each unit passes an input with probability 1/2, and an input is determined by any `dimensions`
    units that pass it (MobileNetV2, appendix A): P(Binomial(units, 1/2) >= dimensions).
    """
    return sum(math.comb(units, passing) for passing in range(dimensions, units + 1)) / 2**units


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown writes it; the first column is text, the others are numbers."""
    lines = [header, ["---", *(["---:"] * (len(header) - 1))], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables() -> list[str]:
    """The tables of docs/network.md, in its order."""
    blocks, ours = single_blocks(), single_blocks()["inverted residual"]
    block_rows = [
        [
            name,
            str(block.input[2]),
            str(filtered_channels(block)),
            f"{block.parameters:,}",
            f"{block.macs / 1e6:.1f}",
            f"{block.macs / ours.macs:.1f}",
            f"{peak_activations(block) / 1e3:.0f}",
            f"{carried_activations(block) / 1e3:.0f}",
        ]
        for name, block in blocks.items()
    ]
    network_rows = [
        [
            name,
            f"{network.parameters / 1e6:.2f}",
            f"{network.macs / 1e6:.0f}",
            f"{peak_activations(network) / 1e6:.2f}",
            f"{carried_activations(network) / 1e6:.2f}",
        ]
        for name, network in networks().items()
    ]
    relu_rows = [
        [str(channels), *(f"{recoverable(channels, channels * t):.2%}" for t in (1, 2, 3, 6))]
        for channels in (2, 16, 64)
    ]
    return [
        markdown(
            [
                "block",
                "channels between",
                "filtered",
                "parameters",
                "M MACs",
                "times ours",
                "k values alive",
                "k at its ends",
            ],
            block_rows,
        ),
        markdown(["network at 224", "M parameters", "M MACs", "M values alive", "M at block ends"], network_rows),
        markdown(["channels in", "expanded 1 x", "2 x", "3 x", "6 x"], relu_rows),
    ]


if __name__ == "__main__":
    print("\n\n".join(tables()))
