"""A runtime is declared once, in its row: --runtime, its help, doctor and the service's unit follow from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.runtime import table
from edge_mnv2.runtime.classifier import Classifier
from tests.pyproject import extras
from tests.stubs import colour_model

Run = Callable[..., "tuple[int, str, str]"]

TALLY = '''
"""A runtime for `.beads` files, three numbers a line: one file of somebody's package."""

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.table import Runtime, TensorSpec

ROW = Runtime("tally", "tally_runtime", "tally_runtime", ("tally",), (".beads",), devices=("/dev/null",))


class Tally:
    engine, delegate, runtime, threads = "cpu", "none", "tally 1.0", 1

    def __init__(self, weights):
        self.inputs = [TensorSpec("image", 0, (1, 8, 8, 3), np.dtype("uint8"), 0.0, 0)]
        self.outputs = [TensorSpec("scores", 0, (1, 3), np.dtype("float32"), 0.0, 0)]
        self._weights = weights

    def set_input(self, values, position=0):
        self._mean = values.mean((0, 1, 2)) / 255

    def invoke(self):
        self._answer = (self._weights @ self._mean)[None].astype(np.float32)

    def output(self, position=0):
        return self._answer

    def close(self):
        pass


def open_model(row, path, *, threads, accelerate, input_size):
    try:
        return Tally(np.loadtxt(path).reshape(3, 3))
    except ValueError as error:
        raise ModelError(f"{path} has no nine beads") from error


def about(row):
    return "tally 1.0, wooden"
'''


@pytest.fixture(params=["installed package", "row"])
def tally(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runtime as an installed package, and as a row of our table: one file, one row, nothing else. Its model."""
    (tmp_path / "tally_runtime.py").write_text(TALLY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tally_runtime", raising=False)
    information = tmp_path / "tally-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tally\nVersion: 1.0\n")
    if request.param == "row":
        from tally_runtime import ROW

        monkeypatch.setattr(table, "TABLE", (*table.TABLE, ROW))
    else:
        (information / "entry_points.txt").write_text(f"[{table.GROUP}]\ntally = tally_runtime:ROW\n")
    model = tmp_path / "colours.beads"
    model.write_text("9 0 0\n0 9 0\n0 0 9\n")
    model.with_suffix(".yaml").write_text("labels: [red, green, blue]\n")
    return model


@pytest.mark.parametrize("runtime", ["auto", "tally"])
def test_it_runs_its_own_models(runtime: str, run: Run, tally: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (20, 200, 30)).save(tmp_path / "p.png")
    options = ["--model", tally, "--runtime", runtime, "--json"]
    code, out, err = run("classify", tmp_path / "p.png", *options)
    assert code == 0 and json.loads(out)["results"][0]["top"][0]["label"] == "green", err
    code, out, _ = run("run", "--source", "test", "--max-frames", 2, *options)
    assert code == 0 and json.loads(out)["runtime"] == "tally 1.0"


def test_its_errors_are_ours(run: Run, tally: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    tally.write_text("1 2\n")
    code, _, err = run("classify", tmp_path / "p.png", "--model", tally)
    assert code == 3 and "has no nine beads" in err and err.count("\n") == 1
    code, _, err = run("classify", tmp_path / "p.png", "--runtime", "tally")
    assert code == 2 and "tally runs .beads models only" in err and err.count("\n") == 1


def test_a_service_reaches_the_devices_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patterns = ("/dev/nul*", "/dev/no-such-*", "/dev/fixed0", "char-tally*")
    row = table.Runtime("tally", "m", "tally", ("tally",), (".beads",), devices=patterns)
    monkeypatch.setattr(table, "TABLE", (*table.TABLE, row))
    assert table.service_devices("x.beads", "tally") == ["/dev/null", "/dev/fixed0", "char-tally*"]
    assert table.service_devices("x.tflite", "litert") == []


@pytest.mark.slow
def test_doctor_has_its_row(run: Run, tally: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tally.parent), os.environ.get("PYTHONPATH", "")]))
    if tally.parent.joinpath("tally-1.0.dist-info", "entry_points.txt").exists():
        _, out, _ = run("doctor", "--json")
        rows = {check["id"]: check for check in json.loads(out)["checks"]}
        assert (rows["tally"]["status"], rows["tally"]["detail"]) == ("ok", "tally 1.0, wooden")


@pytest.mark.parametrize(("module", "said"), [("raise OSError('no beads')", "no beads"), ("ROW = 5", "no Runtime")])
def test_a_package_that_cannot_be_used_ends_no_run(tmp_path: Path, module: str, said: str) -> None:
    (tmp_path / "broken_runtime.py").write_text(f"print('to stdout')\n{module}\n")
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info/entry_points.txt").write_text(f"[{table.GROUP}]\nbroken = broken_runtime:ROW\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "edge_mnv2", "run", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0 and "onnxruntime" in done.stdout and "to stdout" not in done.stdout
    assert done.stderr.count("left out") == 1 and said in done.stderr


def test_names_of_ours_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imposter.py").write_text(TALLY.replace('Runtime("tally"', 'Runtime("litert"'))
    (tmp_path / "imposter-1.dist-info").mkdir()
    (tmp_path / "imposter-1.dist-info/entry_points.txt").write_text(f"[{table.GROUP}]\nlitert = imposter:ROW\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert table.row("litert").module == "edge_mnv2.runtime.interpreter"


def test_a_start_imports_nothing_to_look_for_packages() -> None:
    program = (
        "import sys; from edge_mnv2.runtime.table import rows, names; rows(); names(); "
        "print({'importlib.metadata', 'numpy', 'email', 'zipfile', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_extras_are_those_of_the_project() -> None:
    for row in table.TABLE:
        assert not row.extra or row.extra in extras(), row.name


def test_a_file_without_a_known_ending_is_tflite(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(colour_model())
    with Classifier.open(path) as classifier:
        assert classifier.scores(np.zeros((9, 9, 3), np.uint8)).shape == (3,)
    with pytest.raises(UsageError, match=r"onnxruntime runs|unknown runtime"):
        table.candidates(path, "tally")
    path.write_bytes(b"nonsense" * 20)
    with pytest.raises(ModelError, match="not a TensorFlow Lite model"):
        Classifier.open(path)
