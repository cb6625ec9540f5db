"""Weights of other widths against PyTorch's answers, and the integer model in both runtimes.

The answers are stored (tests/network/torch_reference.py made them); the weights are made anew from their seed.
`EDGE_MNV2_TEST_TFLITE_RUNTIME` names a Python that has tflite-runtime.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from tests.network import seeded

_REFERENCE = Path(__file__).parents[1] / "network" / "torch_reference.json"
NETWORKS = json.loads(_REFERENCE.read_text())["networks"]
_OTHER = os.environ.get("EDGE_MNV2_TEST_TFLITE_RUNTIME")

_CHILD = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType

model, pictures, answers = sys.argv[1:]
interpreter = Interpreter(model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
interpreter.allocate_tensors()
found = []
for picture in np.load(pictures):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[None])
    interpreter.invoke()
    found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
np.save(answers, np.array(found))
"""


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda one: f"{one['width']}-{one['resolution']}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A stored case, and its weights in a file."""
    one = request.param
    shapes = mobilenet_v2(one["width"], one["resolution"], one["classes"]).state_dict_shapes()
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return one, seeded.write_safetensors(path, seeded.tensors(shapes))


def test_float_logits_are_torchs(case: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    one, weights = case
    out = tmp_path / "m.tflite"
    report = build(BuildRequest(out, weights=str(weights), resolution=one["resolution"], floating=True))
    assert report.network.name == f"mobilenet_v2_{one['width']}_{one['resolution']}"
    with open_interpreter(out) as interpreter:
        pixels = seeded.picture(one["resolution"]).astype(np.float32)
        interpreter.set_input((pixels / 127.5 - 1.0)[None])
        interpreter.invoke()
        np.testing.assert_allclose(interpreter.output()[0], one["logits"], atol=1e-3, rtol=0)


@pytest.mark.slow
def test_integers_are_the_same_in_both_runtimes(case: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    one, weights = case
    size, folder = one["resolution"], tmp_path / "pictures"
    folder.mkdir()
    pictures = np.array([seeded.picture(size, seed) for seed in range(3)])
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), picture[..., ::-1])
    out = tmp_path / "m.tflite"
    report = build(BuildRequest(out, weights=str(weights), resolution=size, calibration=folder))
    assert report.comparison is not None and report.comparison.logit_cosine > 0.9
    answers = []
    with open_interpreter(out, xnnpack=False) as interpreter:
        for picture in pictures:
            interpreter.set_input(picture[None])
            interpreter.invoke()
            answers.append(interpreter.output()[0].copy())
    assert len({answer.tobytes() for answer in answers}) == len(pictures)
    if _OTHER is None:
        pytest.skip("EDGE_MNV2_TEST_TFLITE_RUNTIME names no Python with tflite-runtime")
    np.save(tmp_path / "pictures.npy", pictures)
    target = tmp_path / "answers.npy"
    subprocess.run([_OTHER, "-c", _CHILD, str(out), str(tmp_path / "pictures.npy"), str(target)], check=True)
    np.testing.assert_array_equal(np.load(target), answers)
