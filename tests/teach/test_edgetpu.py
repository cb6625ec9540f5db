"""A head behind a compiled backbone: the accelerator gives the embedding, the CPU does the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.builder.backbone import cut
from edge_mnv2.runtime import external as worker
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.tflite import graph
from edge_mnv2.tflite.ir import Graph, Operator, Quantization, Subgraph, Tensor
from tests.runtime.edgetpu.conftest import standin
from tests.teach.lessons import imprinting

__all__ = ["standin"]


def extractor(model: Path, scale: float = 1.0) -> bytes:
    """What the compiler makes of the cut `model`: one custom operator with the same input and embedding."""
    backbone = cut(graph.read(model.read_bytes()))
    given, embedding = backbone.graph.inputs[0], backbone.embedding
    source = Tensor(given.name, given.shape, given.dtype, None, given.quantization)
    numbers = Quantization.per_tensor(backbone.scale * scale, backbone.zero_point)
    target = Tensor(embedding.name, embedding.shape, embedding.dtype, None, numbers)
    custom = Operator("CUSTOM", [source], [target], custom_code="edgetpu-custom-op", custom_options=b"\x01")
    return graph.write(Graph([Subgraph([source, target], [source], [target], [custom])], "compiled"))


@pytest.fixture
def small(data: Path) -> Path:
    return data / "models" / "mobilenet_v1_0.25_128_quant.tflite"


def test_the_head_runs_behind_the_accelerator(run, data: Path, tmp_path: Path, small: Path, standin: Path) -> None:
    compiled, out = tmp_path / "extractor_edgetpu.tflite", tmp_path / "mine.tflite"
    compiled.write_bytes(extractor(small))
    folder = imprinting(data, tmp_path / "pets")
    code, _, notes = run("teach", folder, "--model", small, "--compiled", compiled, "--out", out)
    assert code == 0, notes
    twin = tmp_path / "mine_edgetpu.tflite"
    kinds = [operator.name for operator in graph.read(twin.read_bytes()).operators]
    assert kinds[0] == "edgetpu-custom-op" and kinds[-1] == "SOFTMAX"
    # The stand-in answers something of its own for the embedding: the CPU's head must say of that what the twin's says.
    with open_interpreter(compiled, delegates=[worker.load_delegate(str(standin))]) as interpreter:
        picture = np.full(interpreter.inputs[0].shape, 77, np.uint8)
        interpreter.set_input(picture)
        interpreter.invoke()
        embedding = interpreter.output()
    with open_interpreter(twin, delegates=[worker.load_delegate(str(standin))]) as interpreter:
        interpreter.set_input(picture)
        interpreter.invoke()
        answered = interpreter.output()
    head = graph.read(out.read_bytes())
    place = next(at for at, one in enumerate(head.operators) if one.outputs[0].shape == embedding.shape)
    alone = Subgraph([], [head.operators[place].outputs[0]], head.outputs, head.operators[place + 1 :])
    alone.drop_unused()
    with open_interpreter(graph.write(Graph([alone]))) as interpreter:
        interpreter.set_input(embedding)
        interpreter.invoke()
        assert np.array_equal(interpreter.output(), answered)


@pytest.mark.slow
def test_another_backbone_is_refused(run, data: Path, tmp_path: Path, small: Path) -> None:
    folder, out = imprinting(data, tmp_path / "pets"), tmp_path / "mine.tflite"
    compiled = tmp_path / "extractor_edgetpu.tflite"
    for content, said in (
        (extractor(small, scale=1.1), "in other integers than the backbone"),
        (extractor(data / "models" / "mobilenet_v2_1.0_224_quant.tflite"), "does not end in the 256 values"),
        (small.read_bytes(), "is not compiled for the Coral Edge TPU"),
    ):
        compiled.write_bytes(content)
        code, _, notes = run("teach", folder, "--model", small, "--compiled", compiled, "--out", out)
        assert code == 3 and said in notes
        assert not out.exists()
