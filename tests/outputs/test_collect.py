"""Pictures that a run keeps for a person: by which model's eyes they are compared."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edge_mnv2.outputs.collect import CollectSink
from edge_mnv2.outputs.sink import DRAIN_S, Isolated
from edge_mnv2.runtime.classifier import Prediction
from tests.outputs.results import result


def test_a_model_that_takes_over_while_the_embedder_opens_gets_its_own(tmp_path: Path) -> None:
    sink = CollectSink(str(tmp_path))
    used: list[str] = []

    def embedder(name: str, meanwhile: bool = False) -> object:
        def embed(pixels: np.ndarray) -> np.ndarray:
            used.append(name)
            return np.random.default_rng(len(used)).standard_normal(8).astype(np.float32)

        if meanwhile:
            sink.use("b", lambda: embedder("b"))
        return embed

    sink.use("a", lambda: embedder("a", meanwhile=True))
    for number in range(3):
        unsure = result(number, ranked=(Prediction("cup", 1, 0.3), Prediction("lynx", 2, 0.29)))
        sink.next_at = 0.0
        assert sink.wants(unsure)
        sink.write(unsure)
    assert used == ["a", "b", "b"]


def test_a_run_that_ends_while_the_embedder_opens_loses_no_picture(tmp_path: Path) -> None:
    sink = CollectSink(str(tmp_path))

    def slowly() -> object:
        time.sleep(DRAIN_S + 1)
        return lambda pixels: np.ones(8, np.float32)

    sink.use("a", slowly)
    output = Isolated(sink)
    output.write(result(0, ranked=(Prediction("cup", 1, 0.3), Prediction("lynx", 2, 0.29))))
    output.close()
    assert output.errors == 0 and len(sink.collection.items()) == 1
