"""Any `.tflite` survives reading and writing; a damaged one is refused in one line."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest

from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.tflite import graph, schema
from edge_mnv2.tflite.graph import Graph, Operator, Quantization, Signature, Subgraph, Tensor

CPU_MODELS = (
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_inat_bird_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "tf2_mobilenet_v2_1.0_224_ptq.tflite",
)


def answer(model: bytes) -> np.ndarray:
    with open_interpreter(model) as interpreter:
        spec = interpreter.inputs[0]
        pixels = np.random.default_rng(7).integers(0, 256, spec.shape)
        interpreter.set_input(pixels.astype(spec.dtype))
        interpreter.invoke()
        return interpreter.output()


@pytest.mark.parametrize("name", CPU_MODELS)
def test_a_rewritten_model_gives_the_same_answer(data: Path, name: str) -> None:
    original = (data / "models" / name).read_bytes()
    written = graph.write(graph.read(original))
    assert graph.write(graph.read(written)) == written
    np.testing.assert_array_equal(answer(written), answer(original))


def test_custom_operators_and_their_options_survive(data: Path) -> None:
    for path in sorted((data / "models").glob("*.tflite")):
        before = graph.read(path.read_bytes())
        after = graph.read(graph.write(before))
        assert [op.name for op in after.operators] == [op.name for op in before.operators]
        assert [op.custom_options for op in after.operators] == [op.custom_options for op in before.operators]
        assert [op.version for op in after.operators] == [op.version for op in before.operators]
        assert after.metadata == before.metadata
        assert after.description == before.description


def test_options_are_read_whatever_their_table(data: Path) -> None:
    model = graph.read((data / "models" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes())
    first = model.operators[0]
    assert (first.kind, first.options_table) == ("CONV_2D", "Conv2DOptions")
    assert (first.options["stride_w"], first.options["stride_h"], first.options["padding"]) == (2, 2, 0)
    depthwise = model.operators[1]
    assert depthwise.options["depth_multiplier"] == 1
    assert depthwise.options["dilation_w_factor"] == 1


def packed(model: Graph) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(model.archive)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_labels_packed_behind_the_model_are_found_and_kept(data: Path) -> None:
    model = graph.read((data / "models" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes())
    files = packed(model)
    assert files
    model.metadata["more"] = b"x" * 1000
    again = graph.read(graph.write(model))
    assert packed(again) == files
    assert again.metadata["more"] == b"x" * 1000


def scaled(values: np.ndarray) -> Graph:
    source = Tensor("in", (1, 4), "float32")
    factor = Tensor.constant("factor", values.astype(np.float32))
    result = Tensor("out", (1, 4), "float32")
    operator = Operator("MUL", [source, factor], [result], "MulOptions", {"fused_activation_function": 0})
    main = Subgraph([source, factor, result], [source], [result], [operator])
    return Graph([main], signatures=[Signature("serving_default", {"x": source}, {"y": result})])


def test_a_graph_made_by_hand_runs() -> None:
    model = graph.write(scaled(np.array([1.0, 2.0, 3.0, 4.0])))
    with open_interpreter(model) as interpreter:
        interpreter.set_input(np.ones((1, 4), np.float32))
        interpreter.invoke()
        np.testing.assert_array_equal(interpreter.output(), [[1, 2, 3, 4]])


def test_constants_start_at_multiples_of_sixteen() -> None:
    for count in range(1, 20):
        model = scaled(np.arange(4.0))
        marker = bytes(range(200, 200 + count))
        model.metadata["marker"] = marker
        written = graph.write(model)
        assert written.index(np.arange(4, dtype=np.float32).tobytes()) % 16 == 0
        assert written.index(marker) % 16 == 0


def test_shared_constants_stay_shared() -> None:
    model = scaled(np.arange(4.0))
    extra = Tensor("again", (4,), "float32", model.tensors[1].data)
    model.tensors.append(extra)
    again = graph.read(graph.write(model))
    assert again.tensors[1].data is again.tensors[3].data


def test_unused_tensors_are_dropped_and_new_ones_taken_in() -> None:
    model = scaled(np.arange(4.0))
    result = Tensor("rectified", (1, 4), "float32")
    model.tensors.append(Tensor("orphan", (4,), "float32"))
    model.operators.append(Operator("RELU", [model.outputs[0]], [result]))
    model.main.outputs = [result]
    model.signatures = []
    model.main.drop_unused()
    assert [tensor.name for tensor in model.tensors] == ["in", "factor", "out", "rectified"]
    assert graph.read(graph.write(model)).outputs[0].name == "rectified"


def test_a_tensor_outside_its_subgraph_is_named() -> None:
    model = scaled(np.arange(4.0))
    model.operators[0].inputs[1] = Tensor("stranger", (4,), "float32")
    with pytest.raises(ModelError, match="stranger"):
        graph.write(model)


def test_quantized_constants_have_real_values() -> None:
    values = np.array([[1, -2], [3, 4]], np.int8)
    per_channel = Tensor.constant("w", values, Quantization.per_channel(np.array([0.5, 0.25]), 0))
    np.testing.assert_array_equal(per_channel.real(), [[0.5, -1], [0.75, 1]])
    per_tensor = Tensor.constant("w", values, Quantization.per_tensor(2.0, 1))
    np.testing.assert_array_equal(per_tensor.real(), [[0, -6], [4, 6]])
    with pytest.raises(ModelError, match="shape"):
        Tensor("w", (3, 3), "int8", values.tobytes()).array()


def test_every_table_of_the_installed_schema_is_understood() -> None:
    for name in schema.members("BuiltinOptions").values():
        if name != "NONE":
            slots = [field.slot for field in schema.fields(name)]
            assert slots == sorted(set(slots))


def test_every_optional_field_survives() -> None:
    model = scaled(np.arange(4.0))
    model.tensors[1].quantization = Quantization(
        np.zeros(0, np.float32), np.zeros(0, np.int64), 0, np.array([-1.0], np.float32), np.array([1.0], np.float32)
    )
    model.tensors[0].shape_signature = (-1, 4)
    model.tensors[1].extra["sparsity"] = {
        "traversal_order": np.array([0], np.int32),
        "dim_metadata": [
            {
                "format": 1,
                "array_segments": schema.Union("Uint8Vector", {"values": np.array([0, 2], np.uint8)}),
                "array_indices": schema.Union("Uint16Vector", {"values": np.array([0, 3], np.uint16)}),
            }
        ],
    }
    model.operators.append(
        Operator(
            "SQUEEZE", [model.outputs[0]], [model.outputs[0]], "SqueezeOptions", {"squeeze_dims": np.array([0], "<i4")}
        )
    )
    again = graph.read(graph.write(model))
    assert again.inputs[0].dynamic
    assert again.tensors[1].quantization.maximum == [1.0]
    sparse = again.tensors[1].extra["sparsity"]["dim_metadata"][0]
    assert list(sparse["array_indices"].record["values"]) == [0, 3]
    assert list(again.operators[1].options["squeeze_dims"]) == [0]


def test_what_the_schema_does_not_know_is_read_and_not_rewritten() -> None:
    model = graph.read(graph.write(scaled(np.arange(4.0))))
    model.newer = ["field 9 of Tensor"]
    with pytest.raises(ModelError, match="pip install -U tflite"):
        graph.write(model)
    model.newer = []
    model.operators[0].kind = "BUILTIN_250"
    with pytest.raises(ModelError, match="BUILTIN_250"):
        graph.write(model)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"<!DOCTYPE html><html>", b"\0" * 64, b"\x08\0\0\0TFL3"])
def test_no_model_at_all(content: bytes) -> None:
    with pytest.raises(ModelError, match="things"):
        graph.read(content, "things.tflite")


@pytest.mark.slow
def test_a_damaged_model_is_one_line_never_a_traceback(data: Path) -> None:
    """Cuts and changed bytes, most of them where the tables are; whatever is still readable can be written."""
    chance = random.Random(5)
    sound = [graph.write(graph.read((data / "models" / name).read_bytes())) for name in CPU_MODELS[:1]]
    sound.append(graph.write(scaled(np.arange(4.0))))
    refused = 0
    for turn in range(700):
        damaged = bytearray(sound[turn % 2])
        if turn % 5 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            for _ in range(chance.choice((1, 3, 20))):
                damaged[chance.randrange(min(len(damaged), 30_000))] = chance.choice((0, 1, 127, 255, turn % 256))
        try:
            graph.write(graph.read(bytes(damaged), "damaged.tflite"))
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_tables_that_repeat_without_end_are_refused() -> None:
    """A small file whose vector of subgraphs names one big subgraph 5,000 times would be 25 million tensors."""
    builder = flatbuffers.Builder(1 << 20)
    subgraph = schema._put_table(builder, "SubGraph", {"tensors": [{}] * 5000})
    builder.StartVector(4, 5000, 4)
    for _ in range(5000):
        builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    builder.StartObject(3)
    builder.PrependUOffsetTRelativeSlot(2, subgraphs, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"TFL3")
    with pytest.raises(ModelError, match="without end"):
        graph.read(bytes(builder.Output()))
