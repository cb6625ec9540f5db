"""One or two pictures a class, by the command line, on three backbones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_mnv2.runtime import table
from edge_mnv2.tflite import graph
from tests.teach.lessons import CORAL, OURS, imprinting


@pytest.mark.slow
@pytest.mark.parametrize("head", ["softmax", "imprint"])
@pytest.mark.parametrize("model", [OURS, *CORAL], ids=["ours", "quant", "ptq"])
def test_all_held_out_pictures_are_right(run, data: Path, tmp_path: Path, model: str, head: str) -> None:
    folder = imprinting(data, tmp_path / "pets")
    model = model if model == OURS else str(data / "models" / model)
    out = tmp_path / "mine.tflite"
    code, said, notes = run("teach", folder, "--model", model, "--head", head, "--out", out)
    assert code == 0, notes
    assert "none is held out" in notes and f"run --camera --model {out}" in said
    assert {tensor.dtype for tensor in graph.read(out.read_bytes()).tensors} <= {"int8", "uint8", "int32"}
    code, said, _ = run("classify", "--json", "--model", out, *sorted((data / "imprinting").glob("*_test_*")))
    assert code == 0
    for result in json.loads(said)["results"]:
        assert result["top"][0]["label"] == Path(result["file"]).name.split("_")[0]


@pytest.mark.parametrize("runtime", table.names())
def test_a_runtime_that_does_not_teach_is_said(run, tmp_path: Path, runtime: str) -> None:
    code, _, notes = run("teach", tmp_path / "nowhere", "--runtime", runtime)
    assert code != 0 and ("takes no part in teaching" in notes) == (runtime not in ("litert", "tflite-runtime"))
