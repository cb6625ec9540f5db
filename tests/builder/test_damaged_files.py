"""Damaged weights (PyTorch, safetensors, Keras) and models: `build` and `inspect` end with 3 and one line, or work.

A sample; `python -m tests.builder.damaged_files` does as many as one likes.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

CASES = 90


@pytest.mark.slow
def test_damaged_files_never_end_the_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tests.builder.damaged_files", "0", str(CASES), str(log)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, timeout=200)
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    assert done.returncode == 0, f"{done.returncode} after {lines[-1:]}: {done.stderr.decode()[-500:]}"
    outcomes = [(suffix, found) for _, suffix, _, found in lines if found != "begins"]
    assert [found for _, found in outcomes if found.startswith("WRONG")] == []
    counts = Counter(outcomes)
    assert len(outcomes) == CASES
    for suffix in (".pth", ".safetensors", ".tflite"):
        assert counts[suffix, "refused"] >= CASES / 15, counts
