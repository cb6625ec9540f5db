from __future__ import annotations

from pathlib import Path

import pytest

from edge_mnv2.errors import ModelError
from edge_mnv2.inspect.inspection import inspect
from edge_mnv2.profiler.operators import measure
from edge_mnv2.zoo.resolve import resolve


@pytest.mark.slow
def test_the_parts_of_the_default_model_add_up_to_the_whole() -> None:
    path = resolve("mobilenet_v2_1.0_224_int8").path
    found, facts = measure(path, seconds=1.5), inspect(path)
    document = found.document()
    counts = {kind: count for kind, count, _ in found.by_kind()}
    folded = facts.operators.get("PAD", 0)
    assert sum(counts.values()) == sum(facts.operators.values()) - folded
    assert counts["CONV_2D"] == facts.operators["CONV_2D"]
    assert counts["DEPTHWISE_CONV_2D"] == facts.operators["DEPTHWISE_CONV_2D"]
    assert sum(row["macs"] or 0 for row in document["operators"]) == facts.macs
    assert sum(row["share"] for row in document["operators"]) == pytest.approx(1, abs=0.01)
    # Other programs may run meanwhile; that the method is sound is a matter of half or twice, not of a hundredth.
    assert 0.6 < document["covered"] < 1.8
    assert document["rounds"] >= 3 and document["threads"] == 1
    assert all(row["ms"] > 0 for row in document["operators"])


def test_a_stub(stub: Path) -> None:
    rows = measure(stub, seconds=0.05).document()["operators"]
    assert [row["operator"] for row in rows] == ["MEAN", "FULLY_CONNECTED", "SOFTMAX"]


def test_a_compiled_block_cannot_be_taken_apart(data: Path) -> None:
    compiled = next(iter(sorted((data / "models").glob("*edgetpu*.tflite"))))
    with pytest.raises(ModelError, match="edgetpu-custom-op, a block that cannot be taken apart"):
        measure(compiled, seconds=0.1)
