"""Costs against counting by loops, against the network's own figures, and against the runtime's memory plan."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from edge_mnv2.network.blocks import Convolution
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.tflite import costs, graph
from edge_mnv2.tflite.ir import Operator, Subgraph, Tensor


def value(*shape: int, signature: Optional[tuple[int, ...]] = None) -> Tensor:
    return Tensor("value", shape, "float32", shape_signature=signature)


def weights(*shape: int, dtype: str = "float32") -> Tensor:
    return Tensor.constant("weights", np.zeros(shape, dtype))


def operator(kind: str, inputs: list[Optional[Tensor]], output: Tensor, **options: object) -> Operator:
    return Operator(kind, inputs, [output], options=dict(options))


def count(*ranges: int) -> int:
    return sum(1 for _ in itertools.product(*map(range, ranges)))


@pytest.mark.parametrize(
    ("built", "macs"),
    [
        (operator("CONV_2D", [value(1, 8, 8, 3), weights(4, 3, 3, 3)], value(1, 4, 4, 4)), count(4, 4, 4, 3, 3, 3)),
        # Two groups: each output channel sees half of the six inputs.
        (operator("CONV_2D", [value(1, 5, 5, 6), weights(4, 1, 1, 3)], value(1, 5, 5, 4)), count(5, 5, 4, 3)),
        (
            operator("DEPTHWISE_CONV_2D", [value(1, 6, 6, 4), weights(1, 3, 3, 8)], value(1, 6, 6, 8)),
            count(6, 6, 8, 3, 3),
        ),
        (operator("FULLY_CONNECTED", [value(2, 10), weights(7, 10), None], value(2, 7)), count(2, 10, 7)),
        (
            operator(
                "TRANSPOSE_CONV", [weights(4, dtype="int32"), weights(2, 3, 3, 5), value(1, 4, 4, 5)], value(1, 8, 8, 2)
            ),
            count(4, 4, 5, 3, 3, 2),
        ),
        (
            operator("CONV_3D", [value(1, 4, 4, 4, 2), weights(2, 2, 2, 2, 3)], value(1, 3, 3, 3, 3)),
            count(3, 3, 3, 3, 2, 2, 2, 2),
        ),
        (operator("BATCH_MATMUL", [value(2, 3, 4), value(2, 4, 5)], value(2, 3, 5)), count(2, 3, 4, 5)),
        (operator("BATCH_MATMUL", [value(2, 4, 3), value(2, 4, 5)], value(2, 3, 5), adj_x=True), count(2, 3, 4, 5)),
        (operator("ADD", [value(1, 8, 8, 3), value(1, 8, 8, 3)], value(1, 8, 8, 3)), 0),
        (operator("SOFTMAX", [value(1, 9)], value(1, 9)), 0),
        (operator("CUSTOM", [value(1, 9)], value(1, 9)), None),
        (operator("WHILE", [value(1, 9)], value(1, 9)), None),
        (operator("UNIDIRECTIONAL_SEQUENCE_LSTM", [value(1, 9)], value(1, 9)), None),
        (operator("STABLEHLO_CONVOLUTION", [value(1, 9)], value(1, 9)), None),
        # Too few inputs or dimensions: unknown, no traceback.
        (operator("CONV_2D", [value(1, 8, 8, 3)], value(1, 4, 4, 4)), None),
        (operator("CONV_2D", [value(1, 8, 8, 3), None], value(1, 4, 4, 4)), None),
        (operator("CONV_2D", [value(1, 8), weights(4)], value(1, 4)), None),
    ],
)
def test_multiply_accumulates(built: Operator, macs: Optional[int]) -> None:
    assert costs.operator_macs(built) == macs


@pytest.mark.parametrize(
    ("signature", "macs"),
    [((1, 4, 4, 4), 4 * 4 * 4 * 27), ((-1, 4, 4, 4), 4 * 4 * 4 * 27), ((1, -1, -1, 4), None), (None, 4 * 4 * 4 * 27)],
)
def test_a_dynamic_batch_counts_as_one_and_a_dynamic_size_is_unknown(
    signature: Optional[tuple[int, ...]], macs: Optional[int]
) -> None:
    output = value(1, 4, 4, 4, signature=signature)
    assert costs.operator_macs(operator("CONV_2D", [value(1, 8, 8, 3), weights(4, 3, 3, 3)], output)) == macs


def test_parameters_are_weights_and_biases_and_nothing_else() -> None:
    bias = weights(4, dtype="int32")
    convolution = operator("CONV_2D", [value(1, 8, 8, 3), weights(4, 3, 3, 3, dtype="int8"), bias], value(1, 4, 4, 4))
    assert costs.operator_parameters(convolution) == 4 * 27 + 4
    reshape = operator("RESHAPE", [value(1, 64), weights(2, dtype="int32")], value(8, 8))
    assert costs.operator_parameters(reshape) == 0


def test_shared_weights_count_once() -> None:
    shared = weights(5, 5)
    seen: set[int] = set()
    layers = [operator("FULLY_CONNECTED", [value(1, 5), shared, None], value(1, 5)) for _ in range(3)]
    assert sum(costs.operator_parameters(layer, seen) for layer in layers) == 25


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert costs.total([1, 2]) == 3
    assert costs.total([1, None]) is None
    assert costs.total([]) == 0


@pytest.mark.parametrize(
    ("name", "width", "resolution"),
    [("mobilenet_v2_1.0_224_quant.tflite", 1.0, 224), ("tf2_mobilenet_v2_1.0_224_ptq.tflite", 1.0, 224)],
)
def test_published_files_cost_what_the_network_says(data: Path, name: str, width: float, resolution: int) -> None:
    model = graph.read((data / "models" / name).read_bytes())
    network = mobilenet_v2(width, resolution, 1001)
    assert costs.total(map(costs.operator_macs, model.operators)) == network.macs
    # Folded files have a bias for each channel of each convolution instead of batch normalization.
    biases = sum(layer.channels for layer in network.layers() if isinstance(layer, Convolution))
    assert sum(map(costs.operator_parameters, model.operators)) == network.parameters + biases


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2_1.0_224_quant.tflite",
        "mobilenet_v2_1.0_224_inat_bird_quant.tflite",
        "tf2_mobilenet_v2_1.0_224_ptq.tflite",
    ],
)
def test_the_arena_is_what_the_runtime_plans(data: Path, name: str) -> None:
    path = data / "models" / name
    model = graph.read(path.read_bytes())
    estimate = costs.arena_bytes(model.main)
    assert estimate is not None
    low, high = 1 << 62, 0
    with open_interpreter(path, xnnpack=False) as interpreter:
        for index, tensor in enumerate(model.tensors):
            size = costs.tensor_bytes(tensor)
            if tensor.data is None and size:
                start = interpreter._native.tensor(index)().__array_interface__["data"][0]
                low, high = min(low, start), max(high, start + size)
    assert estimate == pytest.approx(high - low, rel=0.02)


def test_tensors_share_memory_when_their_lives_do_not_meet() -> None:
    chain = [value(1, 1000) for _ in range(6)]
    operators = [operator("TANH", [a], b) for a, b in zip(chain, chain[1:])]
    block = -(-4000 // costs.ARENA_ALIGNMENT) * costs.ARENA_ALIGNMENT
    # Input and output live throughout; what lies between needs two blocks in turn.
    assert costs.arena_bytes(Subgraph(chain, [chain[0]], [chain[-1]], operators)) == 4 * block


def test_no_memory_figure_for_an_unknown_size() -> None:
    image = value(1, 1, 1, 3, signature=(1, -1, -1, 3))
    assert costs.arena_bytes(Subgraph([image], [image], [image], [])) is None
