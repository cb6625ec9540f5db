"""Another model takes over between two frames."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edge_mnv2.pipeline.decision import Decider, Event
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.stages import SceneGate
from edge_mnv2.runtime.classifier import Classifier
from tests.pipeline.conftest import Collected
from tests.pipeline.test_frame_loop import Scripted
from tests.stubs import colour_model

NAMES = (["red", "green", "blue"], ["rouge", "vert", "bleu"])


class Announced(Collected):
    """Also keeps what was announced between results."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def announce(self, events: list[Event]) -> None:
        self.events += events


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_swaps_lose_no_frame_and_mix_no_names(tmp_path: Path, workers: int, gated: bool) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())

    def classifiers(turn: int) -> list[Classifier]:
        return [Classifier.open(path, NAMES[turn % 2]) for _ in range(workers)]

    def gate() -> SceneGate:
        return SceneGate(refresh_s=60)

    source, sink = Scripted(400, fps=200), Announced()
    current = classifiers(0)
    decider = Decider(NAMES[0], on=0.3, off=0.2, results=1)
    with source:
        loop = FrameLoop(source, current, [sink], decider=decider, gate=gate() if gated else None)
        thread = threading.Thread(target=loop.run)
        thread.start()
        for turn in range(1, 21):
            seen = len(sink.results)
            while len(sink.results) == seen:
                time.sleep(0.002)
            swapped, former = threading.Event(), current
            current = classifiers(turn)
            decider = Decider(NAMES[turn % 2], on=0.3, off=0.2, results=1)
            loop.swap(current, decider, gate() if gated else None, swapped.set)
            assert swapped.wait(10)
            for one in former:
                one.close()
        thread.join(20)
        assert not thread.is_alive()
    assert len(sink.results) + loop.dropped == 400
    indices = [result.frame.index for result in sink.results]
    assert indices == sorted(set(indices))
    turns = [int(result.top[0].label in NAMES[1]) for result in sink.results]
    assert sum(a != b for a, b in zip(turns, turns[1:])) == 20
    for result, turn in zip(sink.results, turns):
        assert {one.label for one in result.top} <= set(NAMES[turn])
        assert set(result.present) <= set(NAMES[turn])
    assert any(event.kind == "gone" for event in sink.events)
    for one in current:
        one.close()


def test_a_swap_keeps_the_number_of_workers(tmp_path: Path) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    with Classifier.open(path, NAMES[0]) as one:
        loop = FrameLoop(Scripted(1), [one])
        with pytest.raises(ValueError, match="2 classifiers for 1"):
            loop.swap([one, one], None, None, lambda: None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_swap_happens_while_the_loop_is_paused(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    old, new = ([Classifier.open(path, names) for _ in range(workers)] for names in NAMES)
    source, swapped = Scripted(10**9, fps=100), threading.Event()
    with source:
        loop = FrameLoop(source, old)
        thread = threading.Thread(target=loop.run)
        thread.start()
        loop.controls.change(paused=True)
        time.sleep(0.3)
        loop.swap(new, None, None, swapped.set)
        assert swapped.wait(5)
        loop.stop()
        thread.join(5)
    for one in (*old, *new):
        one.close()
