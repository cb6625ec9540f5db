"""Keras files of MobileNetV2: any head, what the pictures are, and damage, without Keras or TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.builder.weights import read_weights
from edge_mnv2.errors import ModelError
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from tests.network import reference, seeded

h5py = pytest.importorskip("h5py")

from tests.builder import keras_files  # noqa: E402

SIZE, FEATURES = 32, 1280
BACKBONE = ("backbone", "mobilenetv2_0.35_32", {})
GAP = ("GlobalAveragePooling2D", "pool", {})
State = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def features() -> State:
    shapes = mobilenet_v2(0.35, SIZE, 3).state_dict_shapes()
    return {name: values for name, values in seeded.tensors(shapes).items() if name.startswith("features.")}


def _dense(name: str, outputs: int, inputs: int, seed: int) -> State:
    rng = np.random.RandomState(seed)
    weights = rng.standard_normal((outputs, inputs)) * inputs**-0.5
    bias = rng.uniform(-1, 1, outputs)
    return {f"{name}.weight": weights.astype(np.float32), f"{name}.bias": bias.astype(np.float32)}


ONE, DEEP = _dense("answers", 3, FEATURES, 1), {**_dense("first", 16, FEATURES, 2), **_dense("second", 3, 16, 3)}
NORM = {
    "batch_normalization.weight": np.linspace(0.5, 1.5, FEATURES, dtype=np.float32),
    "batch_normalization.bias": np.linspace(-1, 1, FEATURES, dtype=np.float32),
    "batch_normalization.running_mean": np.linspace(0, 1, FEATURES, dtype=np.float32),
    "batch_normalization.running_var": np.linspace(0.5, 2, FEATURES, dtype=np.float32),
}


def _answer(state: State, name: str, x: np.ndarray) -> np.ndarray:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def _normalized(x: np.ndarray) -> np.ndarray:
    gamma, beta, mean, variance = NORM.values()
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


HEADS: dict[str, tuple[list[keras_files.Layer], State, Callable[[np.ndarray], np.ndarray]]] = {
    "one layer": ([GAP, ("Dense", "answers", {"activation": "softmax"})], ONE, lambda x: _answer(ONE, "answers", x)),
    "two layers": (
        [GAP, ("Dense", "first", {"activation": "relu"}), ("Dropout", "d", {}), ("Dense", "second", {})],
        DEEP,
        lambda x: _answer(DEEP, "second", np.maximum(_answer(DEEP, "first", x), 0)),
    ),
    "a ReLU of its own": (
        [GAP, ("Dense", "first", {}), ("ReLU", "r", {"max_value": None}), ("Dense", "second", {})],
        DEEP,
        lambda x: _answer(DEEP, "second", np.maximum(_answer(DEEP, "first", x), 0)),
    ),
    "no activation between": (
        [GAP, ("Dense", "first", {"activation": "linear"}), ("Dense", "second", {"activation": "softmax"})],
        DEEP,
        lambda x: _answer(DEEP, "second", _answer(DEEP, "first", x)),
    ),
    "batch normalization": (
        [GAP, ("BatchNormalization", "batch_normalization", {"epsilon": 1e-3}), ("Dense", "answers", {})],
        {**NORM, **ONE},
        lambda x: _answer(ONE, "answers", _normalized(x)),
    ),
}
BEFORE: dict[str, tuple[list[keras_files.Layer], Callable[[np.ndarray], np.ndarray]]] = {
    "nothing": ([], lambda pixels: pixels / 127.5 - 1),
    "rescaling": ([("Rescaling", "s", {"scale": 1 / 127.5, "offset": -1})], lambda pixels: pixels / 127.5 - 1),
    "fractions": ([("Rescaling", "s", {"scale": 1 / 255, "offset": 0.0})], lambda pixels: pixels / 255),
    "ImageNet's": (
        [
            ("RandomFlip", "f", {}),
            ("Rescaling", "s", {"scale": 1 / 255}),
            ("Normalization", "n", {"mean": [0.4, 0.5, 0.6], "variance": [0.04, 0.09, 0.16]}),
        ],
        lambda pixels: (pixels / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.3, 0.4]),
    ),
}


def _writers(path: Path, state: State, model: Any) -> list[Path]:
    return [
        keras_files.write_h5(path / "m.h5", state, model),
        keras_files.write_keras(path / "m.keras", state, model),
    ]


def _same_padding(state: State, prepared: np.ndarray) -> np.ndarray:
    """The pooled features with TensorFlow's padding and epsilon: PyTorch's of everything turned by 180 degrees."""
    network = mobilenet_v2(0.35, SIZE, 3)
    turned = {name: v[:, :, ::-1, ::-1] if v.ndim == 4 else v for name, v in state.items()}
    turned = {n: v + np.float32(1e-3 - 1e-5) if n.endswith("running_var") else v for n, v in turned.items()}
    x = prepared[::-1, ::-1]
    for block in network.blocks[:-1]:
        x = reference.block(block, x, turned)
    return x.reshape(-1)


@pytest.mark.slow
@pytest.mark.parametrize(("head", "before"), [*zip(HEADS, [*BEFORE, "nothing"])])
def test_logits_are_kerass(tmp_path: Path, features: State, head: str, before: str) -> None:
    layers, tensors, answer = HEADS[head]
    first, prepare = BEFORE[before]
    picture = seeded.picture(SIZE)
    wanted = answer(_same_padding(features, prepare(picture.astype(np.float64))))
    for path in _writers(tmp_path, {**features, **tensors}, keras_files.config([*first, BACKBONE, *layers], SIZE)):
        report = build(BuildRequest(tmp_path / "m.tflite", str(path), floating=True))
        assert report.network.input == (SIZE, SIZE, 3) and report.weights.assumed == ()
        with open_interpreter(tmp_path / "m.tflite") as interpreter:
            interpreter.set_input((picture.astype(np.float32) / 127.5 - 1)[None])
            interpreter.invoke()
            np.testing.assert_allclose(interpreter.output()[0], wanted, atol=5e-4, rtol=0)


@pytest.mark.slow
def test_files_without_a_configuration_or_names(tmp_path: Path, features: State) -> None:
    state = {**features, **ONE}
    weights = read_weights(keras_files.write_h5(tmp_path / "w.h5", state, None))
    assert weights.outputs == 3 and "softmax" in weights.assumed[0]
    model = keras_files.config([BACKBONE, GAP, ("Dense", "answers", {})], SIZE)
    listed = {layer: layer for layer in keras_files.arrays(state)}
    classes = [(kind, name, {}) for name, kind in listed.items()]
    # Groups are called by class and number there: here every layer is of a class of its own name.
    inner = [{"class_name": kind, "config": {"name": name}} for kind, name, _ in classes if name != "answers"]
    model["config"]["layers"][1]["config"]["layers"] = inner
    model["config"]["layers"][-1]["class_name"] = "Dense"
    path = keras_files.write_keras(tmp_path / "w.keras", state, model)
    assert read_weights(path).outputs == 3


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sigmoid", "linear"])
def test_one_output(tmp_path: Path, features: State, task: str) -> None:
    one = _dense("answers", 1, FEATURES, 5)
    model = keras_files.config([BACKBONE, GAP, ("Dense", "answers", {"activation": task})], SIZE)
    for path in _writers(tmp_path, {**features, **one}, model):
        assert read_weights(path).task == ("classification" if task == "sigmoid" else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([GAP, ("Dense", "answers", {"activation": "swish"})], "the head's activation 'swish' cannot be built"),
        ([GAP, ("Dense", "answers", {"activation": "sigmoid"})], "several classes at once"),
        ([("GlobalMaxPooling2D", "g", {}), ("Dense", "answers", {})], "'g' (GlobalMaxPooling2D) cannot be built"),
        ([GAP, ("LayerNormalization", "l", {}), ("Dense", "answers", {})], "(LayerNormalization) cannot be built"),
        ([GAP, ("Dense", "x\x1b[0m", {"activation": "\x1b]0;x"})], "cannot be built"),
    ],
)
def test_heads_that_cannot_be_built(
    tmp_path: Path, features: State, layers: list[keras_files.Layer], said: str
) -> None:
    for path in _writers(tmp_path, {**features, **ONE}, keras_files.config([BACKBONE, *layers], SIZE)):
        with pytest.raises(ModelError) as caught:
            read_weights(path)
        assert said in str(caught.value) and str(caught.value).isprintable()


def test_layers_before_the_network_that_are_not_known_are_said(tmp_path: Path, features: State) -> None:
    layers = [("TFOpLambda", "tf.math.truediv", {}), BACKBONE, GAP, ("Dense", "answers", {})]
    weights = read_weights(_writers(tmp_path, {**features, **ONE}, keras_files.config(layers, SIZE))[0])
    assert weights.assumed == ("the layers before the network (TFOpLambda) leave pictures from -1 to 1",)
    assert weights.mean == (0.5, 0.5, 0.5)


def test_other_files(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("dense/kernel:0", data=np.zeros((3, 3), np.float32))
    (tmp_path / "cut.h5").write_bytes((tmp_path / "other.h5").read_bytes()[:700])
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"\x08\x01")
    for path, said in (
        (tmp_path / "other.h5", "of another network"),
        (tmp_path / "cut.h5", "are damaged"),
        (saved, "TensorFlow SavedModel"),
        (saved / "saved_model.pb", "a TensorFlow graph"),
        (tmp_path, "are a folder"),
    ):
        with pytest.raises(ModelError) as caught:
            read_weights(path)
        assert said in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_package(tmp_path: Path, features: State, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras_files.config([BACKBONE, GAP, ("Dense", "answers", {})], SIZE)
    path = keras_files.write_h5(tmp_path / "w.h5", {**features, **ONE}, model)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "h5py.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PYTHONPATH", str(blocked), prepend=":")
    with pytest.raises(ModelError, match="h5py is not installed") as caught:
        read_weights(path)
    assert "[keras]" in (caught.value.hint or "")
