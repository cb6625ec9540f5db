"""Checkpoints as people's training scripts leave them: what is in them besides the network, and in what arrangement."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import json
import os
import pathlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mnv2.builder.inference import MEAN, STD
from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.builder.weights import Weights, read_weights, trainable_weights
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from tests.builder.pth_files import pth
from tests.network import reference, seeded

State = dict[str, np.ndarray]
FEATURES = 1280
RESOLUTION = 32


@pytest.fixture(scope="module")
def state() -> State:
    return seeded.tensors(mobilenet_v2(0.35, RESOLUTION, 5).state_dict_shapes())


def read(path: Path, state: State, **more: Any) -> Weights:
    path.write_bytes(pth(state, **more))
    return read_weights(path)


def same(weights: Weights, wanted: State) -> None:
    assert set(weights.tensors) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(weights.tensors[name], values, err_msg=name)


class Colour(enum.Enum):
    RED = 1


class Scheduler:
    """An object of a class of the script's own, with slots of a dictionary and a set."""

    def __init__(self) -> None:
        self.milestones = collections.Counter({10: 1, 20: 1})
        self.names = {"a", "b"}
        self.optimizer = {"param_groups": [{"lr": 0.1}], "state": {(1, 2): 3}}


class Bag(dict):
    """A dictionary of a class of its own."""


class lowercase:
    pass


class Tuned(list):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return (Tuned, (), {"best": 1}, iter([1, 2]))


BESIDE = {
    "options of a command line": argparse.Namespace(model="mobilenet_v2", lr=0.045, out=pathlib.Path("runs")),
    "a numpy scalar": np.float64(81.2),
    "a numpy array": np.arange(6.0).reshape(2, 3),
    "a scheduler": Scheduler(),
    "a dictionary of another class": Bag(lr=1),
    "a list of another class": Tuned(),
    "an enumeration": Colour.RED,
    "dates": [datetime.datetime(2026, 1, 2), datetime.timedelta(3), datetime.timezone.utc],
    "sets": [{1, 2}, frozenset({3}), bytearray(b"x"), b"bytes", 1j, range(3), slice(1, 2)],
    "a default dictionary": collections.defaultdict(list, a=[1]),
    "a namespace": types.SimpleNamespace(a=1),
    "a deque": collections.deque([1, 2], maxlen=3),
    "a class": Scheduler,
    "an object of a class in small letters": lowercase(),
    "large numbers": [1 << 80, -(1 << 80), 1.5, None, True],
}


@pytest.mark.slow
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
def test_what_lies_beside_the_weights_is_not_looked_up(tmp_path: Path, state: State, beside: str, legacy: bool) -> None:
    for protocol in range(2, 6) if not legacy else (2,):
        found = read(
            tmp_path / "w.pth",
            state,
            legacy=legacy,
            protocol=protocol,
            arranged=lambda tensors: {"args": BESIDE[beside], "weights": tensors, "again": BESIDE[beside]},
        )
        same(found, state)


class _Module:
    """As PyTorch pickles a module: its attributes."""

    def __init__(self, parameters: dict[str, Any], modules: dict[str, Any]) -> None:
        self.training = False
        self._parameters, self._buffers, self._modules = parameters, {}, modules


def _as_modules(tensors: dict[str, Any]) -> _Module:
    own = {name: value for name, value in tensors.items() if "." not in name}
    children: dict[str, dict[str, Any]] = {}
    for name, value in tensors.items():
        first, dot, rest = name.partition(".")
        if dot:
            children.setdefault(first, {})[rest] = value
    return _Module(own, {name: _as_modules(inside) for name, inside in children.items()})


ARRANGEMENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "any key": lambda tensors: {"epoch": 3, "my_weights": tensors},
    "deep": lambda tensors: {"run": {"best": [{"net": tensors}]}},
    "in a tuple": lambda tensors: (3, tensors, "x"),
    "an object's attribute": lambda tensors: argparse.Namespace(model=tensors),
    "a module saved whole": _as_modules,
    "a module beside options": lambda tensors: {"args": argparse.Namespace(a=1), "model": _as_modules(tensors)},
    "after an optimizer": lambda tensors: {
        "optimizer": {"state": {0: {"exp_avg": tensors["features.0.0.weight"]}}, "param_groups": []},
        "net": tensors,
    },
    "numbers among the tensors": lambda tensors: {**tensors, "epoch": 3, "_metadata": {"version": 1}},
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_the_state_dict_is_found_wherever_it_is(tmp_path: Path, state: State, arrangement: str) -> None:
    same(read(tmp_path / "w.pth", state, arranged=ARRANGEMENTS[arrangement]), state)


def test_of_two_copies_the_one_that_is_not_averaged(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    both = {**state, **{"ema/" + name: values + 1 for name, values in state.items()}}

    def arranged(tensors: dict[str, Any]) -> Any:
        averaged = {name[4:]: value for name, value in tensors.items() if name.startswith("ema/")}
        return {"model_ema": averaged, "model": {k: v for k, v in tensors.items() if not k.startswith("ema/")}}

    same(read(tmp_path / "w.pth", both, arranged=arranged), state)
    assert "under 'model' are used, not those under 'model_ema'" in caplog.text


@pytest.mark.parametrize("copy", ["ema.", "teacher.", "net.ema_model."])
def test_of_two_networks_in_one_dictionary_the_one_that_was_trained(tmp_path: Path, state: State, copy: str) -> None:
    both = {copy + name: values + 1 for name, values in state.items()}
    both.update({"lightning_module.student." + name: values for name, values in state.items()})
    found = read(tmp_path / "w.pth", both)
    same(found, state)
    assert set(found.left_out) == {copy + name for name in state}


def test_tensors_beside_the_network_are_left_out_and_named(
    tmp_path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = {"model." + name: values for name, values in state.items()}
    more = {
        "criterion.weight": np.ones(5, np.float32),
        "model.features.3.total_ops": np.zeros(1),
        "model.features.0.0.total_params": np.zeros(1),
        "n_averaged": np.array(7, np.int64),
        "model.features.0.1.num_batches_tracked": np.array(7, np.int64),
        "teacher.layer1.0.conv1.weight": np.ones((3, 3, 1, 1), np.float32),
    }
    found = read(tmp_path / "w.pth", {**more, **wrapped})
    same(found, state)
    assert set(found.left_out) == set(more) - {"model.features.0.1.num_batches_tracked"}
    assert "left out, no part of the network: criterion.weight" in caplog.text


def test_normalization_buffers_are_read(tmp_path: Path, state: State) -> None:
    for scale in (1, 255):
        buffers = {
            "normalize.mean": (np.array([0.5, 0.4, 0.3], np.float32) * scale).reshape(1, 3, 1, 1),
            "normalize.std": (np.array([0.2, 0.2, 0.25], np.float32) * scale).reshape(1, 3, 1, 1),
        }
        found = read(tmp_path / "w.pth", {**buffers, **state})
        assert found.mean == pytest.approx((0.5, 0.4, 0.3)) and found.std == pytest.approx((0.2, 0.2, 0.25))
    with pytest.raises(ModelError, match="another padding or normalization"):
        trainable_weights(tmp_path / "w.pth")


def flat_name(name: str) -> str:
    """torchvision's name → the one of a port with one flat `conv` a block."""
    part = name.split(".")
    if part[0] == "classifier":
        return f"classifier.{part[-1]}"
    if part[1] in ("0", "18"):
        return name if part[1] == "0" else "conv." + ".".join(part[2:])
    rest, first = part[3:], part[1] == "1"
    index = 3 * int(rest[0]) + int(rest[1]) if len(rest) == 3 else int(rest[0]) + (2 if first else 4)
    return f"features.{part[1]}.conv.{index}.{rest[-1]}"


def transformers_name(name: str) -> str:
    """torchvision's name → that of the Hugging Face model."""
    part = name.split(".")
    if part[0] == "classifier":
        return f"classifier.{part[-1]}"
    kinds = ("convolution", "normalization")
    if part[1] == "0":
        return f"mobilenet_v2.conv_stem.first_conv.{kinds[int(part[2])]}.{part[-1]}"
    if part[1] == "18":
        return f"mobilenet_v2.conv_1x1.{kinds[int(part[2])]}.{part[-1]}"
    index, rest = int(part[1]), part[3:]
    steps = ("conv_3x3", "reduce_1x1") if index == 1 else ("expand_1x1", "conv_3x3", "reduce_1x1")
    whole = len(rest) == 3
    step = int(rest[0]) if whole else len(steps) - 1
    norm = int(rest[1]) if whole else int(rest[0]) - step
    block = "conv_stem" if index == 1 else f"layer.{index - 2}"
    return f"mobilenet_v2.{block}.{steps[step]}.{kinds[norm]}.{rest[-1]}"


WRAPPERS: dict[str, Callable[[str], str]] = {
    "flat": flat_name,
    "flat, in a wrapper": lambda name: "module." + flat_name(name),
    "backbone and fc": lambda name: (
        name.replace("classifier.1", "fc") if name.startswith("classifier") else "backbone." + name
    ),
    "a Sequential": lambda name: name.replace("features.", "0.", 1).replace("classifier.1", "3"),
    "features under another name": lambda name: name.replace("features.", "encoder.", 1).replace("classifier.1", "out"),
    "compiled": lambda name: "_orig_mod.module." + name,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_and_namings(tmp_path: Path, state: State, wrapper: str) -> None:
    rename = WRAPPERS[wrapper]
    same(read(tmp_path / "w.pth", {rename(name): values for name, values in state.items()}), state)


def test_the_names_of_transformers_have_their_own_conventions(tmp_path: Path, state: State) -> None:
    found = read(tmp_path / "w.pth", {transformers_name(name): values for name, values in state.items()})
    assert found.tensorflow and set(found.tensors) == set(state)
    for name, values in state.items():
        more = 1e-3 - 1e-5 if name.endswith("running_var") else 0
        np.testing.assert_allclose(found.tensors[name], values + np.float32(more), rtol=1e-6)
    with pytest.raises(ModelError, match="another padding"):
        trainable_weights(tmp_path / "w.pth")


def test_a_width_whose_channels_are_multiples_of_four(tmp_path: Path) -> None:
    network = mobilenet_v2(0.1, RESOLUTION, 5, divisor=4)
    state = seeded.tensors(network.state_dict_shapes())
    weights = read(tmp_path / "w.pth", {flat_name(name): values for name, values in state.items()})
    assert (weights.width, weights.divisor) == (0.1, 4)
    build(BuildRequest(tmp_path / "m.tflite", str(tmp_path / "w.pth"), resolution=RESOLUTION, floating=True))


def _linear(outputs: int, inputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights, bias = rng.normal(0, inputs**-0.5, (outputs, inputs)), rng.normal(size=outputs)
    return weights.astype(np.float32), bias.astype(np.float32)


def _norm(size: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 2}
    return {name: (at + 0.3 * rng.random(size)).astype(np.float32) for name, at in values.items()}


def _apply_norm(values: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return (x - values["running_mean"]) / np.sqrt(values["running_var"] + 1e-5) * values["weight"] + values["bias"]


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


(W1, B1), (W2, B2), (W0, B0) = _linear(5, FEATURES, 1), _linear(5, 64, 2), _linear(64, FEATURES, 3)
N0, N64 = _norm(FEATURES, 4), _norm(64, 5)


def _fields(module: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{module}.{name}": one for name, one in values.items()}


HEADS: dict[str, tuple[dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "1x1 convolution": (
        {"classifier.weight": W1[:, :, None, None], "classifier.bias": B1},
        lambda x: W1 @ x + B1,
    ),
    "without bias": ({"fc.weight": W1}, lambda x: W1 @ x),
    "normalized before": (
        {**_fields("classifier.0", N0), "classifier.1.weight": W1, "classifier.1.bias": B1},
        lambda x: W1 @ _apply_norm(N0, x) + B1,
    ),
    "two layers": (
        {"classifier.1.weight": W0, "classifier.1.bias": B0, "classifier.4.weight": W2, "classifier.4.bias": B2},
        lambda x: W2 @ _relu(W0 @ x + B0) + B2,
    ),
    "named layers": (
        {"fc1.weight": W0, "fc1.bias": B0, **_fields("bn", N64), "fc2.weight": W2, "fc2.bias": B2},
        lambda x: W2 @ _relu(_apply_norm(N64, W0 @ x + B0)) + B2,
    ),
    "normalized before the ReLU": (
        {
            **{"head.0.weight": W0, "head.0.bias": B0, **_fields("head.1", N64)},
            **{"head.4.weight": W2, "head.4.bias": B2},
        },
        lambda x: W2 @ _relu(_apply_norm(N64, W0 @ x + B0)) + B2,
    ),
    "normalized after the ReLU": (
        {
            **{"head.0.weight": W0, "head.0.bias": B0, **_fields("head.2", N64)},
            **{"head.3.weight": W2, "head.3.bias": B2},
        },
        lambda x: W2 @ _apply_norm(N64, _relu(W0 @ x + B0)) + B2,
    ),
    "neighbours without an activation": (
        {"head.0.weight": W0, "head.0.bias": B0, "head.1.weight": W2, "head.1.bias": B2},
        lambda x: W2 @ (W0 @ x + B0) + B2,
    ),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_heads_are_built_as_they_are(tmp_path: Path, state: State, head: str, format: str) -> None:
    tensors, answer = HEADS[head]
    features = {name: values for name, values in state.items() if name.startswith("features.")}
    (tmp_path / "w.pth").write_bytes(pth({**features, **tensors}))
    out = tmp_path / f"m.{format}"
    build(BuildRequest(out, str(tmp_path / "w.pth"), resolution=RESOLUTION, floating=True, format=format))
    picture = seeded.picture(RESOLUTION)
    network = mobilenet_v2(0.35, RESOLUTION, 5)
    pooled = (picture / 255 - np.array(MEAN)) / np.array(STD)
    for block in network.blocks[:-1]:
        pooled = reference.block(block, pooled, state)
    pooled = pooled.reshape(-1)
    np.testing.assert_allclose(_answers(out, picture), answer(pooled), atol=2e-4, rtol=0)


def _answers(model: Path, picture: np.ndarray) -> np.ndarray:
    if model.suffix == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        return session.run(None, {"image": picture[None]})[0][0]
    with open_interpreter(model) as interpreter:
        interpreter.set_input((picture.astype(np.float32) / 127.5 - 1)[None])
        interpreter.invoke()
        return interpreter.output()[0].copy()


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a.weight": W1, "b.weight": W1}, "two heads, 'a' and 'b'"),
        ({"fc.weight": np.zeros((5, 49 * FEATURES), np.float32)}, "takes 62720 values, not the 1280 features"),
        (
            {"head.0.weight": N0["weight"], "head.0.bias": N0["bias"], "head.1.weight": W1},
            "the head normalizes layers ('head.0')",
        ),
        ({"scale": np.ones(3, np.float32)}, "the features alone cannot be built"),
    ],
)
def test_heads_that_cannot_be_built(tmp_path: Path, state: State, tensors: State, said: str) -> None:
    features = {name: values for name, values in state.items() if name.startswith("features.")}
    with pytest.raises(ModelError) as caught:
        read(tmp_path / "w.pth", {**features, **tensors})
    assert said in str(caught.value) and "\n" not in str(caught.value)


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("kind", ["system", "popen", "eval", "import"])
def test_a_pickle_that_would_execute_something_beside_the_weights(
    tmp_path: Path, state: State, protocol: int, kind: str
) -> None:
    import subprocess

    mark = tmp_path / "executed"
    calls = {
        "system": _Calls(os.system, f"touch {mark}"),
        "popen": _Calls(subprocess.Popen, ["touch", str(mark)]),
        "eval": _Calls(eval, f"open({str(mark)!r}, 'w')"),
        "import": _Calls(__import__, "antigravity"),
    }
    with pytest.raises(ModelError, match="is refused: it calls"):
        read(
            tmp_path / "w.pth",
            state,
            protocol=protocol,
            arranged=lambda tensors: {"state_dict": tensors, "note": [calls[kind]]},
        )
    assert not mark.exists()


def test_a_tensor_of_the_network_that_a_call_would_make(tmp_path: Path, state: State) -> None:
    with pytest.raises(
        ModelError, match=r"'features\.3\.conv\.2\.weight' is made by .*Scheduler, which is not executed"
    ):
        read(
            tmp_path / "w.pth",
            state,
            arranged=lambda tensors: {**tensors, "features.3.conv.2.weight": Scheduler()},
        )


def test_modules_that_refer_to_each_other_over_and_over(tmp_path: Path, state: State) -> None:
    """Forty small objects whose names would be a million millions."""
    module = _Module({}, {})
    for _ in range(40):
        module = _Module({}, {"a": module, "b": module})
    with pytest.raises(ModelError, match="more parts than a network can have"):
        read(tmp_path / "w.pth", state, arranged=lambda tensors: {"weights": list(tensors.values()), "net": module})


def test_one_output_asks_for_the_task(tmp_path: Path, state: State) -> None:
    one = {**state, "classifier.1.weight": W1[:1], "classifier.1.bias": B1[:1]}
    (tmp_path / "w.pth").write_bytes(pth(one))
    request = BuildRequest(tmp_path / "m.tflite", str(tmp_path / "w.pth"), resolution=RESOLUTION, floating=True)
    with pytest.raises(UsageError, match="one output: a class's logit or a measured value") as caught:
        build(request)
    assert "--task" in (caught.value.hint or "")
    for task in ("classification", "regression"):
        build(BuildRequest(**{**vars(request), "task": task}))
        assert f"task: {task}" in (tmp_path / "m.yaml").read_text()


def test_one_logit_has_the_names_of_two_classes(tmp_path: Path, state: State, photos: Path, run: Any) -> None:
    one = {**state, "classifier.1.weight": W1[:1], "classifier.1.bias": B1[:1]}
    (tmp_path / "w.pth").write_bytes(pth(one))
    (tmp_path / "names.txt").write_text("no\nyes\n")
    options = ["--weights", tmp_path / "w.pth", "--resolution", RESOLUTION, "--labels", tmp_path / "names.txt"]
    for more in (["--float"], ["--calibration", photos], ["--float", "--format", "onnx"]):
        out = tmp_path / f"m.{'onnx' if 'onnx' in more else 'tflite'}"
        assert run("build", *options, *more, "--task", "classification", "--out", out)[0] == 0
        code, said, err = run("classify", photos, "--model", out, "--json")
        assert code == 0, err
        for result in json.loads(said)["results"]:
            scores = {answer["label"]: answer["score"] for answer in result["top"]}
            assert set(scores) == {"no", "yes"} and sum(scores.values()) == pytest.approx(1, abs=1e-3)


NORMALIZATIONS = [
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ((0.3, 0.5, 0.6), (0.2, 0.3, 0.4)),
]


@pytest.mark.parametrize(("mean", "std"), NORMALIZATIONS)
def test_weights_trained_with_another_normalization(
    tmp_path: Path, state: State, mean: tuple[float, ...], std: tuple[float, ...], photos: Path
) -> None:
    (tmp_path / "w.pth").write_bytes(pth(state))
    request = BuildRequest(
        tmp_path / "m.tflite", str(tmp_path / "w.pth"), resolution=RESOLUTION, floating=True, mean=mean, std=std
    )
    report = build(request).as_dict()
    scale = 255 if max(*mean, *std) > 1 else 1
    assert report["normalization"]["mean"] == pytest.approx([value / scale for value in mean])
    assert "trained: {" in (tmp_path / "m.yaml").read_text()
    picture = seeded.picture(RESOLUTION)
    network = mobilenet_v2(0.35, RESOLUTION, 5)
    prepared = (picture / 255 - np.array(mean) / scale) / (np.array(std) / scale)
    wanted = reference.forward(network, prepared, state)
    np.testing.assert_allclose(_answers(tmp_path / "m.tflite", picture), wanted, atol=2e-4, rtol=0)
    integers = build(BuildRequest(**{**vars(request), "floating": False, "calibration": photos}))
    assert integers.comparison is not None and integers.comparison.logit_cosine > 0.95


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.5, 0.5, 0.5)},
        {"mean": (0.5, 0.5, 0.5), "std": (0.0, 1.0, 1.0)},
        {"mean": (0.5, 0.5, float("nan")), "std": (1.0, 1.0, 1.0)},
        {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "weights": "imagenet"},
    ],
)
def test_normalizations_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        build(BuildRequest(**{"out": tmp_path / "m.tflite", "weights": "w.pth", **wrong}))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth are not a regular file"):
        read_weights(tmp_path / "w.pth")


def test_tensorflows_padding(tmp_path: Path, state: State) -> None:
    """At even sizes its zeros are at the end, PyTorch's at the beginning: as in a picture turned by 180 degrees."""
    (tmp_path / "w.pth").write_bytes(pth({transformers_name(name): values for name, values in state.items()}))
    weights = read_weights(tmp_path / "w.pth")
    network = mobilenet_v2(0.35, RESOLUTION, 5)
    turned = {name: v[:, :, ::-1, ::-1] if v.ndim == 4 else v for name, v in weights.tensors.items()}
    picture = seeded.picture(RESOLUTION)
    wanted = reference.forward(network, (picture / 127.5 - 1)[::-1, ::-1], turned)
    for format in ("tflite", "onnx"):
        out = tmp_path / f"m.{format}"
        build(BuildRequest(out, str(tmp_path / "w.pth"), resolution=RESOLUTION, floating=True, format=format))
        np.testing.assert_allclose(_answers(out, picture), wanted, atol=2e-4, rtol=0)
