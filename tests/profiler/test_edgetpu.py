"""TPU against CPU, with the stand-in for the Edge TPU library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_mnv2.runtime.interpreter import import_runtime
from tests.runtime.edgetpu.conftest import standin, tpu

__all__ = ["standin", "tpu"]

# tflite-runtime's wheel for x86 applies no XNNPACK to quantized models.
CPU = "xnnpack" if import_runtime()[1].startswith("ai-edge-litert") else "none"

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture(autouse=True)
def _models(tpu: pytest.MonkeyPatch, data: Path) -> None:
    tpu.setenv("EDGE_MNV2_MIRROR", str(data / "models"))
    tpu.setattr("edge_mnv2.runtime.supervised.contact.SETTLE_S", 0.0)


@pytest.mark.slow
def test_it_says_which_to_use_for_what(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "out.html"
    asked = ("profile", "--sweep", "--threads", 1, "--duration", 2, "--save", "here", "--report", report)
    code, out, err = run(*asked, "--json")
    assert code == 0, err
    document = json.loads(out)
    delegates = {row["delegate"] for row in document["sweep"]}
    assert delegates == {"edgetpu:0", CPU}
    advice = document["accelerator"]
    assert advice["tpu_model"].endswith("_edgetpu") and not advice["cpu_model"].endswith("_edgetpu")
    assert set(advice["use"]) == {"lowest latency", "most frames a second", "least CPU time a frame"}
    for purpose, entry in advice["use"].items():
        more = purpose == "most frames a second"
        best = "tpu" if (entry["tpu"] > entry["cpu"]) == more else "cpu"
        assert entry["use"] in (best, "either"), (purpose, entry)
    assert "Edge TPU or CPU" in report.read_text() and advice["text"][1] in report.read_text()
    # With "auto" the day that the TPU is unplugged is no error, and a CPU that won stays the choice.
    saved = run("devices", "show", "here", "--resolved")[1]
    winner = document["winner"]["delegate"]
    delegate = next(line for line in saved.splitlines() if "delegate" in line and "here.yaml" in line)
    assert ("auto" if winner.startswith("edgetpu") else "none") in delegate
    code, out, _ = run("run", "--source", "test", "--every-frame", "--max-frames", 5, "--json")
    summary = json.loads(out)
    assert (code, summary["device"], summary["delegate"]) == (0, "here", winner)


@pytest.mark.slow
def test_with_the_tpu_asked_for_only_it_is_measured(run: Run) -> None:
    code, out, err = run("profile", "--delegate", "edgetpu", "--duration", 0.5, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["settings"]["delegate"] == "edgetpu:0" and document["model_ms"]["p50"] > 0


@pytest.mark.slow
def test_a_tpu_that_refuses_leaves_the_cpu(run: Run, tpu: pytest.MonkeyPatch) -> None:
    tpu.setenv("STANDIN", "absent")
    code, out, err = run("profile", "--sweep", "--threads", 1, "--workers", 1, "--duration", 0.5, "--json")
    document = json.loads(out)
    assert code == 0 and "Traceback" not in err
    assert {row["delegate"] for row in document["sweep"]} == {CPU} and document["accelerator"] is None
    assert any("no Edge TPU" in note for note in document["notes"])
    code, out, err = run("profile", "--delegate", "edgetpu", "--duration", 0.5)
    assert (code, out) == (5, "") and "no Edge TPU is attached" in err


def test_operators_of_a_compiled_model_are_said_to_be_hidden(run: Run) -> None:
    code, out, _ = run("profile", "--delegate", "edgetpu", "--duration", 0.5, "--ops", "--json")
    document = json.loads(out)
    assert code == 0 and document["ops"] is None
    assert any("cannot be taken apart" in note for note in document["notes"])
