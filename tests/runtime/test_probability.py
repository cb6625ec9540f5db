"""What stands behind a softmax or sigmoid makes no second one necessary, in either kind of file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.model_graph import ModelGraph, Node
from edge_mnv2.runtime.model_io import ModelSpec
from edge_mnv2.runtime.probability import Values, probability
from edge_mnv2.tflite.wire_formats import OnnxFile
from tests.runtime import brought
from tests.runtime.brought import COLOUR, GAIN, Net
from tests.stubs import solid

SHARES = brought.scores()
LOGITS = GAIN * (np.array(COLOUR) - 127.5) / 127.5
SIGMOIDS = 1 / (1 + np.exp(-LOGITS))
ROWS = np.array([0, 1, 2], np.int64)


def onnx_file(end: Callable[[OnnxFile, str], str], rows: int = 3, before: Any = None) -> bytes:
    """Logits of the colours, and what `end` makes of them; input of -1 to 1, or of pixels through `before`."""
    file = OnnxFile()
    real = "image" if before is None else before(file)
    means = file.node("Flatten", [file.node("GlobalAveragePool", [real])])
    file.node("Identity", [end(file, file.node("Mul", [means, file.number(GAIN)]))], "answer")
    return file.serialize({"image": ("float32", (1, 3, 12, 12))}, {"answer": ("float32", (1, rows))})


def softmax(file: OnnxFile, logits: str) -> str:
    return file.node("Softmax", [logits], axis=1)


def sigmoid(file: OnnxFile, logits: str) -> str:
    return file.node("Sigmoid", [logits])


def written_out(file: OnnxFile, logits: str) -> str:
    powers = file.node("Exp", [logits])
    total = file.node("ReduceSum", [powers, file.constant(np.array([1], np.int64))], keepdims=1)
    return file.node("Div", [powers, file.node("Add", [total, file.number(1e-9)])])


def logistic(file: OnnxFile, logits: str) -> str:
    powers = file.node("Exp", [file.node("Neg", [logits])])
    return file.node("Reciprocal", [file.node("Add", [file.number(1.0), powers])])


def two_rows(file: OnnxFile, logits: str) -> str:
    first = file.node("Gather", [sigmoid(file, logits), file.constant(np.array([0], np.int64))], axis=1)
    return file.node("Concat", [file.node("Sub", [file.number(1.0), first]), first], axis=1)


def averaged(file: OnnxFile, logits: str) -> str:
    both = file.node("Add", [softmax(file, logits), softmax(file, logits)])
    return file.node("Mul", [both, file.number(0.5)])


def cut(file: OnnxFile, logits: str) -> str:
    background = file.node("Concat", [file.constant(np.full((1, 1), -60, np.float32)), logits], axis=1)
    ends = [file.constant(np.array([n], np.int64)) for n in (1, 4, 1)]
    return file.node("Slice", [softmax(file, background), *ends])


def above(file: OnnxFile, logits: str) -> str:
    shares = softmax(file, logits)
    return file.node("Where", [file.node("Greater", [shares, file.number(0.01)]), shares, file.number(0.0)])


ONNX: dict[str, tuple[Callable[[OnnxFile, str], str], np.ndarray, str]] = {
    "without its background row": (cut, SHARES, "softmax"),
    "chosen rows": (lambda f, x: f.node("Gather", [softmax(f, x), f.constant(ROWS)], axis=1), SHARES, "softmax"),
    "clipped": (lambda f, x: f.node("Clip", [softmax(f, x), f.number(0.0), f.number(1.0)]), SHARES, "softmax"),
    "per cent": (lambda f, x: f.node("Mul", [softmax(f, x), f.number(100.0)]), SHARES, "softmax"),
    "half": (lambda f, x: f.node("Div", [softmax(f, x), f.number(2.0)]), SHARES, "softmax"),
    "averaged": (averaged, SHARES, "softmax"),
    "a sum of two": (lambda f, x: f.node("Add", [softmax(f, x), softmax(f, x)]), SHARES, "softmax"),
    "a mean of two": (lambda f, x: f.node("Mean", [softmax(f, x), softmax(f, x)]), SHARES, "softmax"),
    "written out": (written_out, SHARES, "softmax"),
    "clipped sigmoids": (lambda f, x: f.node("Clip", [sigmoid(f, x), f.number(0.0)]), SIGMOIDS, "multilabel"),
    "a product of two": (lambda f, x: f.node("Mul", [sigmoid(f, x), sigmoid(f, x)]), SIGMOIDS**2, "multilabel"),
    "logistic, written out": (logistic, SIGMOIDS, "multilabel"),
    "1 - p and p": (two_rows, np.array([1 - SIGMOIDS[0], SIGMOIDS[0]]), "softmax"),
    "hard": (lambda f, x: f.node("HardSigmoid", [x]), np.clip(LOGITS * 0.2 + 0.5, 0, 1), "multilabel"),
    "small ones made zero": (above, np.where(SHARES > 0.01, SHARES, 0), "softmax"),
    # These only look alike.
    "logits over a temperature": (lambda f, x: f.node("Div", [x, f.number(1.0)]), SHARES, "logits"),
    "swish": (lambda f, x: f.node("Mul", [x, sigmoid(f, x)]), np.empty(0), "logits"),
}


@pytest.mark.parametrize("kind", list(ONNX))
def test_probabilities_stay_what_they_are_in_onnx(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    end, expected, what = ONNX[kind]
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_file(end, len(expected) or 3))
    with Classifier.open(path) as classifier:
        assert classifier.io.output.kind == what
        if expected.size:
            np.testing.assert_allclose(classifier.scores(solid(COLOUR)), expected, atol=1e-4)


def _tflite(kind: str) -> bytes:
    net = Net().body().softmax()
    if kind == "SLICE":
        ends = [net.constant(numbers, dtype=np.int32) for numbers in ([0, 0], [1, 3])]
        return net.add(kind, *ends, table="SliceOptions").write()
    if kind == "STRIDED_SLICE":
        ends = [net.constant(numbers, dtype=np.int32) for numbers in ([0, 0], [1, 3], [1, 1])]
        return net.add(kind, *ends, table="StridedSliceOptions").write()
    return net.arithmetic("MUL", 100.0).write()


@pytest.mark.parametrize("kind", ["SLICE", "STRIDED_SLICE", "MUL"])
def test_probabilities_stay_what_they_are_in_tflite(kind: str, tmp_path: Path, run: Any) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(_tflite(kind))
    with Classifier.open(path) as classifier:
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), SHARES, atol=1e-4)
    assert json.loads(run("inspect", path, "--json")[1])["output"]["kind"] == "softmax"


@pytest.mark.parametrize(("kind", "what"), [("QLinearSoftmax", "softmax"), ("QLinearSigmoid", "multilabel")])
def test_the_integer_operators_of_onnx_runtime_s_own_quantization(kind: str, what: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")

    def end(file: OnnxFile, logits: str) -> str:
        before = [file.number(8 / 127), file.constant(np.array(128, np.uint8))]
        after = [file.number(1 / 256), file.constant(np.array(0, np.uint8))]
        more = {"axis": 1, "opset": 13} if kind == "QLinearSoftmax" else {}
        whole = file.node(kind, [file.node("QuantizeLinear", [logits, *before]), *before, *after], **more)
        return file.node("DequantizeLinear", [whole, *after])

    model = onnx.load_from_string(onnx_file(end))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    next(node for node in model.graph.node if node.op_type == kind).domain = "com.microsoft"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with Classifier.open(path) as classifier:
        assert classifier.io.output.kind == what
        expected = SHARES if what == "softmax" else SIGMOIDS
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), expected, atol=0.02)


@pytest.mark.parametrize("kind", ["softmax", "logits"])
def test_what_the_graph_does_not_tell_is_looked_at(kind: str, tmp_path: Path) -> None:
    """A function of the file's own, as PyTorch's exporters have written, hides what it does."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    model = onnx.load_from_string(onnx_file(lambda file, logits: file.node("torch_nn_head", [logits])))
    inside = helper.make_node("Softmax" if kind == "softmax" else "Identity", ["x"], ["y"])
    opsets = [helper.make_opsetid("", 13)]
    model.functions.append(helper.make_function("pkg.torch", "torch_nn_head", ["x"], ["y"], [inside], opsets))
    model.opset_import.append(helper.make_opsetid("pkg.torch", 1))
    next(node for node in model.graph.node if node.op_type == "torch_nn_head").domain = "pkg.torch"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with Classifier.open(path) as classifier:
        origin = "measured" if kind == "softmax" else "assumed"
        assert (classifier.io.output.kind, classifier.io.output.origin) == (kind, origin)
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), SHARES, atol=1e-4)


def test_one_row_of_a_softmax_of_two_is_a_probability(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    def second(file: OnnxFile, logits: str) -> str:
        two = file.node("Gather", [logits, file.constant(np.array([2, 0], np.int64))], axis=1)
        return file.node("Gather", [softmax(file, two), file.constant(np.array([1], np.int64))], axis=1)

    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_file(second, 1))
    share = SHARES[0] / (SHARES[0] + SHARES[2])
    with Classifier.open(path, ["blue", "red"]) as classifier:
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), [1 - share, share], atol=1e-4)


def test_a_graph_that_uses_a_tensor_over_and_over_is_read_once() -> None:
    """Each of ten sums adds the one before 50 times: 50 to the power of 10 ways to the softmax."""
    nodes = [Node("softmax", ("image",), ("sum0",))]
    nodes += [Node("add", (f"sum{number}",) * 50, (f"sum{number + 1}",)) for number in range(10)]
    graph = ModelGraph(["image"], ["sum10"], nodes, lambda _: None, lambda _: None)
    assert probability(graph, "sum10") == Values("softmax", 50.0**10)


def test_a_number_of_scores_that_is_left_open_is_learned(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")

    def two(file: OnnxFile, logits: str) -> str:
        return file.node("Compress", [softmax(file, logits), "chosen"], axis=1)

    model = onnx.load_from_string(onnx_file(two, 2))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([True, False, True]), "chosen"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with Classifier.open(path, ["red", "blue"]) as classifier:
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), SHARES[[0, 2]], atol=1e-4)


def test_what_finds_objects_is_no_classifier(tmp_path: Path, run: Any) -> None:
    pytest.importorskip("onnxruntime")
    file = OnnxFile()
    means = file.node("Flatten", [file.node("GlobalAveragePool", ["image"])])
    file.node("Sigmoid", [means], "scores")
    file.node("Identity", [file.constant(np.zeros((1, 3, 4), np.float32))], "boxes")
    path = tmp_path / "m.onnx"
    outputs = {"boxes": ("float32", (1, 3, 4)), "scores": ("float32", (1, 3))}
    path.write_bytes(file.serialize({"image": ("float32", (1, 3, 12, 12))}, outputs))
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    code, _, err = run("classify", tmp_path / "p.png", "--model", path)
    assert code == 3 and "'boxes' holds boxes" in err and err.count("\n") == 1
    assert run("classify", tmp_path / "p.png", "--model", path, "--model-output", "scores")[0] == 0


def test_a_map_of_features_beside_the_scores_is_no_list_of_boxes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = OnnxFile()
    file.node("Identity", ["image"], "features")
    means = file.node("Flatten", [file.node("GlobalAveragePool", ["image"])])
    file.node("Identity", [softmax(file, file.node("Mul", [means, file.number(GAIN)]))], "answer")
    path = tmp_path / "m.onnx"
    outputs = {"features": ("float32", (1, 3, 4, 4)), "answer": ("float32", (1, 3))}
    path.write_bytes(file.serialize({"image": ("float32", (1, 3, 4, 4))}, outputs))
    with Classifier.open(path) as classifier:
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), SHARES, atol=1e-4)


def test_the_greatest_of_each_class_over_the_picture_is_a_row_of_scores(tmp_path: Path) -> None:
    """Global max pooling, as PyTorch's `amax` and Keras write it; a maximum over the classes is refused below."""
    pytest.importorskip("onnxruntime")
    file = OnnxFile()
    file.node("ReduceMax", [file.node("Mul", ["image", file.number(GAIN)])], "answer", axes=[2, 3], keepdims=0)
    path = tmp_path / "m.onnx"
    path.write_bytes(file.serialize({"image": ("float32", (1, 3, 12, 12))}, {"answer": ("float32", (1, 3))}))
    with Classifier.open(path) as classifier:
        assert classifier.io.output.kind == "logits"
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), SHARES, atol=1e-4)


@pytest.mark.parametrize("kind", ["TopK", "ReduceMax", "Hardmax", "LpNormalization"])
def test_answers_that_are_no_scores_of_all_classes_are_refused(kind: str, tmp_path: Path, run: Any) -> None:
    pytest.importorskip("onnxruntime")

    def end(file: OnnxFile, logits: str) -> str:
        if kind == "TopK":
            return file.node(kind, [softmax(file, logits), file.constant(np.array([2], np.int64))])
        numbers: dict[str, dict[str, Any]] = {"ReduceMax": {"axes": [1]}, "Hardmax": {"axis": 1}}
        return file.node(kind, [logits], **numbers.get(kind, {"axis": 1, "p": 2}))

    path = tmp_path / "m.onnx"
    content = onnx_file(end, {"TopK": 2, "ReduceMax": 1}.get(kind, 3))
    if kind == "TopK":
        # Its second output, the rows, is not read: the writer names one alone.
        onnx = pytest.importorskip("onnx")
        model = onnx.load_from_string(content)
        next(node for node in model.graph.node if node.op_type == kind).output.append("rows")
        content = model.SerializeToString()
    path.write_bytes(content)
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    code, _, err = run("classify", tmp_path / "p.png", "--model", path)
    assert code == 3 and str(path) in err and err.count("\n") == 1
    assert ("an embedding" if kind == "LpNormalization" else "the best class only") in err
    with Classifier.open(path, spec=ModelSpec(task="regression")) as classifier:
        assert classifier.io.output.kind == "value"


def test_scaling_by_numbers_of_constants_without_tensors(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")

    def constants(file: OnnxFile) -> str:
        shaped = file.node("Reshape", ["list", "shape"])
        halved = file.node("Div", [file.node("Sub", ["image", shaped]), "number"])
        return file.node("Mul", [halved, file.node("Cast", ["whole"], to=1)])

    model = onnx.load_from_string(onnx_file(softmax, before=constants))
    numbers: dict[str, dict[str, Any]] = {"list": {"value_floats": [127.5] * 3}, "shape": {"value_ints": [1, 3, 1, 1]}}
    numbers.update(number={"value_float": 255.0}, whole={"value_int": 2})
    for name, said in numbers.items():
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], **said))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with Classifier.open(path) as classifier:
        assert classifier.io.input.origin["mean"] == "graph" and not classifier.notes
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), SHARES, atol=0.01)


@pytest.mark.parametrize("kind", ["batch normalization", "channels turned around"])
def test_scaling_by_other_first_operators(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")

    def before(file: OnnxFile) -> str:
        if kind == "batch normalization":
            numbers = ([1.0] * 3, [0.0] * 3, [127.5] * 3, [127.5**2] * 3)
            return file.node("BatchNormalization", ["image", *(file.constant(np.float32(one)) for one in numbers)])
        turned = file.node("Gather", ["image", file.constant(ROWS[::-1].copy())], axis=1)
        return file.node("Div", [file.node("Sub", [turned, file.number(127.5)]), file.number(127.5)])

    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_file(softmax, before=before))
    with Classifier.open(path) as classifier:
        assert classifier.io.input.origin["mean"] == "graph" and not classifier.notes
        expected = SHARES if kind == "batch normalization" else SHARES[::-1]
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), expected, atol=0.01)


def test_a_batch_normalization_of_inputs_around_zero_leaves_their_scaling_open(tmp_path: Path) -> None:
    """Its numbers are learned: those of inputs of -1 to 1 and of ImageNet's mean look alike, and nothing is said."""
    pytest.importorskip("onnxruntime")

    def before(file: OnnxFile) -> str:
        numbers = ([1.1] * 3, [0.0] * 3, [0.05] * 3, [0.9] * 3)
        return file.node("BatchNormalization", ["image", *(file.constant(np.float32(one)) for one in numbers)])

    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_file(softmax, before=before))
    with Classifier.open(path) as classifier:
        assert classifier.io.input.origin["mean"] == "assumed" and "--input-range" in classifier.notes[0]


def reshaped(file: OnnxFile, values: str, *shape: int) -> str:
    return file.node("Reshape", [values, file.constant(np.array(shape, np.int64))])


def over_places(file: OnnxFile, logits: str) -> str:
    """A softmax over four places of each class, then their mean."""
    places = file.node("Concat", [reshaped(file, logits, 1, 3, 1, 1)] * 4, axis=3)
    shares = file.node("Softmax", [file.node("Mul", [places, file.constant(PLACES)])], axis=3)
    return reshaped(file, file.node("GlobalAveragePool", [shares]), 1, 3)


PLACES = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 1, 4)
NOT_OVER_CLASSES: dict[str, Callable[[OnnxFile, str], str]] = {
    "the batch": lambda f, x: f.node("Softmax", [x], axis=0),
    "the batch, logarithm": lambda f, x: f.node("LogSoftmax", [x], axis=0),
    "the batch, cast": lambda f, x: f.node("Identity", [f.node("Softmax", [x], axis=0)]),
    "an axis of one": lambda f, x: reshaped(f, f.node("Softmax", [reshaped(f, x, 1, 3, 1)], axis=-1), 1, 3),
    "places of a picture": over_places,
    "the batch, per cent": lambda f, x: f.node("Mul", [f.node("Softmax", [x], axis=0), f.number(100.0)]),
    "the batch, chosen rows": lambda f, x: f.node("Gather", [f.node("Softmax", [x], axis=0), f.constant(ROWS)], axis=1),
}


@pytest.mark.parametrize("kind", NOT_OVER_CLASSES)
def test_a_softmax_that_does_not_run_over_the_classes_is_refused(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_file(NOT_OVER_CLASSES[kind]))
    with pytest.raises(ModelError, match=r"m\.onnx has a softmax that does not run over its classes"):
        Classifier.open(path)


def test_so_it_is_in_tflite(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    for shape in ((1, 3, 1), (3, 1)):
        net = Net().body().add("RESHAPE", shape=shape, table="ReshapeOptions", new_shape=list(shape)).softmax()
        path.write_bytes(net.add("RESHAPE", shape=(1, 3), table="ReshapeOptions", new_shape=[1, 3]).write())
        with pytest.raises(ModelError, match="does not run over its classes"):
            Classifier.open(path)


def test_flat_shares_in_coarse_steps_are_shares(tmp_path: Path) -> None:
    """Of 102 classes 90 have 2 steps of 1/256, 12 have 3: their sum is 0.84."""
    pytest.importorskip("onnxruntime")

    def end(file: OnnxFile, logits: str) -> str:
        flat = file.node("Concat", [file.node("Mul", [logits, file.number(0.001)])] * 34, axis=1)
        flat = file.node("Add", [flat, file.constant(np.repeat(np.float32([0, 0.2]), [90, 12]))])
        step = [file.number(1 / 256), file.constant(np.array(0, np.uint8))]
        coarse = file.node("QuantizeLinear", [softmax(file, flat), *step])
        return reshaped(file, file.node("DequantizeLinear", [coarse, *step]), 1, 102, 1, 1)

    path = tmp_path / "m.onnx"
    path.write_bytes(onnx_file(end, 102))
    with Classifier.open(path) as classifier:
        assert classifier.io.output.kind == "softmax"


def test_a_number_of_classes_that_a_tflite_leaves_open_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    net = Net().body().softmax()
    # As TensorFlow's converter writes what it does not know.
    net.last.shape, net.last.shape_signature = (1, 1), (-1, -1)
    path.write_bytes(net.add("RESHAPE", shape=(1, 3), table="ReshapeOptions", new_shape=[1, 3]).write())
    with Classifier.open(path) as classifier:
        assert classifier.io.output.kind == "softmax"
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), SHARES, atol=1e-4)


def test_softmaxes_over_the_right_axis_stay_what_they_are(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    ends: dict[str, tuple[Callable[[OnnxFile, str], str], np.ndarray, str]] = {
        "in front of a reshape": (lambda f, x: reshaped(f, softmax(f, x), 1, 3, 1, 1), SHARES, "softmax"),
        "the best of the places": (
            lambda f, x: reshaped(f, f.node("GlobalMaxPool", [softmax(f, reshaped(f, x, 1, 3, 1, 1))]), 1, 3),
            SHARES, "softmax",
        ),
        "a column": (
            lambda f, x: reshaped(f, f.node("Softmax", [reshaped(f, x, 3, 1)], axis=0), 1, 3), SHARES, "softmax",
        ),
        "two heads": (
            lambda f, x: reshaped(f, f.node("Softmax", [reshaped(f, f.node("Concat", [x, x], axis=1), 1, 2, 3)]), 1, 6),
            np.tile(SHARES, 2), "multilabel",
        ),
    }  # fmt: skip
    for end, expected, what in ends.values():
        path = tmp_path / "m.onnx"
        path.write_bytes(onnx_file(end, len(expected)))
        with Classifier.open(path) as classifier:
            assert classifier.io.output.kind == what
            np.testing.assert_allclose(classifier.scores(solid(COLOUR)), expected, atol=1e-4)
