"""1500 damaged model files with each runtime that is installed: refused in one line or classified, never a crash."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from edge_mnv2.runtime.interpreter import installed_runtimes

CASES = 1500
BATCH = 500


@pytest.mark.slow
@pytest.mark.parametrize("runtime", [*installed_runtimes(), "onnxruntime"])
def test_damaged_models_never_end_the_process(runtime: str, data: Path, tmp_path: Path) -> None:
    if runtime == "onnxruntime":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    log = tmp_path / "log"
    root = Path(__file__).resolve().parents[2]
    small = data / "models" / "mobilenet_v1_0.25_128_quant.tflite"
    for first in range(0, CASES, BATCH):
        command = [sys.executable, "-m", "tests.zoo.damaged_models", str(first), str(first + BATCH), runtime, str(log)]
        done = subprocess.run([*command, str(small)], cwd=root, capture_output=True, timeout=300)
        lines = log.read_text().splitlines()
        assert done.returncode == 0, f"{done.returncode} after {lines[-1:]}: {done.stderr.decode()[-500:]}"
    outcomes = [line.split("\t") for line in lines if not line.endswith("\tbegins")]
    assert [line for line in outcomes if line[2].startswith("WRONG")] == []
    counts = Counter(outcome for _, _, outcome in outcomes)
    assert sum(counts.values()) == CASES
    # Some damage leaves a model that works; most must be noticed, or nothing was looked at.
    assert counts["refused"] > CASES / 2
    assert counts["runs"] > CASES / 50
