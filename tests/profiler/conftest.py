"""A small model that a measurement takes little time over, and processes that profile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stubs import colour_model


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A colour model with its labels beside it."""
    path = tmp_path / "colours.tflite"
    path.write_bytes(colour_model())
    path.with_suffix(".yaml").write_text("labels: [red, green, blue]\n")
    return path


def start(*arguments: object, **more: Any) -> subprocess.Popen:
    """`edge-mnv2 profile ...` as a process of its own."""
    command = [sys.executable, "-m", "edge_mnv2", "profile", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
