"""A backbone whose input is scaled otherwise than its pixels: teach is told, and what it writes says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.tflite import graph
from edge_mnv2.zoo.resolve import resolve
from tests.runtime import brought
from tests.teach.lessons import imprinting

Run = Callable[..., "tuple[int, str, str]"]


@pytest.mark.parametrize("source", ["option", "metadata", "graph"])
def test_a_taught_model_keeps_the_scaling_of_its_backbone(source: str, data: Path, tmp_path: Path, run: Run) -> None:
    backbone, out = tmp_path / "backbone.tflite", tmp_path / "taught.tflite"
    model = graph.read((data / "models" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes())
    model.metadata.pop("TFLITE_METADATA", None)
    if source == "metadata":
        model.metadata["TFLITE_METADATA"] = brought.metadata((120.0,), (130.0,))
    # Other bytes than those that the registry knows.
    model.description = source
    backbone.write_bytes(graph.write(model))
    options = ["--mean", "120", "--std", "130"] if source == "option" else []
    folder = imprinting(data, tmp_path / "pets")
    code, _, err = run("teach", folder, "--model", backbone, "--out", out, "--no-unknown", *options)
    assert code == 0, err
    said = yaml.safe_load(out.with_suffix(".yaml").read_text())["preprocess"]
    assert ("mean" in said) == (source != "graph")
    resolved = resolve(str(out))
    with Classifier.open(out, resolved.labels, model_spec(resolved)) as classifier:
        expected = 128.0 if source == "graph" else 120.0
        assert classifier.io.input.mean == pytest.approx((expected,) * 3)
        assert not classifier.notes
    if source == "option":
        more = tmp_path / "more.tflite"
        code, _, err = run("teach", folder, "--add", out, "--out", more, "--no-unknown")
        assert code == 0, err
        assert yaml.safe_load(more.with_suffix(".yaml").read_text())["preprocess"]["mean"] == [120.0] * 3
