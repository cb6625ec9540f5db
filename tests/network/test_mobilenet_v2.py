"""The network's arithmetic against published figures."""

from __future__ import annotations

import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.network.network import last_channels, mobilenet_v2, round_channels, stage_table

PUBLISHED = [
    # width, resolution, millions of MACs (cut to whole ones), millions of parameters without batch normalization: the
    # 22 checkpoints listed in keras-team/keras-applications, keras_applications/mobilenet_v2.py, whose table is that of
    # tensorflow/models, research/slim/nets/mobilenet/README.md.
    (1.4, 224, 582, 6.06),
    (1.3, 224, 509, 5.34),
    (1.0, 224, 300, 3.47),
    (1.0, 192, 221, 3.47),
    (1.0, 160, 154, 3.47),
    (1.0, 128, 99, 3.47),
    (1.0, 96, 56, 3.47),
    (0.75, 224, 209, 2.61),
    (0.75, 192, 153, 2.61),
    (0.75, 160, 107, 2.61),
    (0.75, 128, 69, 2.61),
    (0.75, 96, 39, 2.61),
    (0.5, 224, 97, 1.95),
    (0.5, 192, 71, 1.95),
    (0.5, 160, 50, 1.95),
    (0.5, 128, 32, 1.95),
    (0.5, 96, 18, 1.95),
    (0.35, 224, 59, 1.66),
    (0.35, 192, 43, 1.66),
    (0.35, 160, 30, 1.66),
    (0.35, 128, 20, 1.66),
    (0.35, 96, 11, 1.66),
]


@pytest.mark.parametrize(("width", "resolution", "macs", "parameters"), PUBLISHED)
def test_macs_and_parameters_are_the_published_ones(
    width: float, resolution: int, macs: int, parameters: float
) -> None:
    network = mobilenet_v2(width, resolution)
    assert network.macs // 1_000_000 == macs
    assert round(network.parameters / 1e6, 2) == parameters


@pytest.mark.parametrize(
    ("width", "macs"), [(0.35, 59.3), (0.5, 97.1), (0.75, 209.1), (1.0, 300.8), (1.3, 509.4), (1.4, 582.2)]
)
def test_macs_at_224_to_a_tenth_of_a_million(width: float, macs: float) -> None:
    assert round(mobilenet_v2(width).macs / 1e6, 1) == macs


def test_the_stage_table_adds_up() -> None:
    network = mobilenet_v2(1.0, 224)
    rows = stage_table(network)
    assert sum(row.macs for row in rows) == network.macs
    assert sum(row.parameters for row in rows) == network.parameters
    assert [(row.t, row.c, row.n, row.s) for row in rows[1:8]] == [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]


@pytest.mark.parametrize("resolution", [96, 128, 160, 192, 224, 225, 257, 320])
def test_every_resolution_ends_at_a_32nd(resolution: int) -> None:
    rows = stage_table(mobilenet_v2(1.0, resolution))
    assert rows[-3].output[0] == -(-resolution // 32)


def test_channels_round_to_eights_and_never_lose_a_tenth() -> None:
    for channels in range(1, 2000, 7):
        rounded = round_channels(channels)
        assert rounded % 8 == 0 and rounded >= 0.9 * channels
    assert last_channels(0.35) == 1280 and last_channels(1.4) == 1792


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan"), 100.0])
def test_a_width_that_is_none_is_refused(width: float) -> None:
    with pytest.raises(UsageError):
        mobilenet_v2(width)
