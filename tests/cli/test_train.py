"""`train` as it is typed: help without PyTorch, refusals, the document, the example from pictures to int8."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.installed import extra_hint

Run = Callable[..., "tuple[int, str, str]"]

_EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_to_int8.py"

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed (extra `train`)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    for name, low in (("bright", 150), ("dark", 0)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(8):
            pixels = chance.integers(low, low + 100, (36, 36, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


def test_without_pytorch_there_is_one_line_and_the_rest_works(tmp_path: Path, folder: Path) -> None:
    blocked = tmp_path / "blocked"
    (blocked / "torch").mkdir(parents=True)
    (blocked / "torch" / "__init__.py").write_text("raise ImportError('no torch here')")
    environment = {**os.environ, "PYTHONPATH": str(blocked)}
    command = [sys.executable, "-m", "edge_mnv2"]
    done = subprocess.run([*command, "train", folder], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        f"PyTorch does not start (no torch here): training needs PyTorch, on a workstation: {extra_hint('train')}"
        in done.stderr
    )
    help_page = subprocess.run([*command, "train", "--help"], env=environment, capture_output=True, text=True)
    assert help_page.returncode == 0 and "--freeze-until" in help_page.stdout


@needs_torch
@pytest.mark.parametrize(
    "options,code,words",
    [
        (("--epochs", 0), 2, "--epochs 0: 1 or more"),
        (("--optimizer", "lion"), 2, "one of sgd, momentum, adagrad, rmsprop, adam"),
        (("--loss", "hinge"), 2, "one of cross-entropy, mse, rmse, mape"),
        (("--schedule", "linear"), 2, "one of cosine, step, constant"),
        (("--task", "regression"), 2, "has no labels.csv"),
        (("--threads", "many"), 2, "a whole number from 1 to 256 or auto"),
        (("--workers", -1), 2, "a whole number from 0 to 256 or auto"),
        (("--augment", "blur"), 2, "some of crop,flip,colour"),
        (("--width", 0.5, "--weights", "imagenet"), 2, "exist for width 1.0 only, not 0.5"),
        (("--width", 0.35, "--resolution", 8), 2, "from 32 to 2048"),
        (("--width", 0.35, "--freeze-until", 40), 2, "19 blocks"),
        (("--weights", "nothing.pth"), 3, "nothing.pth cannot be read"),
        (("--teacher-resolution", 96), 2, "without --teacher"),
        (("--batch", 10_000_000, "--width", 0.35), 2, "would fit"),
        (("--width", 0.35, "--resolution", 32, "--teacher", "mobilenet_v2_1.0_224_int8"), 3, "knows 1000 classes"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Run, folder: Path, tmp_path: Path, options: tuple, code: int, words: str
) -> None:
    found, out, said = run("train", folder, "--out", tmp_path / "out", *options)
    last = said.splitlines()[-1]
    assert (found, out) == (code, "") and last.startswith("edge-mnv2: error: ") and words in last


@pytest.mark.slow
@needs_torch
def test_the_document_and_the_next_command(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--width", 0.35, "--resolution", 32, "--epochs", 2, "--batch", 4, "--threads", 1, "--tensorboard")
    code, text, said = run("train", folder, "--out", out, *options, "--json")
    document = json.loads(text)
    assert code == 0 and document["network"] == "mobilenet_v2_0.35_32" and document["epochs"] == 2
    assert document["quantization"] is None and document["rmse"] is None and 0 <= document["top1"] <= 1
    assert "float epoch 2/2: loss " in said and " left)" in said and "from scratch" in said
    if importlib.util.find_spec("tensorboard") is None:
        assert said.count("pip install tensorboard") == 1
    following = said.splitlines()[-1].removeprefix("next: edge-mnv2 ").split()
    code, _, _ = run(*following)
    assert code == 0 and (out / "model.tflite").is_file() and (out / "model.labels.txt").is_file()
    (folder / "dark" / "3.png").write_bytes(b"")
    code, text, said = run("train", folder, "--out", tmp_path / "again", *options[:-1], "--qat", 1)
    assert code == 8 and said.count("left out: ") == 1
    assert "same as float" in text and "qat_int8" in text and "qat.ranges.json" in said.splitlines()[-1]
    assert "trained for integers" in (tmp_path / "again" / "curves.html").read_text()
    code, _, _ = run(*said.splitlines()[-1].removeprefix("next: edge-mnv2 ").split())
    assert code == 0


@pytest.mark.slow
@needs_torch
def test_a_teacher_of_either_kind_teaches(run: Run, folder: Path, tmp_path: Path) -> None:
    small = ("--width", 0.35, "--resolution", 32, "--epochs", 1, "--batch", 4, "--threads", 1)
    code, _, _ = run("train", folder, "--out", tmp_path / "teacher", *small)
    assert code == 0
    weights, model = tmp_path / "teacher" / "best.pth", tmp_path / "teacher.tflite"
    labels = tmp_path / "teacher" / "labels.txt"
    run("build", "--weights", weights, "--labels", labels, "--resolution", 48, "--float", "--out", model)
    for teacher in (weights, model):
        out = tmp_path / f"taught by {teacher.suffix[1:]}"
        code, text, _ = run("train", folder, "--out", out, *small, "--teacher", teacher, "--json")
        assert code == 0 and json.loads(text)["epochs"] == 1
    (folder / "bright").rename(folder / "lit")
    code, _, said = run("train", folder, "--out", tmp_path / "other", *small, "--teacher", model)
    assert code == 3 and "has other classes: 'bright' where these pictures have 'dark'" in said


@pytest.mark.slow
@needs_torch
def test_the_examples_short_version_goes_the_whole_way(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, which has the example's digits, is not installed")
    command = [sys.executable, str(_EXAMPLE), "--short", str(tmp_path / "digits")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "int8 top-1" in done.stdout.splitlines()[-1] and (tmp_path / "digits/short/digits.tflite").is_file()
