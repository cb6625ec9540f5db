"""Changing a loop that runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.records import UNRECOGNIZED, as_record
from edge_mnv2.outputs.status import status_text
from edge_mnv2.pipeline.controls import Controls
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.statistics import Statistics
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.model_io import ModelSpec
from edge_mnv2.settings.schema import Output
from edge_mnv2.zoo.model_facts import MovedThreshold, OpenSet
from tests.pipeline.test_frame_loop import Collected, Scripted
from tests.processes import until
from tests.stubs import colour_model


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1.1},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"threshold": "0.5"},
        {"threshold": True},
        {"smooth": 1.0},
        {"smooth": float("inf")},
        {"paused": 1},
        {"paused": "yes"},
        {"threshold": 0.5, "smooth": 7},
        {"known": 0.7},
        {"known": "0.9"},
        {"smooth": 0.1, "known": 0.9},
    ],
)
def test_a_wrong_change_changes_nothing(change: Any) -> None:
    controls = Controls(0.25, 0.5)
    before = controls.as_dict()
    with pytest.raises(UsageError):
        controls.change(**change)
    assert controls.as_dict() == before


def test_where_unknown_begins_moves_and_holds_for_the_next_model(tmp_path: Path) -> None:
    """The last row's odds change in the classifier that runs; 0.95 is what the model was written with."""
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    taught = OpenSet(2, 10.0, 0.3, ((0.9, 0.4), (0.95, 0.3), (0.99, 0.1)))
    unknown, other = MovedThreshold(taught), MovedThreshold(taught)
    with Classifier.open(path, spec=ModelSpec(["red", "green", "unknown"], unknown=unknown)) as classifier:
        controls = Controls(unknown=classifier.unknown)
        assert controls.as_dict()["known"] == 0.95
        raw = np.array([100, 0, 50], np.float32)
        usual = classifier.scores_from(raw.astype(classifier.output.dtype))
        controls.change(known=0.99)
        assert controls.as_dict()["known"] == 0.99
        moved = classifier.scores_from(raw.astype(classifier.output.dtype))
        odds = (moved[2] / moved[0]) / (usual[2] / usual[0])
        assert odds == pytest.approx(np.exp(-2.0), rel=1e-4) and moved.sum() == pytest.approx(1)
    controls.carry(None)
    controls.carry(other)
    assert (other.known, other.factor) == (0.99, unknown.factor)


def test_a_share_that_the_lesson_does_not_reach_is_not_claimed(caplog: pytest.LogCaptureFixture) -> None:
    few = OpenSet(2, 10.0, 0.3, ((0.8, 0.4), (0.9, 0.3)))
    older = OpenSet(2, 10.0, 0.3, (*few.curve, (0.95, 0.3), (0.995, 0.3)))
    for rule in (few, older):
        for asked, reached, factor in ((0.98, 0.9, 1.0), (0.7, 0.8, np.e)):
            moved = MovedThreshold(rule, asked)
            assert (moved.known, moved.factor) == (reached, pytest.approx(factor))
            assert f"{asked} of the known pictures: this model keeps from 0.8 to 0.9 known" in caplog.text
        caplog.clear()
        assert MovedThreshold(rule, 0.85).known == 0.85 and not caplog.text


@pytest.mark.parametrize("workers", [1, 3])
def test_threshold_and_pause_act_on_the_loop_that_runs(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    engines = [Classifier.open(path, ["red", "green", "blue"]) for _ in range(workers)]
    source, collected = Scripted(10**9, fps=200), Collected()
    with source:
        loop = FrameLoop(source, engines, [collected])
        thread = threading.Thread(target=loop.run)
        thread.start()

        def still() -> bool:
            """No result comes while many frames do: what was under way at first is done."""
            seen, dropped = len(collected.results), loop.dropped
            until(lambda: loop.dropped > dropped + 60 or len(collected.results) > seen)
            return len(collected.results) == seen

        until(lambda: collected.results and len(collected.results[-1].top) == 3)
        loop.controls.change(threshold=0.9)
        until(lambda: len(collected.results[-1].top) == 1)
        loop.controls.change(paused=True)
        until(still)
        seen, read = len(collected.results), source._next
        loop.controls.change(paused=False, threshold=0.0)
        until(lambda: len(collected.results) > seen + 10)
        # One may have waited for its turn, one was on its way: none is of the time before.
        assert collected.results[seen].frame.index >= read - 2
        assert collected.results[-1].latency_ns < 1e9
        loop.controls.change(paused=True)
        loop.stop()
        thread.join(60)
    assert not thread.is_alive()
    for engine in engines:
        engine.close()


def test_smoothing_changed_on_the_way_forgets_when_off(tmp_path: Path) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())

    class Switch:
        def __init__(self) -> None:
            self.labels: list[str] = []

        def write(self, result: Any) -> None:
            self.labels.append(result.top[0].label)
            loop.controls.change(smooth=0.95 if len(self.labels) < 6 else 0.0)

    with Classifier.open(path, ["red", "green", "blue"]) as model, Scripted(9) as source:
        switch = Switch()
        loop = FrameLoop(source, [model], [switch])
        loop.run()
    assert switch.labels == ["red"] + ["green"] * 5 + ["red", "green", "blue"]


def test_the_default_threshold_changes_what_people_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    source, collected = Scripted(3), Collected()
    with source, Classifier.open(path, ["red", "green", "blue"]) as classifier:
        assert FrameLoop(source, [classifier], [collected], controls=Controls(shown_from=0.9999)).run() == "eof"
    for result in collected.results:
        assert len(result.top) == 3 and result.shown == () and result.unsure
        assert [entry["label"] for entry in as_record(result)["top"]] == [one.label for one in result.top]
        assert UNRECOGNIZED in status_text(Statistics(), result, dropped=0)


def test_a_threshold_that_somebody_sets_decides_for_people_too() -> None:
    for threshold in (0.0, 0.5):
        output = Output(threshold=threshold)
        assert output.shown_from(taught=False) == output.shown_from(taught=True) == output.least_score == threshold
    assert Output().shown_from(taught=False) > 0 == Output().shown_from(taught=True) == Output().least_score
    controls = Controls(shown_from=0.35)
    controls.change(threshold=0.0)
    assert controls.shown_from == controls.threshold == 0
