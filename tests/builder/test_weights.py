"""Weights in every form that people have them in, and what is said about those that cannot be."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mnv2.builder.weights import fit, read_weights
from edge_mnv2.errors import ModelError
from edge_mnv2.network.network import BOTTLENECKS, mobilenet_v2
from tests.builder.pth_files import pth
from tests.network import seeded

State = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def state() -> State:
    return seeded.tensors(mobilenet_v2(0.35, 96, 7).state_dict_shapes())


def read(path: Path, content: bytes) -> Any:
    path.write_bytes(content)
    return read_weights(path)


def same(found: Mapping[str, np.ndarray], wanted: State) -> None:
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
@pytest.mark.parametrize("wrapped", ["", "state_dict", "model"])
def test_both_formats_of_pytorch(tmp_path: Path, state: State, legacy: bool, wrapped: str) -> None:
    counted = {**state, "features.0.1.num_batches_tracked": np.array(5, np.int64)}
    found = read(tmp_path / "w.pth", pth(counted, legacy=legacy, wrapped=wrapped))
    same(found.tensors, state)
    assert (found.width, found.outputs) == (0.35, 7)
    fit(found, mobilenet_v2(0.35, 96, 7))


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.model."])
def test_prefixes(tmp_path: Path, state: State, prefix: str) -> None:
    same(read(tmp_path / "w.pth", pth({prefix + name: values for name, values in state.items()})).tensors, state)


def test_half_and_double_precision(tmp_path: Path, state: State) -> None:
    for dtype in (np.float16, np.float64):
        found = read(tmp_path / "w.pth", pth({name: values.astype(dtype) for name, values in state.items()}))
        same(found.tensors, {name: values.astype(dtype).astype(np.float32) for name, values in state.items()})


def test_safetensors(tmp_path: Path, state: State) -> None:
    same(read_weights(seeded.write_safetensors(tmp_path / "w.safetensors", state)).tensors, state)


def timm_name(name: str) -> str:
    """torchvision's name of a MobileNetV2 tensor → timm's."""
    part, _, rest = name.partition(".")
    if part == "classifier":
        return "classifier." + rest.split(".")[-1]
    index, rest = rest.split(".", 1)
    last = 1 + sum(repeats for _, _, repeats, _ in BOTTLENECKS)
    if int(index) in (0, last):
        first = int(index) == 0
        norm, field = rest.split(".")
        return f"{('bn1' if first else 'bn2') if norm == '1' else 'conv_stem' if first else 'conv_head'}.{field}"
    stage, place = 0, int(index) - 1
    while place >= BOTTLENECKS[stage][2]:
        place -= BOTTLENECKS[stage][2]
        stage += 1
    step, field = rest[len("conv.") :].rsplit(".", 1)
    plain = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    expanded = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
    return f"blocks.{stage}.{place}.{(plain if stage == 0 else expanded)[step]}.{field}"


def test_timms_names(tmp_path: Path, state: State) -> None:
    renamed = {timm_name(name): values for name, values in state.items()}
    assert {"conv_stem.weight", "blocks.1.0.conv_pwl.weight", "blocks.0.0.bn2.running_var", "conv_head.weight"} <= set(
        renamed
    )
    same(read(tmp_path / "w.pth", pth(renamed)).tensors, state)


def test_a_replaced_classifier(tmp_path: Path, state: State) -> None:
    for new in ("classifier.", "classifier.1.1.", "fc."):
        renamed = {name.replace("classifier.1.", new): values for name, values in state.items()}
        same(read(tmp_path / "w.pth", pth(renamed)).tensors, state)


@pytest.mark.parametrize(
    ("width", "classes", "said"),
    [(0.5, 7, "--width 0.35"), (0.35, 9, "--classes 7"), (0.5, 9, "--width 0.35 and --classes 7")],
)
def test_a_mismatch_names_tensors_and_what_would_fit(
    tmp_path: Path, state: State, width: float, classes: int, said: str
) -> None:
    found = read(tmp_path / "w.pth", pth(state))
    with pytest.raises(ModelError) as caught:
        fit(found, mobilenet_v2(width, 96, classes))
    assert said in str(caught.value)
    assert ("features.2.conv.2.weight" if width != 0.35 else "classifier.1.weight") in str(caught.value)


def _without(name: str) -> Callable[[State], State]:
    return lambda state: {key: values for key, values in state.items() if key != name}


def _with(name: str, value: Any) -> Callable[[State], State]:
    return lambda state: {**state, name: value(state[name]) if callable(value) else value}


def _nan(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flat[3] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("features.5.conv.1.0.weight"), "features.5.conv.1.0.weight is missing"),
        (_with("features.5.extra.weight", np.zeros(3, np.float32)), "unknown"),
        (_with("features.2.conv.3.bias", _nan), "'features.2.conv.3.bias' holds NaN"),
        (_with("features.2.conv.3.bias", lambda values: values + 1e30), "holds numbers up to 1.0e+30"),
        (_with("features.2.conv.3.running_var", lambda values: values - 10), "negative variance"),
        (_with("features.2.conv.3.bias", np.zeros(24, np.int64)), "not a floating-point number"),
        (_without("classifier.1.weight"), "classifier"),
        (lambda state: {"layer1.0.conv1.weight": np.zeros((3, 3), np.float32)}, "another network"),
    ],
)
def test_states_that_cannot_be(tmp_path: Path, state: State, change: Callable[[State], State], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        fit(read(tmp_path / "w.pth", pth(change(state))), mobilenet_v2(0.35, 96, 7))
    assert said in str(caught.value) and "\n" not in str(caught.value)


class _Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


HOSTILE = [_Calls(eval, "1/0"), {"a": _Calls(print, "called")}, [_Calls(exec, "raise SystemExit")], _Calls(type, "x")]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_calls_something(
    tmp_path: Path, value: Any, zipped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    body = pickle.dumps(value, protocol=2)
    stream = io.BytesIO()
    if zipped:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("x/data.pkl", body)
    else:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            stream.write(pickle.dumps(part, protocol=2))
        stream.write(body)
    with pytest.raises(ModelError) as caught:
        read(tmp_path / "w.pth", stream.getvalue())
    assert "\n" not in str(caught.value) and capsys.readouterr().out == ""
