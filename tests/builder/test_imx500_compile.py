"""`compile --target imx500`: what goes to Sony's toolkit; with it here, it is run (soak)."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Optional

import numpy as np
import pytest

from edge_mnv2.builder import imx500_compile
from edge_mnv2.builder.backbone import cut
from edge_mnv2.builder.compile_source import _plain_head
from edge_mnv2.builder.float_heads import ClassHead, Linear
from edge_mnv2.builder.imx500_compile import TOOLKIT, _likeness
from edge_mnv2.builder.taught_head import append_classifier
from edge_mnv2.cli.build import _agreement
from edge_mnv2.runtime import toolkit
from edge_mnv2.tflite.graph import read, write
from tests.stubs import colour_model, stub_at

Run = Callable[..., "tuple[int, str, str]"]


class Converter(toolkit.Toolkit):
    """Answers as the tools do, and keeps what they were to do."""

    orders: ClassVar[list[dict[str, Any]]] = []

    def find(self, asked: Optional[Path] = None) -> tuple[Path, str]:
        return asked or Path(sys.executable), "imx500-converter 3.19"

    def run(self, python: Path, function: str, order: dict[str, Any], log: Path) -> dict[str, Any]:
        self.orders.append(order)
        memory = {"Fit In Chip": True, "Memory Usage": "1MB", "Total Memory Available On Chip": "8MB"}
        memory.update({"Model Memory Physical Size": "1.5MB", "Runtime Memory Physical Size": "512KB"})
        report, packed = log.with_name("report.json"), log.with_name("packed.zip")
        report.write_text(json.dumps({"Memory Report": memory}))
        packed.write_bytes(b"PK")
        agreement = None if order["embedding"] else 1.0
        return {"report": str(report), "packed": str(packed), "agreement": agreement, "cosine": 0.99, "operators": 3}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Converter, "orders", [])
    monkeypatch.setattr(imx500_compile, "TOOLKIT", Converter("imx500", "tool", (), ("tool",), ((3, 9), (3, 99))))
    return stub_at(tmp_path)


def taught(model: Path) -> None:
    """In place of the model's head, one of several layers."""
    backbone, rows = cut(read(colour_model("int8"))), Linear(np.eye(3), np.zeros(3))
    append_classifier(backbone, ClassHead(rows, rows, np.eye(3)), np.eye(3))
    model.write_bytes(write(backbone.graph))


def test_a_head_of_several_layers_is_left_to_the_cpu(run: Run, model: Path) -> None:
    base = ("compile", model, "--target", "imx500", "--json")
    code, out, err = run(*base)
    document = json.loads(out)
    assert code == 0 and not document["embedding"] and document["agreement"] == 1.0 and "head of" not in err
    assert document["memory"]["weights_bytes"] == 1536 << 10 and Path(document["out"]).name.endswith("_imx500.zip")
    sidecar = Path(document["out"]).with_suffix(".yaml").read_text()
    # The file in the camera is made of this one.
    assert "sha256:" not in sidecar and f" from {model.name}, sha256 " in sidecar
    taught(model)
    code, out, err = run(*base)
    document = json.loads(out)
    assert code == 0 and document["embedding"] and document["agreement"] is None
    assert err.count("is more than one layer: it is left to the CPU, as with --embedding") == 1
    _, out, err = run(*base, "--embedding")
    assert json.loads(out)["embedding"] and "more than one layer" not in err
    assert [one["embedding"] for one in Converter.orders] == [False, True, True]
    said = run(*base[:-1])[1]
    assert "cosine to floats 0.990" in said and "left to the CPU" in said


def test_a_full_disk_is_one_line_and_leaves_nothing(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(model.parent.iterdir())
    monkeypatch.setattr(np, "save", full)
    code, out, err = run("-q", "compile", model, "--target", "imx500", "--json")
    assert (code, out, err.count("\n")) == (1, "", 1) and "no space left on the disk: free some" in err, err
    assert sorted(model.parent.iterdir()) == before


def test_of_a_measured_value_no_agreement_is_claimed() -> None:
    """Its best class is always the same one."""
    ours, real = np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[1.0, 2.0], [2.0, 3.0]])
    assert _likeness(ours, real, classes=True) == {"agreement": 0.5, "cosine": 0.9615}
    assert _likeness(ours, real, classes=False) == {"agreement": None, "cosine": 0.9615}
    assert _likeness(ours[:, :1], real[:, :1], classes=True) == {"agreement": None, "cosine": None}
    document = {"agreement": None, "cosine": None}
    assert _agreement(document) == ""


@pytest.mark.parametrize("name", ["mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq"])
def test_a_convolution_as_the_head_is_one_layer(data: Path, name: str) -> None:
    """Of Google's models: a reshape and a softmax follow."""
    assert _plain_head(read((data / "models" / f"{name}.tflite").read_bytes()))


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_sonys_tools_themselves(run: Run, tmp_path: Path, makers_own: Callable[[toolkit.Toolkit], None]) -> None:
    makers_own(TOOLKIT)
    code, out, err = run(
        "compile", "mobilenet_v2_1.0_224_int8", "--target", "imx500", "--out", tmp_path / "x.zip", "--json"
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["memory"]["weights_bytes"] > 3e6 and document["cosine"] > 0.9
    assert (tmp_path / "x.zip").read_bytes()[:2] == b"PK"
