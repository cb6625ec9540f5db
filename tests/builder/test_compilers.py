"""`compile` for accelerators of other makers: what is missing is one line; with the maker's toolkit here, it is run."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2 import paths
from edge_mnv2.builder import rknn_compile
from edge_mnv2.builder.rknn_compile import parse_log
from edge_mnv2.runtime import toolkit
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.rknn import TOOLKIT
from edge_mnv2.tflite.graph import read, write
from edge_mnv2.tflite.ir import Quantization
from edge_mnv2.tflite.onnx_float import onnx_float
from tests.stubs import colour_model

Run = Callable[..., "tuple[int, str, str]"]
DEFAULT = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite")
HERE = platform.machine() in TOOLKIT.machines

# Lines of rknn-toolkit2 2.5.0's log, as it prints them.
LOG = """
D RKNN: [07:38:12.317] ID   OpType       DataType Target InputShape                    OutputShape     Cycles(DDR/NPU/Total)
D RKNN: [07:38:12.317] 0    InputOperator INT8    CPU    \\                             (1,3,224,224)   0/0/0                 0    InputOperator:image
D RKNN: [07:38:12.317] 1    ConvClip      INT8    NPU    (1,3,224,224),(32,3,3,3),(32) (1,32,112,112)  23540/112896/112896   151  Conv:t0
D RKNN: [07:38:12.317] 2    Softmax       FLOAT16 CPU    (1,9)                         (1,9)           0/0/20                1    Softmax:t9
D RKNN: [07:38:12.329] Total Internal Memory Size: 1568KB
D RKNN: [07:38:12.329] Total Weight Memory Size: 3610.81KB
"""  # noqa: E501


def test_the_log_of_rockchips_compiler() -> None:
    report = parse_log(LOG)
    assert report["operators"] == {"total": 2, "accelerator": 1, "cpu": 1}
    assert report["memory"] == {"weights_bytes": 3697469, "activations_bytes": 1605632}
    assert report["estimate"]["cycles"] == 112916
    assert [row["name"] for row in report["table"] if not row["mapped"]] == ["Softmax:t9"]
    assert parse_log("")["operators"] == {"total": None, "accelerator": None, "cpu": None}


def toolkit_python(folder: Path, *, version: str = "null", have: str = "[]", python: str = "[3, 11]") -> Path:
    """A program that answers as a Python with or without a toolkit does."""
    program = folder / "bin" / "python"
    program.parent.mkdir(parents=True)
    facts = f'{{"python": {python}, "machine": "x86_64", "have": {have}, "version": {version}}}'
    program.write_text(f"#!/bin/sh\necho '{facts}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.skipif(not HERE, reason="the toolkit exists for other machines only")
def test_what_is_missing_is_one_line_with_the_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ("compile", "--target", "rknn:rk3588", DEFAULT)
    code, out, err = run(*base, "--toolkit-python", tmp_path / "nowhere")
    assert code == 5 and not out and "no Python there" in err and err.count("\n") == 1
    code, _, err = run(*base, "--toolkit-python", sys.executable)
    missing = "rknn is missing" if sys.version_info[:2] <= TOOLKIT.pythons[1] else "has no release for Python"
    assert code == 5 and missing in err and "pip install rknn-toolkit2" in err and err.count("\n") == 1
    too_new = toolkit_python(tmp_path / "new", python="[3, 15]")
    code, _, err = run(*base, "--toolkit-python", too_new.parents[1])
    assert code == 5 and "no release for Python 3.15" in err and "python3.12 -m venv" in err
    too_old = toolkit_python(tmp_path / "old", python="[3, 8]", version='"2.3"', have='["rknn", "onnx"]')
    assert "Python 3.8, too old" in run(*base, "--toolkit-python", too_old)[2]
    # The documented place, and the variable.
    home = toolkit_python(paths.cache_dir() / toolkit.FOLDER / "rknn", python="[3, 16]")
    assert "3.16" in run(*base)[2] and str(home) in run(*base)[2]
    monkeypatch.setenv(toolkit.VARIABLE, str(too_new))
    assert "3.15" in run(*base)[2]


def test_another_machine_and_a_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = toolkit.Toolkit("x", "tool", ("json",), ("tool",), ((3, 9), (3, 12)), programs=(("no-java", "apt it"),))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    here = toolkit_python(tmp_path / "env", version='"1"', have='["json"]')
    with pytest.raises(toolkit.AcceleratorError, match="needs no-java, which is not on PATH"):
        maker.find(here)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(toolkit.AcceleratorError, match="this machine is riscv64"):
        maker.find(here)


def test_a_recipe_of_an_older_model_does_not_stay(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Compiler(toolkit.Toolkit):
        def find(self, asked: Optional[Path] = None) -> tuple[Path, str]:
            return asked or Path(sys.executable), "rknn-toolkit2 2.3"

        def run(self, python: Path, function: str, order: dict[str, Any], log: Path) -> dict[str, Any]:
            log.write_text(LOG)
            Path(order["out"]).write_bytes(b"RKNN")
            return {}

    monkeypatch.setattr(rknn_compile, "TOOLKIT", Compiler("rknn", "tool", (), ("tool",), ((3, 9), (3, 99))))
    model, recipe = tmp_path / "m.tflite", tmp_path / "m_rk3588.simulator.npz"
    model.write_bytes(colour_model())
    code, out, err = run("compile", model, "--target", "rknn:rk3588", "--simulator", "--json")
    assert code == 0 and str(recipe) in json.loads(out)["written"] and recipe.is_file(), err
    code, out, err = run("compile", model, "--target", "rknn:rk3588", "--json")
    assert code == 0 and str(recipe) not in json.loads(out)["written"] and not recipe.exists(), err


def test_wrong_options_are_refused(run: Run, tmp_path: Path) -> None:
    for target in ("hailo", "edgetpu:1", "imx500:rk3588"):
        assert run("compile", DEFAULT, "--target", target)[0] == 2
    assert "one of rk3562" in run("compile", DEFAULT, "--target", "rknn:rk1")[2]
    assert "--quantization" in run("compile", DEFAULT, "--target", "rknn:rk3588", "--quantization", "int2")[2]
    assert "--images is not for --target edgetpu" in run("compile", DEFAULT, "--images", tmp_path)[2]
    assert "MODEL or --weights" in run("compile", "--target", "rknn:rk3588")[2]


def test_a_function_runs_in_another_python_and_its_failure_is_one_line(tmp_path: Path) -> None:
    maker = toolkit.Toolkit("x", "tool", (), ("tool",), ((3, 9), (3, 99)))
    assert maker.run(Path(sys.executable), "copy:copy", {"n": 4}, tmp_path / "log") == {"n": 4}
    with pytest.raises(toolkit.AcceleratorError, match="tool fails: TypeError"):
        maker.run(Path(sys.executable), "operator:neg", {"n": 4}, tmp_path / "log")


def test_what_lies_in_the_current_folder_is_no_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of results called like the toolkit's modules, and files like those of the standard library."""
    maker = toolkit.Toolkit("x", "tool", ("no_such_toolkit",), ("tool",), ((3, 9), (3, 99)), (platform.machine(),))
    (tmp_path / "no_such_toolkit").mkdir()
    for name in ("json", "platform", "importlib", "copy", "typing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user's own')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(toolkit.AcceleratorError, match="no_such_toolkit is missing"):
        maker.find(Path(sys.executable))
    assert maker.run(Path(sys.executable), "copy:copy", {"n": 4}, tmp_path / "log") == {"n": 4}


def test_a_toolkit_that_is_stopped_leaves_no_program_behind(tmp_path: Path) -> None:
    maker, said = toolkit.Toolkit("x", "tool", (), ("tool",), ((3, 9), (3, 99))), tmp_path / "child"

    def interrupt() -> None:
        while not (said.exists() and said.read_text().endswith("\n")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    order: Any = f"sleep 60 & echo $! > {said}; wait"
    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            maker.run(Path(sys.executable), "os:system", order, tmp_path / "log")
    finally:
        signal.signal(signal.SIGINT, before)
    state = Path("/proc", said.read_text().strip(), "stat")
    ends = time.monotonic() + 10
    # Whoever takes in orphans may leave it as a zombie.
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < ends, "the toolkit's own child goes on"
        time.sleep(0.05)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_the_float_form_answers_as_the_model(dtype: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime wheel for this system")
    model = colour_model(dtype)
    session = onnxruntime.InferenceSession(onnx_float(read(model)))
    picture = np.random.default_rng(5).integers(0, 256, (1, 8, 8, 3))
    with open_interpreter(model) as interpreter:
        values = picture if dtype == "uint8" else picture - 128 if dtype == "int8" else (picture - 127.5) / 127.5
        interpreter.set_input(values.astype(dtype))
        interpreter.invoke()
        wanted = interpreter.outputs[0].dequantize(interpreter.output())
    real = ((picture - 128) / 127.5 if dtype != "float32" else (picture - 127.5) / 127.5).astype(np.float32)
    assert np.abs(session.run(None, {"image": real.transpose(0, 3, 1, 2)})[0] - wanted).max() < 0.02


@pytest.mark.parametrize("highest", [1.0, 6.0])
def test_the_float_form_is_cut_off_where_the_integers_stand_for_that(highest: float) -> None:
    """Cells of a taught value are in states from 0 to 1, and ReLU6 may be left to the range of the integers."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime wheel for this system")
    graph = read(colour_model("int8", softmax=False))
    graph.outputs[0].quantization = Quantization.per_tensor(highest / 255, -128)
    session = onnxruntime.InferenceSession(onnx_float(graph))
    picture = np.tile(np.array([250, 5, 127], np.uint8), (1, 8, 8, 1))
    with open_interpreter(write(graph)) as interpreter:
        interpreter.set_input((picture ^ 128).view(np.int8))
        interpreter.invoke()
        wanted = interpreter.outputs[0].dequantize(interpreter.output())
    real = ((picture - 128.0) / 127.5).astype(np.float32)
    answer = session.run(None, {"image": real.transpose(0, 3, 1, 2)})[0]
    assert np.abs(answer - wanted).max() < 0.05 and wanted.max() == pytest.approx(highest)


def test_the_float_form_of_the_default_model() -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime wheel for this system")
    session = onnxruntime.InferenceSession(onnx_float(read(DEFAULT.read_bytes())))
    picture = np.random.default_rng(5).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    with open_interpreter(DEFAULT) as interpreter:
        interpreter.set_input(picture)
        interpreter.invoke()
        logits = interpreter.outputs[0].dequantize(interpreter.output())
        real = interpreter.inputs[0].dequantize(picture).transpose(0, 3, 1, 2)
    assert np.corrcoef(session.run(None, {"image": real})[0].ravel(), logits.ravel())[0, 1] > 0.97


@pytest.mark.soak
def test_rockchips_compiler_itself(run: Run, tmp_path: Path) -> None:
    try:
        TOOLKIT.find()
    except toolkit.AcceleratorError as error:
        pytest.skip(str(error))
    out = tmp_path / "default.rknn"
    code, stdout, err = run("compile", DEFAULT, "--target", "rknn:rk3588", "--out", out, "--json")
    assert code == 0, err
    report = json.loads(stdout)
    assert report["operators"]["accelerator"] > 50 and report["memory"]["weights_bytes"] > 3e6
    assert out.stat().st_size == report["bytes"] and out.with_suffix(".labels.txt").is_file()
