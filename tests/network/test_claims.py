"""docs/network.md says what the code computes, figure by figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mnv2 import paths
from edge_mnv2.builder.calibration import read_crops
from edge_mnv2.network.blocks import Convolution
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.tflite import costs, graph
from tests.network import comparison

DOCUMENT = (Path(__file__).parents[2] / "docs" / "network.md").read_text(encoding="utf-8")
PROSE = " ".join(DOCUMENT.split())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_tables_are_the_computed_ones(number: int) -> None:
    assert comparison.tables()[number] in DOCUMENT


def test_depthwise_separable_against_plain_convolution() -> None:
    shape = (14, 14, 384)
    plain = Convolution("c", "n", shape, 384, 3)
    pair = comparison.single_blocks()["depthwise separable, wide"]
    assert f"has {plain.parameters / pair.parameters:.1f} times the weights" in PROSE
    assert plain.macs / pair.macs == pytest.approx(plain.parameters / pair.parameters)


def test_the_inverted_residual_filters_more_for_less() -> None:
    blocks = comparison.single_blocks()
    ours, thin = blocks["inverted residual"], blocks["ordinary residual, thin"]
    assert f"for {thin.macs / ours.macs:.1f} times fewer MACs" in PROSE
    depthwise = next(layer for layer in ours.path if isinstance(layer, Convolution) and layer.depthwise)
    assert f"they are {depthwise.parameters:,} of its {ours.parameters:,} weights" in PROSE
    assert all(ours.macs < other.macs and ours.parameters < other.parameters for other in list(blocks.values())[1:])


def test_the_shortcut_joins_the_thin_ends() -> None:
    blocks = comparison.single_blocks()
    ours, wide = blocks["inverted residual"], blocks["bottleneck residual"]
    assert ours.shortcut == wide.shortcut == ()
    assert f"is {comparison.carried_activations(wide) // comparison.carried_activations(ours)} times smaller" in PROSE


def test_whole_networks() -> None:
    networks = comparison.networks()
    ours, before = networks["MobileNetV2 1.0"], networks["MobileNetV1 1.0"]
    assert f"needs {ours.macs / before.macs:.0%}".replace("%", " %") in PROSE
    assert f"and {ours.parameters / before.parameters:.0%}".replace("%", " %") in PROSE
    assert ours.macs == min(network.macs for network in networks.values())
    assert ours.parameters == min(network.parameters for network in networks.values())
    most, former = comparison.peak_activations(ours), comparison.peak_activations(before)
    peak = f"{most / 1e6:.2f} M values, {most / former:.2f} times"
    assert peak in PROSE
    assert comparison.carried_activations(ours) * 2 == comparison.carried_activations(before)
    assert f"V1's {comparison.carried_activations(before) / 1e6:.2f} M" in PROSE


def test_replaced_blocks_keep_the_stages() -> None:
    ours = mobilenet_v2()
    for kind, (_, wide) in comparison.KINDS.items():
        other = comparison.network_of(kind)
        for mine, theirs in zip(ours.stages[1:8], other.stages[1:8]):
            factor = mine.expansion if wide and mine.expansion else 1
            assert theirs.output == (*mine.output[:2], mine.output[2] * factor), kind
            assert len(mine.blocks) == len(theirs.blocks)
    assert comparison.network_of("inverted residual").macs == ours.macs


def test_the_shipped_models_arena() -> None:
    model = graph.read(paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite").read_bytes())
    arena = costs.arena_bytes(model.main)
    assert arena is not None and f"arena is {arena / 1e6:.2f} MB" in PROSE


def test_recoverable_is_what_random_weights_show() -> None:
    chance = np.random.RandomState(1)
    for dimensions, units in ((2, 4), (16, 32), (16, 48)):
        passing = np.zeros(4000)
        for turn in range(len(passing)):
            x = chance.standard_normal(dimensions)
            passing[turn] = (chance.standard_normal((units, dimensions)) @ x > 0).sum()
        assert (passing >= dimensions).mean() == pytest.approx(comparison.recoverable(dimensions, units), abs=0.03)


def test_half_of_what_leaves_a_bottleneck_is_negative(data: Path) -> None:
    lasts = (block.path[-1] for block in mobilenet_v2().blocks if block.operator == "bottleneck")
    ends = [layer.norm for layer in lasts if isinstance(layer, Convolution)]
    assert len(ends) == 17
    negative = total = 0
    model = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite")
    with open_interpreter(model, xnnpack=False, preserve_all_tensors=True) as interpreter:
        details = {entry["name"]: entry for entry in interpreter.tensor_details()}
        for image in read_crops(data / "images", 224, crops=5).images:
            interpreter.set_input(image[None])
            interpreter.invoke()
            for name in ends:
                values = interpreter.tensor(details[name]["index"])
                negative += int((values < details[name]["quantization"][1]).sum())
                total += values.size
    assert "40 to 60 %" in PROSE
    assert 0.4 < negative / total < 0.6


def test_resolutions_have_their_macs() -> None:
    document = (Path(__file__).parents[2] / "docs" / "resolutions.md").read_text(encoding="utf-8")
    for resolution in (224, 192, 160, 128):
        for kind in ("int8", "float"):
            assert f"| {resolution} {kind} | {mobilenet_v2(1.0, resolution).macs / 1e6:.1f} |" in document
