"""`evaluate --delegate`: the device's figures are the device's alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_mnv2.runtime.edgetpu.choice import DEFAULT_COMPILED

CPU = "mobilenet_v2_1.0_224_quant"

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def pictures(tpu: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> Path:
    """Twelve times a cat, and the compiled pair on the machine."""
    tpu.setenv("EDGE_MNV2_MIRROR", str(data / "models"))
    tpu.setattr("edge_mnv2.runtime.supervised.contact.SETTLE_S", 0.0)
    folder = tmp_path / "set"
    folder.mkdir()
    lines = ["file,class_index"]
    for number in range(12):
        shutil.copy(data / "images" / "cat.bmp", folder / f"{number}.bmp")
        lines.append(f"{number}.bmp,285")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def test_a_device_beside_the_cpu(run: Run, pictures: Path) -> None:
    code, out, err = run("evaluate", pictures, "--delegate", "edgetpu", "--against", CPU, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["model"], found["images"]) == (DEFAULT_COMPILED, 12)
    assert found["delegate"].startswith("edgetpu:")
    assert found["against"]["model"] == CPU and found["against"]["top1"] == 1.0
    assert found["inference_ms"]["p50"] > 0


def test_the_cpu_without_being_asked(run: Run, pictures: Path) -> None:
    code, out, _ = run("evaluate", pictures, "--model", CPU, "--json")
    assert code == 0 and not json.loads(out)["delegate"].startswith("edgetpu")
    code, out, _ = run("evaluate", pictures, "--model", CPU, "--delegate", "none", "--json")
    assert code == 0 and not json.loads(out)["delegate"].startswith("edgetpu")


@pytest.mark.parametrize("fault", ["refuse", "error@8"])
def test_a_device_that_fails_ends_the_evaluation(run: Run, pictures: Path, tpu: pytest.MonkeyPatch, fault: str) -> None:
    tpu.setenv("STANDIN", fault)
    code, out, _ = run("evaluate", pictures, "--delegate", "edgetpu", "--json")
    assert (code, out) == (5, "")


def test_a_delegate_that_is_none(run: Run, pictures: Path) -> None:
    assert run("evaluate", pictures, "--delegate", "gpu")[0] == 2
