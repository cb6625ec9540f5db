"""MobileNetV1's stack of depthwise separable convolutions (Howard et al. 2017, table 1), for comparison."""

from __future__ import annotations

from edge_mnv2.network.blocks import classifier, convolution, global_average_pool
from edge_mnv2.network.network import Network, Stage, round_channels, width_text
from tests.network.compared_blocks import depthwise_separable

SEPARABLES = (
    # channels at width 1, repeats, stride of the first
    (64, 1, 1),
    (128, 1, 2),
    (128, 1, 1),
    (256, 1, 2),
    (256, 1, 1),
    (512, 1, 2),
    (512, 5, 1),
    (1024, 1, 2),
    (1024, 1, 1),
)


def mobilenet_v1(width: float = 1.0, resolution: int = 224, outputs: int = 1000) -> Network:
    """MobileNetV1 for square RGB pictures of `resolution` pixels."""
    stem = convolution((resolution, resolution, 3), round_channels(32 * width), 3, 2, prefix="features.0")
    stages = [Stage("conv2d", (stem,), stride=2)]
    shape, index = stem.output, 1
    for channels, repeats, stride in SEPARABLES:
        blocks = []
        for repeat in range(repeats):
            block = depthwise_separable(
                shape, round_channels(channels * width), stride if repeat == 0 else 1, prefix=f"features.{index}"
            )
            blocks.append(block)
            shape, index = block.output, index + 1
        stages.append(Stage("depthwise separable", tuple(blocks), stride=stride))
    pool = global_average_pool(shape)
    stages.append(Stage(pool.operator, (pool,)))
    stages.append(Stage("conv2d 1x1", (classifier(pool.output, outputs, "classifier"),)))
    return Network(f"mobilenet_v1_{width_text(width)}_{resolution}", tuple(stages))
