"""A small real model, and somebody who keeps what a loop finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Classifier
from tests.stubs import colour_model


class Collected:
    """A sink that keeps every result."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def write(self, result: Result) -> None:
        self.results.append(result)


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Classifier]:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    with Classifier.open(path, ["red", "green", "blue"]) as opened:
        yield opened
