"""What the installed runtime makes of a file, found in a child process."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from edge_mnv2.inspect import delegation
from edge_mnv2.tflite import graph


@pytest.mark.parametrize(
    ("name", "left"),
    [
        # uint8 pooling and softmax have no XNNPACK kernel.
        ("mobilenet_v2_1.0_224_quant.tflite", {"AVERAGE_POOL_2D", "SOFTMAX"}),
        ("mobilenet_v1_0.25_128_quant.tflite", {"AVERAGE_POOL_2D", "SOFTMAX"}),
    ],
)
def test_operators_that_xnnpack_takes(data: Path, name: str, left: set[str]) -> None:
    pytest.importorskip("ai_edge_litert", reason="tflite-runtime's wheel for x86 has no XNNPACK for integers")
    path = data / "models" / name
    found = delegation.find(path)
    operators = graph.read(path.read_bytes()).operators
    assert found.xnnpack is True and found.problem is None
    assert found.parts == 2
    assert {operator.kind for position, operator in enumerate(operators) if position not in found.operators} == left


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mobilenet_v1_0.25_128_quant_edgetpu.tflite", "compiled for the Coral Edge TPU"),
        ("model_invoking_error.tflite", "fake-op-double"),
    ],
)
def test_a_file_that_does_not_load(data: Path, name: str, said: str) -> None:
    found = delegation.find(data / "models" / name)
    assert found.xnnpack is False
    assert said in str(found.problem) and str(data) not in str(found.problem)


def test_a_crash_of_the_runtime_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that dies like a native loader stands for the interpreter."""
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nimport os\nos.kill(os.getpid(), {int(signal.SIGSEGV)})\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    found = delegation.find(tmp_path / "m.tflite")
    assert found.xnnpack is None and "SIGSEGV" in str(found.problem)


def test_an_operator_belongs_to_the_node_that_its_result_leaves_through() -> None:
    """a → b → [c, d] → e with b and c, d taken by two nodes; e is left."""
    details = [
        {"op_name": "A", "inputs": [0], "outputs": [1]},
        {"op_name": "B", "inputs": [1, -1], "outputs": [2]},
        {"op_name": "C", "inputs": [3], "outputs": [4]},
        {"op_name": "D", "inputs": [4, 3], "outputs": [5]},
        {"op_name": "E", "inputs": [5], "outputs": [6]},
        {"op_name": "DELEGATE", "inputs": [1], "outputs": [2]},
        {"op_name": "DELEGATE", "inputs": [3], "outputs": [5]},
    ]
    assert delegation.taken(details) == ([1, 2, 3], 2)
    assert delegation.taken(details[:5]) == ([], 0)
