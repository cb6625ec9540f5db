"""ONNX models through ONNX Runtime, behind the same classifier as `.tflite` models."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.datasets.collection import Collection
from edge_mnv2.errors import ModelError
from edge_mnv2.runtime import onnx_runtime
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.model_io import ModelSpec
from edge_mnv2.runtime.table import row
from edge_mnv2.tflite.wire_formats import OnnxFile
from tests.builder.conftest import imagenet_weights
from tests.runtime import brought
from tests.runtime.brought import COLOUR, GAIN
from tests.stubs import BLUE, GREEN, RED, colour_model, solid

__all__ = ["imagenet_weights"]

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LABELS = ["red", "green", "blue"]


def colour_onnx(output: str = "logits", *, kind: str = "UINT8", first: bool = False, batch: Any = 1) -> bytes:
    """mean → 1x1 → `output`; row 0 says red, 1 green, 2 blue. `first`: channels first, as other tools export."""
    helper, types = onnx.helper, onnx.TensorProto
    weights = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32) * 16, "weights")
    shape = (batch, 3, 8, 8) if first else (batch, 8, 8, 3)
    to_float = [helper.make_node("Cast", ["image"], ["cast"], to=types.FLOAT)]
    scale = onnx.numpy_helper.from_array(np.array(1 / 255, np.float32), "scale")
    turned = "cast" if first else "turned"
    nodes = [
        *to_float,
        *([] if first else [helper.make_node("Transpose", ["cast"], ["turned"], perm=[0, 3, 1, 2])]),
        helper.make_node("GlobalAveragePool", [turned], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["row"]),
        helper.make_node("Mul", ["row", "scale"], ["fraction"]),
        helper.make_node("MatMul", ["fraction", "weights"], ["matched"]),
        helper.make_node("Softmax" if output == "probabilities" else "Identity", ["matched"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", getattr(types, kind), shape)],
        [helper.make_tensor_value_info(output, types.FLOAT, (batch, 3))],
        [weights, scale],
    )
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_onnx())
    (tmp_path / "colours.yaml").write_text('labels: "colours.txt"\n')
    (tmp_path / "colours.txt").write_text("\n".join(LABELS))
    return path


@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("batch", [1, "N"])
def test_the_classifier_names_colours(output: str, batch: Any, tmp_path: Path) -> None:
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_onnx(output, batch=batch))
    with Classifier.open(path, LABELS) as classifier:
        assert classifier.input_size == (8, 8)
        for colour, name in zip((RED, GREEN, BLUE), LABELS):
            scores = classifier.scores(solid(colour))
            assert classifier.top(scores)[0].label == name
            assert scores.sum() == pytest.approx(1, abs=1e-4)
        bgr = classifier.classify(solid(RED)[..., ::-1].copy(), "bgr")
        assert classifier.top(bgr.scores)[0].label == "red" and bgr.engine == "cpu"
        assert classifier.interpreter.runtime.startswith("onnxruntime ")
        assert classifier.interpreter.delegate == "none"


@pytest.mark.parametrize("said", ["nobody", "properties", "option"])
@pytest.mark.parametrize("way", ["DequantizeLinear", "Cast"])
def test_integers_that_the_graph_scales_itself(way: str, said: str, tmp_path: Path, run: Any) -> None:
    # mean and std describe what happens inside: pixels must not be scaled by them twice.
    file = OnnxFile()
    turned = file.node("Transpose", ["image"], perm=[0, 3, 1, 2])
    if way == "Cast":
        numbers = file.node("Sub", [file.node("Cast", [turned], to=1), file.number(127.0)])
        real = file.node("Mul", [numbers, file.number(1 / 127.5)])
    else:
        zero = file.constant(np.array(127, np.uint8))
        real = file.node("DequantizeLinear", [turned, file.number(1 / 127.5), zero])
    means = file.node("Flatten", [file.node("GlobalAveragePool", [real])])
    file.node("Softmax", [file.node("Mul", [means, file.number(4.0)])], "scores", axis=1)
    properties = {"mean": "127.0", "std": "127.5"} if said == "properties" else {}
    path = tmp_path / "m.onnx"
    path.write_bytes(
        file.serialize({"image": ("uint8", (1, 8, 8, 3))}, {"scores": ("float32", (1, 3))}, properties=properties)
    )
    Image.new("RGB", (20, 20), (200, 90, 30)).save(tmp_path / "p.png")
    options = ["--mean", "127", "--std", "127.5"] if said == "option" else []
    code, out, err = run("classify", tmp_path / "p.png", "--model", path, "--json", *options)
    assert code == 0, err
    powers = np.exp(4 * (np.array([200, 90, 30]) - 127) / 127.5)
    scores = {one["index"]: one["score"] for one in json.loads(out)["results"][0]["top"]}
    np.testing.assert_allclose([scores[row] for row in range(3)], powers / powers.sum(), atol=0.01)


@pytest.mark.parametrize("kind", ["logits", "scores", "value"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_refused(kind: str, number: float, tmp_path: Path, run: Any) -> None:
    file = OnnxFile()
    means = file.node("GlobalAveragePool", [file.node("Transpose", ["image"], perm=[0, 3, 1, 2])])
    broken = file.node("Add", [file.node("Flatten", [means]), file.number(number)])
    file.node("Sigmoid" if kind == "scores" and np.isnan(number) else "Identity", [broken], "answer")
    path = tmp_path / "m.onnx"
    path.write_bytes(file.serialize({"image": ("float32", (1, 8, 8, 3))}, {"answer": ("float32", (1, 3))}))
    Image.new("RGB", (20, 20), (200, 90, 30)).save(tmp_path / "p.png")
    options = [
        "--model",
        path,
        "--input-range",
        "0,1",
        "--json",
        *(["--task", "regression"] if kind == "value" else []),
    ]
    for command in (("classify", tmp_path / "p.png"), ("run", "--source", tmp_path / "p.png")):
        code, out, err = run(*command, *options)
        assert code == 3 and err.count("answers with NaN or infinity") == 1 and "Warning" not in err, err
        assert "NaN" not in out


@pytest.mark.parametrize("value", [1.23456e-5, 123456.75])
def test_a_measured_value_keeps_its_digits(value: float, tmp_path: Path, run: Any) -> None:
    file = OnnxFile()
    means = file.node("GlobalAveragePool", [file.node("Transpose", ["image"], perm=[0, 3, 1, 2])])
    red = file.node("ReduceMean", [file.node("Flatten", [means])], axes=[1], keepdims=1)
    file.node("Add", [file.node("Mul", [red, file.number(0.0)]), file.number(value)], "value")
    path = tmp_path / "m.onnx"
    path.write_bytes(file.serialize({"image": ("float32", (1, 8, 8, 3))}, {"value": ("float32", (1, 1))}))
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    options = ["--model", path, "--task", "regression", "--input-range", "0,1"]
    code, out, err = run("classify", tmp_path / "p.png", *options, "--json")
    assert code == 0 and json.loads(out)["results"][0]["top"][0]["score"] == pytest.approx(value, rel=1e-6), err
    log = tmp_path / "log.jsonl"
    code, _, err = run("run", "--source", tmp_path / "p.png", *options, "--log", log)
    assert code == 0 and json.loads(log.read_text())["top"][0]["score"] == pytest.approx(value, rel=1e-6), err


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", ["FLOAT16", "FLOAT", "DOUBLE"])
def test_scaling_inside_is_read_from_constants_of_every_type(kind: str, raw: bool, tmp_path: Path) -> None:
    number = getattr(onnx.TensorProto, kind)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(number)

    def constant(name: str, value: float) -> Any:
        # Converters to half precision leave the bits among the integers.
        content = np.array([value], dtype).tobytes() if raw else [value]
        return onnx.helper.make_tensor(name, number, [1], content, raw=raw)

    steps = [("Mul", ["image", "scale"], "a"), ("Sub", ["a", "one"], "b"), ("Mul", ["b", "gain"], "c")]
    nodes = [onnx.helper.make_node(kind_of, inputs, [output]) for kind_of, inputs, output in steps]
    nodes.append(onnx.helper.make_node("ReduceMean", ["c"], ["means"], axes=[2, 3], keepdims=0))
    nodes.append(onnx.helper.make_node("Softmax", ["means"], ["scores"], axis=1))
    values = {"scale": 1 / 127.5, "one": 1.0, "gain": 4.0}
    side = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [side("image", number, [1, 3, 8, 8])],
        [side("scores", number, [1, 3])],
        [constant(*pair) for pair in values.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with Classifier.open(path) as classifier:
        assert (classifier.io.input.mean, classifier.io.input.std) == ((0.0,) * 3, (1.0,) * 3) and not classifier.notes
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), brought.scores(), atol=0.01)


@pytest.mark.parametrize("scores", [True, False])
def test_the_name_of_the_best_class_beside_its_scores(scores: bool, tmp_path: Path, run: Any) -> None:
    # Azure Custom Vision and scikit-learn's converter export such a text.
    node, side = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("GlobalAveragePool", ["image"], ["means"]),
        node("Flatten", ["means"], ["flat"]),
        node("Softmax", ["flat"], ["scores"], axis=1),
        node("ArgMax", ["scores"], ["row"], axis=1, keepdims=0),
        node(
            "LabelEncoder", ["row"], ["classLabel"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2], values_strings=LABELS
        ),
    ]
    outputs = [side("classLabel", onnx.TensorProto.STRING, [1])]
    outputs += [side("scores", onnx.TensorProto.FLOAT, [1, 3])] if scores else []
    graph = onnx.helper.make_graph(nodes, "g", [side("image", onnx.TensorProto.FLOAT, [1, 3, 8, 8])], outputs)
    versions = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("ai.onnx.ml", 2)]
    model = onnx.helper.make_model(graph, opset_imports=versions)
    model.ir_version = 8
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    Image.new("RGB", (20, 20), (10, 200, 10)).save(tmp_path / "p.png")
    code, out, err = run("classify", tmp_path / "p.png", "--model", path, "--input-range", "0,1", "--json")
    if scores:
        assert code == 0 and json.loads(out)["results"][0]["top"][0]["index"] == 1, err
    else:
        assert code == 3 and "no output that holds numbers" in err


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_input_of_a_type_that_numpy_lacks_is_refused(runtime: str, tmp_path: Path) -> None:
    if row(runtime).version() is None:
        pytest.skip(f"{runtime} is not installed")
    node, side = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Cast", ["image"], ["real"], to=onnx.TensorProto.FLOAT),
        node("GlobalAveragePool", ["real"], ["means"]),
        node("Flatten", ["means"], ["scores"]),
    ]
    ends = [side("image", onnx.TensorProto.BFLOAT16, [1, 3, 8, 8])], [side("scores", onnx.TensorProto.FLOAT, [1, 3])]
    graph = onnx.helper.make_graph(nodes, "g", *ends)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"bf(loat)?16"):
        Classifier.open(path, runtime=runtime)


def test_float_pictures(tmp_path: Path) -> None:
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_onnx(kind="FLOAT"))
    with Classifier.open(path, LABELS, ModelSpec(mean=(0.0,), std=(1.0,))) as classifier:
        assert classifier.top(classifier.scores(solid(GREEN)))[0].label == "green"


def test_a_name_that_is_not_utf8(model: Path) -> None:
    odd = model.rename(model.with_name(os.fsdecode(b"m\xe9.onnx")))
    with Classifier.open(odd, LABELS) as classifier:
        assert classifier.top(classifier.scores(solid(GREEN)))[0].label == "green"


def test_answers_belong_to_the_caller(model: Path) -> None:
    with Classifier.open(model, LABELS) as classifier:
        red = classifier.scores(solid(RED))
        before = red.copy()
        classifier.scores(solid(BLUE))
        np.testing.assert_array_equal(red, before)


def test_run_classify_and_profile_take_it(model: Path, run: Any, tmp_path: Path) -> None:
    code, out, err = run("run", "--source", "test", "--max-frames", 5, "--model", model, "--json", "--threads", 1)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["runtime"].startswith("onnxruntime ") and summary["delegate"] == "none" and summary["threads"] == 1
    profile = tmp_path / "jetson.yaml"
    profile.write_text(f"extends: base\nruntime: {{backend: onnxruntime, model: {model}, workers: 2}}\n")
    code, out, err = run("run", "--source", "test", "--max-frames", 5, "--device", profile, "--json")
    assert code == 0, err
    assert json.loads(out)["workers"] == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--runtime", "litert", "--model", "MODEL"], "--runtime onnxruntime"),
        (["--runtime", "onnx"], "auto, litert, tflite-runtime"),
    ],
)
def test_a_runtime_that_cannot(options: list[str], expected: str, model: Path, run: Any) -> None:
    options = [str(model) if option == "MODEL" else option for option in options]
    code, _, err = run("run", "--source", "test", "--max-frames", 1, *options)
    assert code == 2 and expected in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"<html><title>Sign in</title>", "Sign in", id="HTML"),
        pytest.param(colour_model(), "a .tflite model", id="tflite"),
        pytest.param(colour_onnx()[:-40], "cannot be loaded", id="cut"),
        pytest.param(colour_onnx(kind="INT32"), "its input is int32", id="an input of another type"),
        pytest.param(b"\x08\x08nonsense", "cannot be loaded", id="nonsense"),
    ],
)
def test_files_that_are_no_model(content: bytes, expected: str, tmp_path: Path, run: Any) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    code, _, err = run("classify", tmp_path, "--model", path)
    assert code == 3 and expected in err, err
    assert len(err.strip().splitlines()) == 1


def test_an_operator_that_the_runtime_lacks_for_its_numbers_is_said_with_what_to_do(tmp_path: Path, run: Any) -> None:
    file = OnnxFile()
    file.node("GlobalAveragePool", [file.node("Cast", ["image"], to=onnx.TensorProto.DOUBLE)], "answer")
    model = onnx.load_from_string(file.serialize({"image": ("float32", (1, 3, 8, 8))}, {"answer": ("float32", (1, 3))}))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    (tmp_path / "double.onnx").write_bytes(model.SerializeToString())
    code, _, err = run("run", "--source", "test", "--max-frames", 1, "--model", tmp_path / "double.onnx")
    assert code == 3 and "double.onnx cannot be loaded" in err and "float32" in err and err.count("\n") == 1


def test_weights_in_another_file_are_missed_by_name(tmp_path: Path) -> None:
    loaded = onnx.load_from_string(brought_onnx())
    path = tmp_path / "m.onnx"
    onnx.save(loaded, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    with Classifier.open(path) as classifier:
        assert classifier.outputs == 3
    (tmp_path / "m.onnx.data").write_bytes(b"")
    with pytest.raises(ModelError, match="weights in another file"):
        Classifier.open(path)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelError, match=re.escape("m.onnx.data")):
        Classifier.open(path)


def test_damaged_files_end_in_an_error_not_a_crash(tmp_path: Path) -> None:
    """In a process of its own, which a native crash would end."""
    (tmp_path / "whole.onnx").write_bytes(colour_onnx())
    program = """
import random, sys
from pathlib import Path
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.runtime.classifier import Classifier
import numpy as np
folder = Path(sys.argv[1])
whole, chance, refused = (folder / "whole.onnx").read_bytes(), random.Random(0), 0
for number in range(150):
    data = bytearray(whole)
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if number % 3 == 0:
        del data[chance.randrange(len(data)):]
    (folder / "x.onnx").write_bytes(data)
    try:
        with Classifier.open(folder / "x.onnx") as model:
            model.classify(np.zeros((9, 9, 3), np.uint8))
    except EdgeMnv2Error:
        refused += 1
print(refused)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 75


def test_without_the_package(model: Path, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    for package in ("onnxruntime", "openvino"):
        (tmp_path / "hidden" / f"{package}.py").write_text("raise ImportError('not here')\n")
    done = subprocess.run(
        [sys.executable, "-m", "edge_mnv2", "classify", str(tmp_path), "--model", str(model)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hidden")},
    )
    assert done.returncode == 1 and "[onnx]" in done.stderr and "Traceback" not in done.stderr


def test_the_model_file_decides_the_backend(model: Path) -> None:
    with open_interpreter(colour_model(), runtime="onnxruntime") as interpreter:
        assert interpreter.runtime.startswith("ai-edge-litert "), "what needs the graph itself stays with LiteRT"
    with pytest.raises(ModelError, match="not an ONNX model"):
        model.write_bytes(b"\x00" * 100)
        Classifier.open(model)


def test_collected_pictures_name_their_model(run: Any, model: Path, tmp_path: Path) -> None:
    code, _, err = run("run", "--model", model, "--source", "test", "--max-frames", 3, "--collect", tmp_path / "c")
    assert code == 0, err
    items = Collection(tmp_path / "c").items()
    assert items and {item.model for item in items} == {hashlib.sha256(model.read_bytes()).hexdigest()[:16]}


@pytest.mark.slow
def test_doctor_says_which_backend_run_uses(run: Any) -> None:
    _, out, _ = run("doctor", "--json")
    rows = {check["id"]: check for check in json.loads(out)["checks"]}
    assert "run uses it for .onnx models" in rows["onnxruntime"]["detail"] and rows["onnxruntime"]["status"] == "ok"
    assert "run uses it for .tflite models" in rows["runtime"]["detail"]


def brought_onnx(
    before: Any = (),
    after: Any = ("Softmax",),
    *,
    factor: float = 1.0,
    offset: float = 0.0,
    shape: Any = (1, 3, 12, 12),
    kind: str = "FLOAT",
    producer: str = "other",
    properties: Any = None,
    output: str = "any",
) -> bytes:
    """As `tests.runtime.brought`: operators `before` (kind, constant, attributes), 1x1 convolution, pool, `after`."""
    helper, types, array = onnx.helper, onnx.TensorProto, onnx.numpy_helper.from_array
    nodes, constants, last = [], [], "image"
    kernel = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) * GAIN * factor
    constants = [array(kernel, "kernel"), array(np.full(3, GAIN * offset, np.float32), "bias")]
    for number, step in enumerate(before):
        name, constant, attributes = (*((step,) if isinstance(step, str) else step), None, {})[:3]
        inputs = [last]
        for position, values in enumerate(constant if isinstance(constant, list) else [constant]):
            if values is not None:
                constants.append(array(np.asarray(values), f"constant{number}.{position}"))
                inputs.append(f"constant{number}.{position}")
        last = f"step{number}"
        nodes.append(helper.make_node(name, inputs, [last], **(attributes or {})))
    nodes.append(helper.make_node("Conv", [last, "kernel", "bias"], ["features"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["features"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    last = "flat"
    for number, name in enumerate(after):
        attributes = {"to": types.FLOAT} if name == "Cast" else {}
        nodes.append(helper.make_node(name, [last], [f"after{number}"], **attributes))
        last = f"after{number}"
    nodes.append(helper.make_node("Identity", [last], [output]))
    graph = helper.make_graph(
        nodes,
        "brought",
        [helper.make_tensor_value_info("image", getattr(types, kind), shape)],
        [helper.make_tensor_value_info(output, types.FLOAT, (shape[0], 3))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name=producer)
    helper.set_model_props(model, properties or {})
    return model.SerializeToString()


TO_NCHW = ("Transpose", None, {"perm": [0, 3, 1, 2]})
PER_CHANNEL = np.full((1, 3, 1, 1), 127.5, np.float32)
BROUGHT = {
    "[-1, 1] inside": (brought_onnx([("Sub", np.float32(127.5)), ("Div", np.float32(127.5))]), "graph"),
    "mean and std inside, of 0..1": (
        brought_onnx([("Sub", PER_CHANNEL / 255), ("Div", PER_CHANNEL / 255)]),
        "graph",
    ),
    "uint8, cast inside, NHWC": (
        brought_onnx(
            [("Cast", None, {"to": 1}), TO_NCHW, ("Sub", PER_CHANNEL), ("Mul", 1 / PER_CHANNEL)],
            shape=(1, 12, 12, 3),
            kind="UINT8",
        ),
        "graph",
    ),
    "uint8 NCHW, dequantized": (
        brought_onnx([("DequantizeLinear", [np.float32(1 / 127.5), np.uint8(128)])], kind="UINT8"),
        "graph",
    ),
    "float NHWC, tf2onnx": (brought_onnx([TO_NCHW], shape=(1, 12, 12, 3), producer="tf2onnx"), "assumed"),
    "folded into the first convolution": (brought_onnx(factor=1 / 127.5, offset=-1.0), "graph"),
    "open batch and size": (brought_onnx(shape=("N", 3, "H", "W"), producer="tf2onnx"), "assumed"),
    "mean and std as properties": (
        brought_onnx(factor=2.0, offset=-1.0, properties={"mean": "[0, 0, 0]", "std": "0.99999 0.99999 0.99999"}),
        "metadata",
    ),
    "Ultralytics": (
        brought_onnx(factor=2.0, offset=-1.0, properties={"author": "Ultralytics", "task": "classify"}),
        "metadata",
    ),
}


@pytest.mark.parametrize("kind", list(BROUGHT))
@pytest.mark.parametrize("after", ["softmax", "logits"])
def test_models_that_people_bring(kind: str, after: str, tmp_path: Path) -> None:
    content, origin = BROUGHT[kind]
    if after == "logits":
        model = onnx.load_from_string(content)
        next(node for node in model.graph.node if node.op_type == "Softmax").op_type = "Identity"
        content = model.SerializeToString()
    path = tmp_path / "brought.onnx"
    path.write_bytes(content)
    spec = ModelSpec(size=(12, 12) if "open" in kind else None)
    with Classifier.open(path, spec=spec) as classifier:
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), brought.scores(), atol=0.01)
        assert classifier.io.input.origin["mean"] == origin and classifier.io.output.kind == after


def test_an_export_of_pytorch_is_taken_as_normalized(tmp_path: Path) -> None:
    path = tmp_path / "brought.onnx"
    path.write_bytes(brought_onnx(producer="pytorch"))
    with Classifier.open(path) as classifier:
        assert classifier.io.input.mean == pytest.approx((123.675, 116.28, 103.53))
        assert "ImageNet's mean and std is assumed" in classifier.notes[0]


def test_an_export_of_pytorch_for_grey_pictures_is_taken_as_normalized_too(tmp_path: Path) -> None:
    path = tmp_path / "brought.onnx"
    three = ("Expand", np.array([1, 3, 12, 12], np.int64))
    path.write_bytes(brought_onnx([three], factor=0.5, shape=(1, 1, 12, 12), producer="pytorch"))
    with Classifier.open(path) as classifier:
        assert classifier.io.input.mean == pytest.approx((np.mean((123.675, 116.28, 103.53)),))
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), np.full(3, 1 / 3), atol=1e-5)


@pytest.mark.parametrize("after", [("Softmax",), ("Softmax", "Cast"), ("Softmax", "Identity"), ("LogSoftmax", "Exp")])
@pytest.mark.parametrize("name", ["logits", "probabilities", "Identity:0"])
def test_one_softmax_under_any_name(after: Any, name: str, tmp_path: Path) -> None:
    path = tmp_path / "brought.onnx"
    path.write_bytes(brought_onnx(after=after, output=name, producer="tf2onnx"))
    with Classifier.open(path) as classifier:
        np.testing.assert_allclose(classifier.scores(solid(COLOUR)), brought.scores(), atol=0.001)


@pytest.mark.parametrize(
    "properties",
    [
        {"names": "{0: 'red', 1: 'green', 2: 'blue'}"},
        {"names": '["red", "green", "blue"]'},
        {"labels": "red,green,blue"},
        {"class_names": "red\ngreen\nblue"},
        {"classes": '{"0": "red", "1": "green", "2": "blue"}'},
    ],
)
def test_labels_in_properties(properties: Any, tmp_path: Path, run: Any) -> None:
    path = tmp_path / "brought.onnx"
    path.write_bytes(brought_onnx(producer="tf2onnx", properties=properties))
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    code, out, _ = run("classify", tmp_path / "p.png", "--model", path, "--json")
    assert code == 0 and [one["label"] for one in json.loads(out)["results"][0]["top"]] == LABELS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (brought_onnx(shape=(4, 3, 12, 12)), "4 pictures at once"),
        (brought_onnx([("Slice", [np.array([0]), np.array([3]), np.array([1])])], shape=(1, 5, 12, 12)), "5 channels"),
        (brought_onnx(after=("ArgMax", "Cast")), "without its ArgMax"),
        (brought_onnx(shape=("N", 3, "H", "W")), "--input-size"),
    ],
)
def test_true_reasons(content: bytes, says: str, tmp_path: Path, run: Any) -> None:
    path = tmp_path / "brought.onnx"
    path.write_bytes(content)
    Image.new("RGB", (30, 20), COLOUR).save(tmp_path / "p.png")
    code, _, err = run("classify", tmp_path / "p.png", "--model", path)
    assert code in (2, 3) and says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("machine", "flags", "overflow"),
    [
        ("x86_64", "flags : avx2 avx512f", True),
        ("x86_64", "flags : avx2 avx512_vnni", False),
        ("AMD64", "flags : avx2 avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", "Features : fp asimd", False),
    ],
)
def test_where_sums_would_overflow(machine: str, flags: Any, overflow: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(flags)
    assert onnx_runtime.sums_overflow(machine, cpuinfo) is overflow


@pytest.mark.slow
@pytest.mark.parametrize("overflow", [False, True])
def test_the_same_integers_the_same_answers(
    overflow: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imagenet_weights: Path
) -> None:
    """With either setting of a session: the one for processors whose sums overflow is exact on every processor."""
    from edge_mnv2.builder.recipe import build
    from edge_mnv2.builder.request import BuildRequest
    from edge_mnv2.camera.still import read_still
    from edge_mnv2.zoo.resolve import resolve

    path = tmp_path / "int8.onnx"
    build(BuildRequest(path, weights=str(imagenet_weights), format="onnx"))
    if overflow or not onnx_runtime.sums_overflow():
        monkeypatch.setattr(onnx_runtime, "sums_overflow", lambda: overflow)
    pictures = [read_still(one) for one in sorted((data / "imagenet-dev").glob("*.jpg"))[::4]]
    with Classifier.open(path) as here, Classifier.open(resolve("mobilenet_v2_1.0_224_int8").path) as there:
        same = sum(int(here.scores(one).argmax()) == int(there.scores(one).argmax()) for one in pictures)
    assert len(pictures) >= 100 and same >= 0.97 * len(pictures)
