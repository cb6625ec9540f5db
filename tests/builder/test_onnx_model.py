"""`build --format onnx` in ONNX Runtime, against the `.tflite` of the same weights in LiteRT."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mnv2.builder.calibration import shipped_ranges
from edge_mnv2.builder.inference import operations
from edge_mnv2.builder.onnx_model import onnx_model
from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.builder.tflite_model import float_model, integer_model, numbers
from edge_mnv2.camera.still import read_still
from edge_mnv2.network.network import Head, Network, mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import Preprocessor
from tests.network import seeded

onnx = pytest.importorskip("onnx", reason="no onnx wheel for this system")
onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime wheel for this system")

Run = Callable[..., "tuple[int, str, str]"]


def session(model: bytes, optimized: str = "") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def answers(model: bytes, pictures: Iterable[np.ndarray]) -> np.ndarray:
    opened = session(model)
    return np.array([opened.run(None, {"image": picture[None]})[0][0] for picture in pictures])


def tflite_answers(model: bytes, pictures: Iterable[np.ndarray], xnnpack: bool = True) -> np.ndarray:
    found = []
    with open_interpreter(model, xnnpack=xnnpack) as interpreter:
        floating = interpreter.inputs[0].dtype == np.float32
        for picture in pictures:
            interpreter.set_input(((picture / 127.5 - 1.0).astype(np.float32) if floating else picture)[None])
            interpreter.invoke()
            found.append(interpreter.outputs[0].dequantize(interpreter.output()[0]))
    return np.array(found)


@pytest.mark.parametrize(
    "network",
    [
        mobilenet_v2(0.35, 96, 7),
        mobilenet_v2(0.5, 97, 3),
        mobilenet_v2(0.35, 100, 3, Head(softmax=True)),
        mobilenet_v2(0.35, 64, 2, Head("regression", bounds=(-10.0, 30.0))),
    ],
    ids=["even", "odd", "softmax", "bounds"],
)
def test_floats_are_the_same(network: Network) -> None:
    steps = operations(network, seeded.tensors(network.state_dict_shapes()))
    pictures = [seeded.picture(network.input[0], seed) for seed in range(3)]
    model = onnx_model(network, steps, metadata={"note": "ä"})
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    found, wanted = answers(model, pictures), tflite_answers(float_model(network, steps), pictures)
    # Values of tens differ by more than shares of one: kernels round in their own order.
    np.testing.assert_allclose(found, wanted, atol=1e-5 * max(10.0, float(np.ptp(wanted))))


@pytest.fixture(scope="module")
def shipped(imagenet_weights: Path) -> tuple[bytes, bytes]:
    """The default model as .tflite and as ONNX, both int8."""
    from edge_mnv2.builder.weights import read_weights

    network, weights = mobilenet_v2(), read_weights(imagenet_weights)
    steps = operations(network, weights.tensors)
    integers = numbers(network, steps, shipped_ranges(network, weights))
    return integer_model(network, steps, integers), onnx_model(network, steps, integers)


@pytest.mark.slow
def test_integers_give_the_same_top_class(shipped: tuple[bytes, bytes], data: Path) -> None:
    fit = Preprocessor(224, 224)
    rows = list(csv.DictReader((data / "imagenet-dev" / "torch_reference.csv").open()))[::5]
    pictures = [fit.to_rgb(read_still(data / "imagenet-dev" / row["file"])).copy() for row in rows]
    wanted, found = tflite_answers(shipped[0], pictures), answers(shipped[1], pictures)
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.98
    onnx.checker.check_model(onnx.load_from_string(shipped[1]), full_check=True)
    step = np.diff(np.unique(found)).min()
    assert np.abs(found - wanted).max() <= 10 * step


@pytest.mark.slow
def test_runtime_runs_integers_from_end_to_end(shipped: tuple[bytes, bytes], tmp_path: Path) -> None:
    """Every convolution, addition and the pooling are merged into integer kernels: nothing falls back to floats."""
    target = tmp_path / "optimized.onnx"
    session(shipped[1], str(target))
    kinds = Counter(node.op_type for node in onnx.load(target).graph.node)
    assert kinds["QLinearConv"] == 53 and kinds["QLinearAdd"] == 10
    assert kinds["QLinearGlobalAveragePool"] == kinds["Transpose"] == kinds["DequantizeLinear"] == 1
    assert not {"Conv", "Add", "Clip", "GlobalAveragePool", "QuantizeLinear"} & set(kinds)


@pytest.mark.slow
def test_built_by_the_command(run: Run, photos: Path, tmp_path: Path) -> None:
    state = seeded.tensors(mobilenet_v2(0.35, 96, 3).state_dict_shapes())
    weights = seeded.write_safetensors(tmp_path / "w.safetensors", state)
    labels = tmp_path / "names.txt"
    labels.write_text("red\ngreen\nblue\n")
    call = ["build", "--weights", weights, "--resolution", 96, "--calibration", photos, "--labels", labels, "--json"]
    documents = []
    for name in ("m.onnx", "m.tflite"):
        code, out, err = run(*call, "--format", name[2:], "--out", tmp_path / name)
        assert code == 0, err
        documents.append(json.loads(out))
    # What quantization cost is a matter of the integers, which both files share.
    assert documents[0]["logit_cosine"] == documents[1]["logit_cosine"]
    assert documents[0]["inference_ms"] > 0 and documents[0]["format"] == "onnx"
    content = (tmp_path / "m.onnx").read_bytes()
    given, made = session(content).get_inputs()[0], session(content).get_outputs()[0]
    assert (given.name, given.shape, given.type) == ("image", [1, 96, 96, 3], "tensor(uint8)")
    assert (made.name, made.shape, made.type) == ("logits", [1, 3], "tensor(float)")
    properties = session(content).get_modelmeta().custom_metadata_map
    assert properties["labels"].split("\n") == ["red", "green", "blue"]
    assert (properties["task"], properties["input"]) == ("classification", "RGB, uint8, NHWC")
    assert (tmp_path / "m.labels.txt").read_text() == labels.read_text()
    for command in ("inspect", "compile"):
        code, _, err = run(command, tmp_path / "m.onnx")
        assert code == 3 and "ONNX" in err and len(err.splitlines()) == 1
    code, out, err = run("classify", photos / "1.png", "--model", tmp_path / "m.onnx", "--json")
    assert code == 0 and json.loads(out)["results"][0]["top"][0]["label"] in ("red", "green", "blue"), err
    again = tmp_path / "again.onnx"
    run(*call, "--format", "onnx", "--out", again)
    assert again.read_bytes() == content


def test_a_regression_has_its_value(photos: Path, tmp_path: Path) -> None:
    state = seeded.tensors(mobilenet_v2(0.35, 96, 1).state_dict_shapes())
    weights = seeded.write_safetensors(tmp_path / "w.safetensors", state)
    out = tmp_path / "m.onnx"
    build(
        BuildRequest(
            out,
            weights=str(weights),
            resolution=96,
            task="regression",
            unit="mm",
            bounds=(0.0, 50.0),
            floating=True,
            format="onnx",
        )
    )
    value = answers(out.read_bytes(), [seeded.picture(96)])
    assert value.shape == (1, 1) and 0.0 < value[0, 0] < 50.0
    assert session(out.read_bytes()).get_modelmeta().custom_metadata_map["unit"] == "mm"


@pytest.mark.parametrize(
    "options",
    [("--out", "m.tflite"), ("--out", "m.onnx", "--target", "edgetpu"), ("--out", "m.onnx", "--input-type", "int8")],
)
def test_calls_that_cannot_be(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    out, *more = options[1:]
    code, _, err = run("build", "--format", "onnx", "--out", tmp_path / out, *more)
    assert code == 2 and len(err.splitlines()) == 1


def test_without_the_packages(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is written by ourselves; only how long it takes is then unknown."""
    for name in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    state = seeded.tensors(mobilenet_v2(0.35, 64, 3).state_dict_shapes())
    weights = seeded.write_safetensors(tmp_path / "w.safetensors", state)
    call = ["build", "--weights", weights, "--resolution", 64, "--calibration", photos, "--json"]
    code, out, err = run(*call, "--format", "onnx", "--out", tmp_path / "m.onnx")
    assert code == 0, err
    assert json.loads(out)["inference_ms"] is None and (tmp_path / "m.onnx").stat().st_size > 400_000
