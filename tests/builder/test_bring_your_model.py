"""Every command of docs/bring-your-model.md, on files of the documented form of each tool."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from tests.builder.pth_files import pth
from tests.network import seeded
from tests.runtime import brought
from tests.stubs import BLUE, GREEN, RED, colour_model

PAGE = (Path(__file__).parents[2] / "docs" / "bring-your-model.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
NAMES = ("red", "green", "blue")
SIZE = 64
Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos`, and `brought` with a file for each command of the page."""
    folder = tmp_path_factory.mktemp("page")
    files = folder / "brought"
    for name, colour in zip(NAMES, (RED, GREEN, BLUE)):
        for number in range(4):
            for place in (folder / "photos", files / "dataset" / "train" / name):
                place.mkdir(parents=True, exist_ok=True)
                picture = np.clip(np.full((96, 96, 3), colour[::-1]) + number * 7 - 9, 0, 255).astype(np.uint8)
                picture[: 8 * number] = 128
                cv2.imwrite(str(place / f"{name}{number}.png"), picture)
    (files / "labels.txt").write_text("0 red\n1 green\n2 blue\n")
    (files / "names.csv").write_text("index,name\n0,red\n1,green\n2,blue\n")
    (files / "names.txt").write_text("red\ngreen\nblue\n")
    (files / "class_indices.json").write_text('{"red": 0, "green": 1, "blue": 2}')
    (files / "model_unquant.tflite").write_bytes(colour_model("float32"))
    (files / "model.tflite").write_bytes(colour_model("uint8"))
    zero_to_one = brought.quantized("int8", 1 / 255, -128).body(2.0, -1.0)
    (files / "ei-int8-quantized-model.lite").write_bytes(zero_to_one.write())
    (files / "converted.tflite").write_bytes(colour_model("float32"))
    packed = brought.archive(labels_txt="red\ngreen\nblue\n")
    described = brought.metadata([127.5], [127.5], ["labels.txt"])
    (files / "mediapipe.tflite").write_bytes(brought.Net().body().write(described, packed))
    state = seeded.tensors(mobilenet_v2(0.35, SIZE, 3).state_dict_shapes())
    (files / "torchvision.pth").write_bytes(pth(state, wrapped="model"))
    (files / "model_best.pth.tar").write_bytes(pth(state, wrapped="state_dict"))
    (files / "last.ckpt").write_bytes(pth({f"model.{name}": one for name, one in state.items()}, wrapped="state_dict"))
    seeded.write_safetensors(files / "model.safetensors", state)
    one = {
        **state,
        "classifier.1.weight": state["classifier.1.weight"][:1],
        "classifier.1.bias": np.zeros(1, np.float32),
    }
    (files / "one_output.pth").write_bytes(pth(one))
    return folder


def _keras(path: Path) -> None:
    pytest.importorskip("h5py")
    from tests.builder import keras_files

    state = seeded.tensors(mobilenet_v2(0.35, SIZE, 3).state_dict_shapes())
    layers = [("backbone", "b", {}), ("GlobalAveragePooling2D", "g", {}), ("Dense", "predictions", {})]
    keras_files.write_keras(path, state, keras_files.config(layers, SIZE))


def _ultralytics(path: Path) -> None:
    pytest.importorskip("onnx")
    from tests.runtime.test_onnx_runtime import brought_onnx

    names = "{0: 'red', 1: 'green', 2: 'blue'}"
    properties = {"author": "Ultralytics", "task": "classify", "names": names}
    path.write_bytes(brought_onnx(factor=2.0, offset=-1.0, properties=properties))


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line.split()[1:5]))
def test_the_command_works(line: str, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    words = shlex.split(line)[1:]
    for word, write in (("brought/model.keras", _keras), ("brought/best.onnx", _ultralytics)):
        if word in words:
            write(folder / word)
    if words[0] == "build" and "brought/model.keras" not in words:
        # Smaller than the page's 224, for the test's time.
        words += ["--resolution", str(SIZE)]
    if words[0] == "classify":
        words.append("--json")
    code, out, err = run(*words)
    assert code == 0, f"{out}{err}"
    if words[0] == "classify":
        best = {Path(one["file"]).stem: one["top"][0]["label"] for one in json.loads(out)["results"]}
        assert best == {f"{name}{number}": name for name in NAMES for number in range(4)}
    else:
        assert (folder / words[words.index("--out") + 1]).is_file()


TOOLS = os.environ.get("EDGE_MNV2_TEST_TOOLS")


@pytest.mark.slow
@pytest.mark.skipif(TOOLS is None, reason="EDGE_MNV2_TEST_TOOLS names no Python with torchvision, timm, Keras, ...")
def test_files_that_the_tools_wrote(tmp_path: Path) -> None:
    script = Path(__file__).with_name("written_by_tools.py")
    subprocess.run([str(TOOLS), str(script), str(tmp_path)], check=True, timeout=280)
    answers = np.load(tmp_path / "answers.npz")
    assert len(answers.files) > 5
    for name in answers.files:
        pictures, wanted = np.load(tmp_path / f"{name}.pictures.npy"), answers[name]
        build(BuildRequest(tmp_path / "m.tflite", str(tmp_path / name), floating=True, task="classification"))
        with open_interpreter(tmp_path / "m.tflite") as interpreter:
            for picture, logits in zip(pictures, wanted):
                interpreter.set_input((picture.astype(np.float32) / 127.5 - 1)[None])
                interpreter.invoke()
                np.testing.assert_allclose(interpreter.output()[0], logits, atol=1e-4, rtol=0, err_msg=name)
