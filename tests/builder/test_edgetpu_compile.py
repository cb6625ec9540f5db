"""`compile`: what the compiler said is read rightly, what is not here is explained."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_mnv2 import paths
from edge_mnv2.builder.edgetpu_compile import parse_report
from edge_mnv2.tflite import graph, model_file
from edge_mnv2.tflite.ir import Operator, Tensor
from tests.edgetpu_compiler_standin import standin
from tests.stubs import colour_model

Run = Callable[..., "tuple[int, str, str]"]
DEFAULT = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite")

# A report that the compiler printed for somebody (google-coral/edgetpu#60), shortened.
REPORTED = """Edge TPU Compiler version 2.1.302470888

Model compiled successfully in 12264 ms.

Input model: model2.tflite
Input size: 8.11MiB
Output model: model2_edgetpu.tflite
Output size: 9.47MiB
On-chip memory used for caching model parameters: 6.86MiB
On-chip memory remaining for caching model parameters: 7.75KiB
Off-chip memory used for streaming uncached model parameters: 1.22MiB
Number of Edge TPU subgraphs: 1
Total number of operations: 93
Operation log: model2_edgetpu.log

Number of operations that will run on Edge TPU: 83
Number of operations that will run on CPU: 10

Operator                       Count      Status

LOGISTIC                       1          More than one subgraph is not supported
ADD                            73         Mapped to Edge TPU
CONCATENATION                  9          More than one subgraph is not supported
CONCATENATION                  10         Mapped to Edge TPU
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return standin(folder)


def test_a_report_of_the_real_compiler() -> None:
    found = parse_report(REPORTED)
    assert (found.version, found.compile_ms, found.subgraphs) == ("2.1.302470888", 12264, 1)
    assert (found.operators, found.on_tpu, found.on_cpu) == (93, 83, 10)
    assert (found.input_bytes, found.on_chip_remaining) == (round(8.11 * 2**20), round(7.75 * 2**10))
    assert (found.on_chip_used, found.off_chip) == (round(6.86 * 2**20), round(1.22 * 2**20))
    assert [row.status for row in found.table if not row.mapped] == ["More than one subgraph is not supported"] * 2


@pytest.mark.parametrize("text", ["", "Operator Count Status\n", "Input size: many\nTotal number of operations: -\n"])
def test_a_report_that_says_nothing(text: str) -> None:
    found = parse_report(text)
    assert found.as_dict()["operators"] == {"total": None, "tpu": None, "cpu": None}
    assert found.input_bytes is None


def test_the_default_model_compiles_whole(run: Run, compiler: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(DEFAULT.read_bytes())
    code, out, err = run("compile", model, "--json")
    assert code == 0, err
    found = json.loads(out)
    target = tmp_path / "m_edgetpu.tflite"
    assert found["out"] == str(target) and model_file.check(target).edgetpu
    assert found["operators"] == {"total": 70, "tpu": 70, "cpu": 0}
    assert found["compiler"].startswith("16.0") and found["off_chip_bytes"] == 0
    assert found["bytes"] == target.stat().st_size
    labels = (tmp_path / "m_edgetpu.labels.txt").read_text().splitlines()
    assert len(labels) == 1000 and "m_edgetpu.labels.txt" in (tmp_path / "m_edgetpu.yaml").read_text()
    code, out, _ = run("inspect", target, "--json")
    twin = json.loads(out)
    assert twin["edgetpu"] is True and len(twin["labels"]) == 1000
    assert run("compile", target)[0] == 3


def test_in_words_with_what_is_left_on_the_cpu(run: Run, compiler: Path, tmp_path: Path) -> None:
    model = graph.read(colour_model("int8"))
    last = model.outputs[0]
    wide = Tensor("wide", last.shape, "float32")
    model.operators.append(Operator("DEQUANTIZE", [last], [wide], "DequantizeOptions", version=2))
    model.main.outputs = [wide]
    model.signatures = []
    model.main.drop_unused()
    path = tmp_path / "m.tflite"
    path.write_bytes(graph.write(model))
    code, out, err = run("compile", path, "--out", tmp_path / "x.tflite")
    assert code == 0, err
    assert "the Edge TPU runs 3 of 4" in out and "DEQUANTIZE" in out
    assert "DEQUANTIZE is not supported" in err
    assert (tmp_path / "x.tflite").is_file()


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("fail", "Invalid model"),
        ("silent", "said nothing"),
        ("nothing", "refuses"),
        ("empty", "nothing for the Edge TPU"),
    ],
)
def test_a_compiler_that_fails(
    run: Run, compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, said: str
) -> None:
    monkeypatch.setenv("STANDIN_COMPILER", mode)
    path = tmp_path / "m.tflite"
    path.write_bytes(colour_model("int8"))
    code, out, err = run("compile", path)
    assert (code, out) == (3, "") and said in err and len(err.splitlines()) == 1
    assert [file.name for file in tmp_path.glob("*edgetpu*")] == []


def test_a_float_model_is_refused(run: Run, compiler: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(colour_model("float32"))
    code, _, err = run("compile", path)
    assert code == 3 and "works on float32" in err and "Invalid model" in err


@pytest.mark.parametrize(
    ("machine", "said"), [("aarch64", "x86-64 Linux only, and this machine is aarch64"), ("x86_64", "is not installed")]
)
def test_without_the_compiler(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, said: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    code, out, err = run("compile", "mobilenet_v2_1.0_224_int8")
    assert (code, out) == (5, "") and said in err and "coral.ai" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("out", ["m.bin", "nowhere/m.tflite", "m.tflite"])
def test_outputs_that_cannot_be(run: Run, compiler: Path, tmp_path: Path, out: str) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(colour_model("int8"))
    assert run("compile", path, "--out", tmp_path / out)[0] == 2
