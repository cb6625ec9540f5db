"""`compile` by makers' toolkits, in a Python of their own: what is common to them."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_mnv2 import paths
from edge_mnv2.builder.compilers import TARGETS
from edge_mnv2.runtime import toolkit
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.tflite.graph import read, write
from edge_mnv2.tflite.ir import Quantization
from edge_mnv2.tflite.onnx_float import onnx_float
from tests.stubs import colour_model

Run = Callable[..., "tuple[int, str, str]"]
DEFAULT = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite")


def toolkit_python(folder: Path, *, version: str = "null", have: str = "[]", python: str = "[3, 11]") -> Path:
    """A program that answers as a Python with or without a toolkit does."""
    program = folder / "bin" / "python"
    program.parent.mkdir(parents=True)
    facts = f'{{"python": {python}, "machine": "x86_64", "have": {have}, "version": {version}}}'
    program.write_text(f"#!/bin/sh\necho '{facts}'\n")
    program.chmod(0o755)
    return program


def test_another_machine_and_a_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = toolkit.Toolkit("x", "tool", ("json",), ("tool",), ((3, 9), (3, 12)), programs=(("no-java", "apt it"),))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    here = toolkit_python(tmp_path / "env", version='"1"', have='["json"]')
    with pytest.raises(toolkit.AcceleratorError, match="needs no-java, which is not on PATH"):
        maker.find(here)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(toolkit.AcceleratorError, match="this machine is riscv64"):
        maker.find(here)


def test_wrong_options_are_refused(run: Run, tmp_path: Path) -> None:
    for target in ("hailo", "edgetpu:1", "imx500:rk3588"):
        code, _, err = run("compile", DEFAULT, "--target", target)
        assert code == 2 and all(one.form in err for one in TARGETS), err
    assert "--target rknn needs a chip: rknn:rk3562|" in run("compile", DEFAULT, "--target", "rknn")[2]
    for option in (("--images", tmp_path), ("--quantization", "normal"), ("--simulator",), ("--embedding",)):
        code, _, err = run("compile", DEFAULT, *option)
        assert code == 2 and f"{option[0]} is not for --target edgetpu" in err, err
    assert "MODEL or --weights" in run("compile", "--target", "imx500")[2]


def test_a_function_runs_in_another_python_and_its_failure_is_one_line(tmp_path: Path) -> None:
    maker = toolkit.Toolkit("x", "tool", (), ("tool",), ((3, 9), (3, 99)))
    assert maker.run(Path(sys.executable), "copy:copy", {"n": 4}, tmp_path / "log") == {"n": 4}
    with pytest.raises(toolkit.AcceleratorError, match="tool fails: TypeError"):
        maker.run(Path(sys.executable), "operator:neg", {"n": 4}, tmp_path / "log")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("exit 0", "it says nothing"),
        ("echo hello", "hello"),
        ("printf '\\377hello'", "hello"),
        ("echo 3", "3"),
        ("echo broken >&2; exit 1", "broken"),
        ("kill -9 $$", ""),
    ],
)
def test_what_is_no_python_is_called_so(tmp_path: Path, program: str, said: str) -> None:
    maker = toolkit.Toolkit("x", "tool", (), ("tool",), ((3, 9), (3, 99)), (platform.machine(),))
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    with pytest.raises(toolkit.AcceleratorError, match=f"{python} is no Python that works \\(.*{said}"):
        maker.find(python)


def test_the_command_that_installs_is_safe_in_a_shell(tmp_path: Path) -> None:
    """Brackets, stars and signs of a package's version are a shell's own signs too."""
    packages = ("tool[pt]", "torch==2.6.*", "setuptools<81", "plain")
    hint = toolkit.Toolkit("x", "tool", (), packages, ((3, 9), (3, 12))).install_hint()
    (tmp_path / "torch==2.6.0").touch()
    shell = ["sh", "-c", hint.partition("pip install ")[2].join(["printf '%s\\n' ", ""])]
    assert tuple(subprocess.run(shell, capture_output=True, text=True, cwd=tmp_path).stdout.split()) == packages


def test_a_full_disk_is_said_where_the_toolkit_cannot_even_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = toolkit.Toolkit("x", "tool", (), ("tool",), ((3, 9), (3, 99)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError) as full:
        maker.run(Path(sys.executable), "operator:neg", {"n": 4}, tmp_path / "log")
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path))


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
    ends = time.monotonic() + 120
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
