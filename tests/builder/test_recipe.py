"""`build` from weights to files: the shipped model, other widths, what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2 import paths
from edge_mnv2.builder.inference import operations
from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.builder.tflite_model import float_model
from edge_mnv2.builder.weights import read_weights
from edge_mnv2.camera.still import read_still
from edge_mnv2.errors import EdgeMnv2Error, ModelError, UsageError
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.model_io import ModelSpec
from tests.network import seeded

Run = Callable[..., "tuple[int, str, str]"]


def safetensors(path: Path, width: float, outputs: int, resolution: int = 96) -> Path:
    """Untrained weights of the right shapes."""
    return seeded.write_safetensors(path, seeded.tensors(mobilenet_v2(width, resolution, outputs).state_dict_shapes()))


@pytest.mark.slow
def test_the_shipped_model_is_rebuilt_byte_for_byte(imagenet_weights: Path, tmp_path: Path) -> None:
    shipped = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite").read_bytes()
    report = build(BuildRequest(tmp_path / "x.tflite", weights=str(imagenet_weights)))
    assert report.sha256 == hashlib.sha256(shipped).hexdigest()
    assert (tmp_path / "x.tflite").read_bytes() == shipped


@pytest.mark.slow
def test_float_equals_torch_and_int8_agrees_with_float(imagenet_weights: Path, data: Path, tmp_path: Path) -> None:
    network = mobilenet_v2()
    reference = tmp_path / "float.tflite"
    reference.write_bytes(float_model(network, operations(network, read_weights(imagenet_weights).tensors)))
    rows = list(csv.DictReader((data / "imagenet-dev" / "torch_reference.csv").open()))[::4]
    path = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite")
    with (
        Classifier.open(reference) as exact,
        Classifier.open(path) as coarse,
    ):
        same_as_torch = agreed = 0
        for row in rows:
            picture = read_still(data / "imagenet-dev" / row["file"])
            best = int(exact.scores(picture).argmax())
            same_as_torch += best == int(row["top1"])
            agreed += best == int(coarse.scores(picture).argmax())
    assert same_as_torch >= len(rows) - 1
    assert agreed >= 0.95 * len(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "outputs", "resolution"), [(0.35, 7, 96), (0.5, 3, 97)])
def test_other_widths_and_resolutions_run_in_integers(
    run: Run, tmp_path: Path, photos: Path, width: float, outputs: int, resolution: int
) -> None:
    weights = safetensors(tmp_path / "w.safetensors", width, outputs)
    out = tmp_path / "m.tflite"
    code, text, err = run(
        "build", "--weights", weights, "--resolution", resolution, "--calibration", photos, "--out", out, "--json"
    )
    assert code == 0, err
    report = json.loads(text)
    assert report["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest() and report["bytes"] == out.stat().st_size
    assert report["logit_cosine"] > 0.9 and report["layers"][0]["snr_db"] > 5
    with open_interpreter(out, xnnpack=False) as model:
        assert model.inputs[0].shape == (1, resolution, resolution, 3) and model.outputs[0].shape == (1, outputs)
        kinds = {details["dtype"] for details in model.tensor_details()}
    assert kinds <= {np.int8, np.uint8, np.int32}
    code, text, _ = run("classify", photos / "0.png", "--model", out, "--json")
    assert code == 0 and len(json.loads(text)["results"][0]["top"]) == min(5, outputs)


@pytest.mark.slow
def test_a_regression_gives_its_value(tmp_path: Path, photos: Path) -> None:
    weights = safetensors(tmp_path / "w.safetensors", 0.35, 1)
    wanted = {}
    for name, floating in (("f", True), ("i", False)):
        out = tmp_path / f"{name}.tflite"
        request = BuildRequest(
            out,
            weights=str(weights),
            resolution=96,
            task="regression",
            unit="mm",
            floating=floating,
            calibration=photos,
        )
        build(request)
        with Classifier.open(out, spec=ModelSpec(task="regression")) as model:
            wanted[name] = [float(model.scores(read_still(path))[0]) for path in sorted(photos.iterdir())]
    # Untrained weights are no gentle case for eight bits: the value has to be there, not to be exact.
    assert np.abs(np.subtract(wanted["f"], wanted["i"])).max() < 0.25 * max(map(abs, wanted["f"]))
    assert "unit" in (tmp_path / "i.yaml").read_text()


class _Calls:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1/0",)


@pytest.mark.parametrize("content", [pickle.dumps(_Calls()), b"<html></html>", b"", b"PK\x03\x04" + bytes(50)])
def test_weights_that_are_none_are_refused(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    code, _, err = run("build", "--weights", path, "--out", tmp_path / "m.tflite")
    assert code == 3 and str(path) in err and "Traceback" not in err
    assert not (tmp_path / "m.tflite").exists()


def test_nan_in_weights_and_wrong_class_counts_are_named(tmp_path: Path, photos: Path) -> None:
    path = safetensors(tmp_path / "w.safetensors", 0.35, 7)
    with pytest.raises(ModelError, match="7"):
        build(BuildRequest(tmp_path / "m.tflite", weights=str(path), resolution=96, classes=9, calibration=photos))
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32("nan").tobytes()
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="NaN"):
        build(BuildRequest(tmp_path / "m.tflite", weights=str(path), resolution=96, calibration=photos))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0.5},
        {"classes": 10},
        {"task": "poetry"},
        {"target": "gpu"},
        {"format": "caffe"},
        {"input_dtype": "float16"},
        {"output_dtype": "float16"},
        {"floating": True, "target": "edgetpu"},
        {"floating": True, "output_dtype": "float32"},
        {"report": Path("report.pdf")},
        {"bounds": (0.0, 1.0)},
        {"bounds": (1.0, 0.0), "task": "regression", "weights": "w.pth"},
        {"out": Path("m.bin")},
        {"out": Path("/nowhere/at/all/m.tflite")},
    ],
)
def test_calls_that_cannot_be_are_usage_errors(tmp_path: Path, change: dict[str, object]) -> None:
    given = {"out": tmp_path / "m.tflite", **change}
    with pytest.raises(UsageError):
        build(BuildRequest(**given))  # type: ignore[arg-type]


def test_a_calibration_folder_with_too_few_pictures(tmp_path: Path) -> None:
    weights = safetensors(tmp_path / "w.safetensors", 0.35, 7)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EdgeMnv2Error, match="--calibration"):
        build(BuildRequest(tmp_path / "m.tflite", weights=str(weights), resolution=96, calibration=tmp_path / "empty"))


@pytest.mark.slow
def test_the_report_shows_every_layer(run: Run, tmp_path: Path, photos: Path) -> None:
    weights = safetensors(tmp_path / "w.safetensors", 0.35, 3)
    page = tmp_path / "report.html"
    call = ["build", "--weights", weights, "--resolution", 96, "--calibration", photos, "--out", tmp_path / "m.tflite"]
    code, out, err = run(*call, "--report", page, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["pictures"], found["crops"]) == (6, 36) and found["value_rms"] is None
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]
    assert all(0 <= layer["saturation"] <= 1 for layer in found["layers"])
    text = page.read_text()
    for layer in found["layers"]:
        assert layer["name"] in text
    assert "<svg" in text and "Signal to noise by layer" in text
    assert "<script" not in text and "http://" not in text.replace("http://www.w3.org", "")
    code, out, _ = run(*call)
    assert code == 0 and "the noisiest layers" in out and "values cut" in out
    assert [path.name for path in tmp_path.glob("*.part")] == []


@pytest.mark.slow
def test_borders_of_an_integer_model(run: Run, tmp_path: Path, photos: Path) -> None:
    weights = safetensors(tmp_path / "w.safetensors", 0.35, 3)
    call = ["build", "--weights", weights, "--resolution", 96, "--calibration", photos]
    answers = []
    for number, options in enumerate(([], ["--input-type", "int8", "--output-type", "float32"])):
        out = tmp_path / f"{number}.tflite"
        code, _, err = run(*call, "--out", out, *options)
        assert code == 0, err
        with Classifier.open(out) as model, open_interpreter(out) as opened:
            answers.append(model.scores(read_still(photos / "1.png")))
            types = opened.inputs[0].dtype, opened.outputs[0].dtype
    assert types == (np.int8, np.float32)
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


@pytest.mark.slow
def test_a_float_output_is_not_for_the_edge_tpu(run: Run, tmp_path: Path, photos: Path) -> None:
    weights = safetensors(tmp_path / "w.safetensors", 0.35, 3)
    call = ["build", "--weights", weights, "--resolution", 96, "--calibration", photos, "--target", "edgetpu"]
    assert run(*call, "--out", tmp_path / "m.tflite")[0] == 0
    code, _, err = run(*call, "--output-type", "float32", "--out", tmp_path / "x.tflite")
    assert code == 3 and "DEQUANTIZE" in err and not (tmp_path / "x.tflite").exists()


@pytest.mark.slow
def test_a_regression_is_built_and_evaluated(run: Run, tmp_path: Path, photos: Path) -> None:
    """From weights to MSE, RMSE, MAE and MAPE in the value's unit: integers against the float model's own values."""
    weights = safetensors(tmp_path / "w.safetensors", 0.35, 1)
    call = ["build", "--weights", weights, "--resolution", 96, "--task", "regression", "--unit", "mm"]
    exact, coarse = tmp_path / "f.tflite", tmp_path / "i.tflite"
    assert run(*call, "--float", "--out", exact)[0] == 0
    code, out, _ = run(*call, "--calibration", photos, "--out", coarse, "--json")
    assert code == 0 and json.loads(out)["value_rms"] > 0 and json.loads(out)["agreement"] is None
    files = sorted(photos.iterdir())
    values = []
    for path in (exact, coarse):
        with Classifier.open(path, spec=ModelSpec(task="regression")) as model:
            values.append([float(model.scores(read_still(file))[0]) for file in files])
    lines = [f"{file.name},{value}" for file, value in zip(files, values[0])]
    (photos / "labels.csv").write_text("\n".join(["file,value", *lines]))
    code, out, _ = run("evaluate", photos, "--model", coarse, "--json")
    found, off = json.loads(out), np.subtract(values[1], values[0])
    assert (code, found["task"], found["images"]) == (0, "regression", len(files))
    assert found["mse"] == pytest.approx(np.mean(off**2), rel=1e-3)
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(off**2)), rel=1e-3)
    assert found["mae"] == pytest.approx(np.abs(off).mean(), rel=1e-3)
    assert found["mape"] == pytest.approx(np.mean(np.abs(off / values[0])), rel=1e-3)
    assert "mm" in run("evaluate", photos, "--model", coarse)[1]


@pytest.mark.slow
def test_a_value_within_bounds(run: Run, tmp_path: Path, photos: Path) -> None:
    weights = safetensors(tmp_path / "w.safetensors", 0.35, 1)
    call = ["build", "--weights", weights, "--resolution", 96, "--task", "regression", "--out", tmp_path / "m.tflite"]
    code, _, err = run(*call, "--bounds", "10,30", "--calibration", photos)
    assert code == 0, err
    with Classifier.open(tmp_path / "m.tflite", spec=ModelSpec(task="regression")) as model:
        values = [float(model.scores(read_still(path))[0]) for path in sorted(photos.iterdir())]
    assert all(10 <= value <= 30 for value in values)
    for wrong in ("10", "30,10", "a,b", "0,nan"):
        assert run(*call, "--bounds", wrong, "--float")[0] == 2, wrong
