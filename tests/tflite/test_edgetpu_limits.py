"""What Google's compiler asks of a model, by its documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mnv2.errors import ModelError
from edge_mnv2.tflite import graph
from edge_mnv2.tflite.edgetpu_limits import Verdict, verdict
from edge_mnv2.tflite.edgetpu_limits import check as check_edgetpu
from edge_mnv2.tflite.ir import Tensor
from tests.stubs import colour_model


def changed(change: Callable[[Any], None], dtype: str = "int8") -> Verdict:
    model = graph.read(colour_model(dtype))
    change(model)
    found = verdict(model)
    assert found is not None
    return found


def _fixed(name: str, value: Any) -> Callable[[Any], None]:
    return lambda model: setattr(model.operators[1].outputs[0], name, value)


def _batch_mean(model: Any) -> None:
    model.operators[0].inputs[1] = Tensor.constant("axes", np.array([0, 1], np.int32))


def _computed_weights(model: Any) -> None:
    model.operators[1].inputs[1].data = None


@pytest.mark.parametrize(
    ("change", "mapped", "said"),
    [
        (lambda model: None, 3, ""),
        (_fixed("shape_signature", (-1, 3)), 1, "without a fixed size"),
        (_fixed("quantization", None), 1, "without quantization"),
        (_fixed("dtype", "int16"), 1, "int16"),
        (_fixed("shape", (2, 1, 1, 3)), 1, "innermost"),
        (_batch_mean, 2, "along the batch"),
        (_computed_weights, 1, "computed, not constant"),
    ],
)
def test_limits_of_single_operators(change: Callable[[Any], None], mapped: int, said: str) -> None:
    found = changed(change)
    assert found.mapped == mapped and found.operators == 3
    assert any(said in problem for problem in found.problems) if said else found.problems == ()


def test_a_float_model_has_nothing_for_the_tpu() -> None:
    found = changed(lambda model: None, "float32")
    assert not found.compiles and found.mapped == 0
    with pytest.raises(ModelError, match="cannot be compiled"):
        check_edgetpu(colour_model("float32"))


def test_what_google_compiled_passes(data: Path) -> None:
    """The CPU twins of the compiled reference models are taken whole; a compiled file has no verdict."""
    for name in ("mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant"):
        found = verdict(graph.read((data / "models" / f"{name}.tflite").read_bytes()))
        assert found is not None and found.problems == () and found.mapped == found.operators
        assert verdict(graph.read((data / "models" / f"{name}_edgetpu.tflite").read_bytes())) is None
