"""The numpy forward pass against PyTorch (stored answers) and against LiteRT (the models that `build` writes)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.builder.inference import MEAN, STD, operations
from edge_mnv2.builder.tflite_model import float_model
from edge_mnv2.network import blocks
from edge_mnv2.network.blocks import Block, Shape
from edge_mnv2.network.network import Head, Network, Stage, mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from tests.network import compared_blocks, reference, seeded
from tests.network.mobilenet_v1 import mobilenet_v1

TORCH = json.loads((Path(__file__).parent / "torch_reference.json").read_text())
IN = (7, 7, 8)
BLOCKS = {
    "convolution": blocks.convolution(IN, 6, 3, 2),
    "depthwise separable": compared_blocks.depthwise_separable(IN, 6, 2),
    "residual, identity": compared_blocks.residual(IN, 8),
    "residual, projection": compared_blocks.residual(IN, 6, 2),
    "bottleneck residual, identity": compared_blocks.bottleneck_residual(IN, 8),
    "bottleneck residual, projection": compared_blocks.bottleneck_residual(IN, 12, 2),
    "inverted residual, identity": blocks.inverted_residual(IN, 8),
    "inverted residual, stride 2": blocks.inverted_residual(IN, 6, 2),
    "inverted residual, expansion 1": blocks.inverted_residual(IN, 6, 1, 1),
}
LAYERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "max pooling": lambda x: reference.pool(x, "max", 3, 2),
    "average pooling": lambda x: reference.pool(x, "average", 3, 2),
    "global average pooling": reference.pool,
    "relu": reference.relu,
    "relu6": lambda x: reference.relu6(3 * x),
    "sigmoid": reference.sigmoid,
    "tanh": reference.tanh,
}


def network_of(*parts: Block, head: Head = Head()) -> Network:
    return Network("test", tuple(Stage(part.operator, (part,)) for part in parts), head)


def test_every_stored_answer_has_a_test() -> None:
    assert set(TORCH["blocks"]) == {*BLOCKS, *LAYERS}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_those_of_torchvision(name: str) -> None:
    block = BLOCKS[name]
    tensors = seeded.tensors(network_of(block).state_dict_shapes())
    found = reference.block(block, seeded.activation(IN), tensors)
    assert found.shape == block.output
    np.testing.assert_allclose(found.reshape(-1), TORCH["blocks"][name], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_torch(name: str) -> None:
    found = LAYERS[name](seeded.activation(IN).astype(np.float64))
    np.testing.assert_allclose(found.reshape(-1), TORCH["blocks"][name], rtol=2e-6, atol=2e-6)


def test_pooling_layers_have_the_shape_of_their_result() -> None:
    from edge_mnv2.network.blocks import Pool

    for pool in (Pool(IN), Pool(IN, "max", 3, 2), Pool(IN, "average", 2, 1)):
        assert reference.layer(pool, seeded.activation(IN), {}).shape == pool.output


def test_activations_do_not_overflow() -> None:
    far = np.array([-1e4, 0.0, 1e4])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(reference.sigmoid(far), [0.0, 0.5, 1.0])
        np.testing.assert_array_equal(reference.tanh(far), [-1.0, 0.0, 1.0])
        np.testing.assert_allclose(reference.softmax(far), [0.0, 0.0, 1.0])


def both(network: Network, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The answers of the built float model and of the numpy forward pass."""
    tensors = seeded.tensors(network.state_dict_shapes())
    pixels = seeded.picture(resolution).astype(np.float64)
    model = float_model(network, operations(network, tensors))
    with open_interpreter(model) as interpreter:
        interpreter.set_input(((pixels - 127.5) / 127.5).astype(np.float32)[None])
        interpreter.invoke()
        found = interpreter.output()[0].astype(np.float64)
    return found, reference.forward(network, (pixels / 255.0 - MEAN) / STD, tensors)


@pytest.mark.parametrize(
    "head", [Head(), Head(softmax=True), Head("regression", bounds=(-5.0, 20.0))], ids=["logits", "softmax", "bounds"]
)
def test_the_float_model_is_the_network(head: Head) -> None:
    found, wanted = both(mobilenet_v2(0.35, 96, 5, head), 96)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("resolution", [65, 97, 100])
def test_padding_is_pytorchs_at_odd_resolutions(resolution: int) -> None:
    found, wanted = both(mobilenet_v2(0.35, resolution, 5), resolution)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def _with_ends(make: Callable[[Shape, str], list[Block]]) -> Network:
    """A small network: a first convolution, the blocks in question, pooling, a classifier."""
    first = blocks.convolution((33, 33, 3), 8, 3, 2, prefix="first")
    inner = make(first.output, "block")
    pool = blocks.global_average_pool(inner[-1].output)
    return network_of(first, *inner, pool, blocks.classifier(pool.output, 4, "last"))


@pytest.mark.parametrize("kind", [compared_blocks.residual, compared_blocks.bottleneck_residual])
def test_residual_blocks_run_in_litert_too(kind: Callable[..., Block]) -> None:
    def make(shape: Shape, prefix: str) -> list[Block]:
        same = kind(shape, shape[2], prefix=f"{prefix}.0")
        return [same, kind(same.output, 12, 2, prefix=f"{prefix}.1")]

    found, wanted = both(_with_ends(make), 33)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_mobilenet_v1_runs_in_litert_too() -> None:
    found, wanted = both(mobilenet_v1(0.25, 96, 5), 96)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
