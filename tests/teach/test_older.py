"""Models that an older edge-mnv2 taught (commit 3a8c914, on the colour stub) are classified with and extended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.zoo.resolve import resolve

Run = Callable[..., "tuple[int, str, str]"]

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / "older", tmp_path / "older"))


def picture(path: Path, colour: tuple[float, float, float], seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array(colour) + np.random.default_rng(seed).normal(0, 20, (48, 64, 3))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return path


def answer(run: Run, model: Path, file: Path) -> dict[str, object]:
    """The best answer; of classes the best one beside "unknown", which is wide on a stub of three numbers."""
    code, out, err = run("classify", file, "--model", model, "--json")
    assert code == 0, err
    return next(dict(one) for one in json.loads(out)["results"][0]["top"] if one["label"] != "unknown")


def test_classes(run: Run, older: Path, tmp_path: Path) -> None:
    model = older / "classes.tflite"
    assert resolve(str(model)).open_set is None
    files = {name: picture(tmp_path / f"{name}.png", colour, 50) for name, colour in COLOURS.items()}
    assert [answer(run, model, files[name])["label"] for name in ("red", "green")] == ["red", "green"]
    code, out, _ = run("classify", files["blue"], "--model", model)
    assert code == 0 and out.splitlines()[1].endswith("unknown")
    code, _, err = run("classify", files["red"], "--model", model, "--known", "0.98")
    assert code == 2 and "teach an older one again" in err
    for seed in range(6):
        picture(tmp_path / "more" / "blue" / f"{seed}.png", COLOURS["blue"], seed)
    extended = tmp_path / "extended.tflite"
    options = ["--model", older / "colours.tflite", "--out", extended]
    code, _, err = run("teach", tmp_path / "more", "--add", model, *options)
    assert code == 0, err
    assert [answer(run, extended, files[name])["label"] for name in COLOURS] == list(COLOURS)
    assert resolve(str(extended)).open_set is not None


def test_a_value(run: Run, older: Path, tmp_path: Path) -> None:
    def gauge(path: Path, value: float) -> Path:
        return picture(path, (40 + 1.7 * value, 90, 210 - 1.7 * value), int(value))

    model = older / "value.tflite"
    half = gauge(tmp_path / "half.png", 50)
    reading = answer(run, model, half)
    assert reading["score"] == pytest.approx(50, abs=5) and reading["unit"] == "bar" and "error" not in reading
    for value in range(4, 100, 9):
        gauge(tmp_path / "more" / f"{value}.png", value)
    out = tmp_path / "extended.tflite"
    options = ["--task", "regression", "--model", older / "colours.tflite", "--out", out]
    code, _, err = run("teach", tmp_path / "more", "--add", model, *options)
    assert code == 0, err
    reading = answer(run, out, half)
    assert reading["score"] == pytest.approx(50, abs=5) and reading["error"] > 0
