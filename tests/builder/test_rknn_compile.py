"""`compile --target rknn`: what is missing is one line; with the maker's toolkit here, it is run (soak)."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest

from edge_mnv2 import paths
from edge_mnv2.builder import rknn_compile
from edge_mnv2.builder.imx500_compile import TOOLKIT as IMX500
from edge_mnv2.builder.rknn_compile import parse_log
from edge_mnv2.runtime import toolkit
from edge_mnv2.runtime.rknn import TOOLKIT
from tests.builder.test_compilers import DEFAULT, toolkit_python
from tests.stubs import colour_model

Run = Callable[..., "tuple[int, str, str]"]
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
    # Any shell takes it as it stands: an unquoted `<` would read a file.
    assert "rknn-toolkit2 'setuptools<81'" in err
    assert "'imx500-converter[pt]'" in IMX500.install_hint() and "'torch==2.6.*'" in IMX500.install_hint()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    too_new = toolkit_python(tmp_path / "new", python="[3, 15]")
    code, _, err = run(*base, "--toolkit-python", too_new.parents[1])
    assert code == 5 and "no release for Python 3.15" in err and "python3.12 -m venv" in err
    # A Python that is there, rather than the newest that the toolkit takes.
    for name in ("python3.10", "python3.13"):
        there = tmp_path / "bin" / name
        there.parent.mkdir(exist_ok=True)
        there.write_text("#!/bin/sh\n")
        there.chmod(0o755)
    assert "it takes 3.9 to 3.12: python3.10 -m venv" in run(*base, "--toolkit-python", too_new.parents[1])[2]
    too_old = toolkit_python(tmp_path / "old", python="[3, 8]", version='"2.3"', have='["rknn", "onnx"]')
    assert "Python 3.8, too old" in run(*base, "--toolkit-python", too_old)[2]
    # The documented place, and the variable.
    home = toolkit_python(paths.cache_dir() / toolkit.FOLDER / "rknn", python="[3, 16]")
    assert "3.16" in run(*base)[2] and str(home) in run(*base)[2]
    monkeypatch.setenv(toolkit.VARIABLE, str(too_new))
    assert "3.15" in run(*base)[2]


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
    recipe.mkdir()
    code, out, err = run("compile", model, "--target", "rknn:rk3588", "--simulator", "--json")
    assert code == 2 and "cannot be written" in err and not out
    # All or none of what belongs together.
    assert sorted(tmp_path.iterdir()) == [model, recipe]
    recipe.rmdir()
    code, out, err = run("compile", model, "--target", "rknn:rk3588", "--simulator", "--json")
    assert code == 0 and str(recipe) in json.loads(out)["written"] and recipe.is_file(), err
    code, out, err = run("compile", model, "--target", "rknn:rk3588", "--json")
    assert code == 0 and str(recipe) not in json.loads(out)["written"] and not recipe.exists(), err
    out = run("compile", model, "--target", "rknn:rk3588")[1]
    assert "normal, by " in out and " pictures\n" in out
    # Real numbers are not chosen by pictures.
    out = run("compile", model, "--target", "rknn:rk3588", "--quantization", "fp16")[1]
    assert "fp16\n" in out and " pictures" not in out


def test_wrong_words_are_refused(run: Run, tmp_path: Path) -> None:
    assert "one of rk3562" in run("compile", DEFAULT, "--target", "rknn:rk1")[2]
    assert "--quantization" in run("compile", DEFAULT, "--target", "rknn:rk3588", "--quantization", "int2")[2]
    assert "MODEL or --weights" in run("compile", "--target", "rknn:rk3588")[2]
    compiled = tmp_path / "model_rk3588.rknn"
    compiled.write_bytes(b"RKNN" + bytes(60))
    code, _, err = run("inspect", compiled)
    assert code == 3 and "compiled for a Rockchip NPU: name the .tflite that it was compiled from" in err


@pytest.mark.soak
def test_rockchips_compiler_itself(run: Run, tmp_path: Path, makers_own: Callable[[toolkit.Toolkit], None]) -> None:
    makers_own(TOOLKIT)
    out = tmp_path / "default.rknn"
    code, stdout, err = run("compile", DEFAULT, "--target", "rknn:rk3588", "--out", out, "--json")
    assert code == 0, err
    report = json.loads(stdout)
    assert report["operators"]["accelerator"] > 50 and report["memory"]["weights_bytes"] > 3e6
    assert out.stat().st_size == report["bytes"] and out.with_suffix(".labels.txt").is_file()
