"""What the loop decides is in its results, the same for every output."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame, Granted
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.pipeline.decision import Decider, Event
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.runtime.classifier import SIMULATE, Classifier
from tests.pipeline.test_frame_loop import Collected, Scripted
from tests.processes import until
from tests.stubs import BLUE, GREEN, RED, solid

Run = Callable[..., "tuple[int, str, str]"]


class Told(Collected):
    def __init__(self) -> None:
        super().__init__()
        self.announced: list[Event] = []

    def announce(self, events: Sequence[Event]) -> None:
        self.announced += events


@pytest.fixture
def model(stub: Path) -> Iterator[Classifier]:
    with Classifier.open(stub, ["red", "green", "blue"]) as opened:
        yield opened


def pictures(source: Scripted, colours: str) -> Scripted:
    source._pictures = [solid({"r": RED, "g": GREEN, "b": BLUE}[one]) for one in colours]
    return source


def test_events_and_what_is_present_come_with_the_results(model: Classifier) -> None:
    source, told = pictures(Scripted(3), "rgb"), Told()
    decider = Decider(model.labels, results=1)
    with source:
        FrameLoop(source, [model], [told], decider=decider).run()
    assert [[(event.kind, event.label) for event in result.events] for result in told.results] == [
        [("appeared", "red")],
        [("gone", "red"), ("appeared", "green")],
        [("gone", "green"), ("appeared", "blue")],
    ]
    assert [result.present for result in told.results] == [("red",), ("green",), ("blue",)]
    assert [(event.kind, event.label) for event in told.announced] == [("gone", "blue")]


def test_what_was_present_is_gone_when_no_frame_comes(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mnv2.pipeline.frame_loop._FORGET_S", 0.2)
    source, told = pictures(Scripted(10**9, fps=0.001), "r"), Told()
    with source:
        loop = FrameLoop(source, [model], [told], decider=Decider(model.labels, results=1))
        thread = threading.Thread(target=loop.run)
        thread.start()
        until(lambda: told.announced)
        loop.stop()
        thread.join(60)
    assert [event.kind for event in told.announced] == ["gone"]


def test_what_came_before_the_loop_is_no_stall_of_it(model: Classifier) -> None:
    live = Live()
    live.began -= 60
    live.attach(FrameLoop(Scripted(1, fps=4.0), [model]), Facts())
    assert live.state == "starting"


class Clock:
    """Time that passes as the test says, whatever else the machine does."""

    time = staticmethod(time.time)

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns()

    def monotonic_ns(self) -> int:
        return self.now_ns

    def monotonic(self) -> float:
        return self.now_ns / 1e9


@pytest.mark.parametrize(("granted", "seen"), [(Granted(fps=4.0), (2,)), (None, (2, 3))])
def test_a_source_may_be_slow_without_losing_what_is_present(
    model: Classifier, monkeypatch: pytest.MonkeyPatch, granted: Optional[Granted], seen: tuple[int, ...]
) -> None:
    """A camera that is asked for a picture now and then, or a stream that sends one now and then."""
    clock, told, live, states = Clock(), Told(), Live(), []
    for module in ("pipeline.frame_loop", "pipeline.statistics", "outputs.live"):
        monkeypatch.setattr(f"edge_mnv2.{module}.time", clock)
    monkeypatch.setattr("edge_mnv2.pipeline.frame_loop._FORGET_S", 0.02)
    monkeypatch.setattr("edge_mnv2.pipeline.frame_loop._POLL_S", 0.002)
    monkeypatch.setattr("edge_mnv2.outputs.live.STALLED_S", 0.02)

    class Slow(Scripted):
        """Its next frame comes a quarter of a second after the last one has become a result; the loop looks often."""

        def read(self) -> Optional[Frame]:
            until(lambda: len(told.results) == self._next)
            for _ in range(5 if 0 < self._next < 6 else 0):
                clock.now_ns += 50_000_000
                looked = len(looks)
                until(lambda looked=looked: len(looks) > looked + 1)
                states.append((len(told.results), live.state))
            return super().read()

    looks, idle = list[int](), FrameLoop._idle
    monkeypatch.setattr(FrameLoop, "_idle", lambda loop: (idle(loop), looks.append(1)))
    source = pictures(Slow(6, fps=1e6), "rrrrrr")
    source.granted = granted
    with source:
        loop = FrameLoop(source, [model], [told], decider=Decider(model.labels, results=3))
        live.attach(loop, Facts())
        loop.add_sink(live)
        assert loop.run() == "eof"
    events = [event.kind if event else None for result in told.results for event in (result.events or (None,))]
    assert events.index("appeared") in seen and len(events) == 6 and events.count(None) == 5
    assert {state for results, state in states if 1 < results < 6} == {"ok"}


def test_allow_and_deny_hold_for_the_top_too(model: Classifier) -> None:
    for more, labels in (
        ({"deny": ["red"]}, {"green", "blue"}),
        ({"allow": ["blue"]}, {"blue"}),
        ({"deny": ["red", "green", "blue"]}, set()),
    ):
        told = Told()
        with Scripted(3) as source:
            FrameLoop(source, [model], [told], decider=Decider(model.labels, results=1, **more)).run()
        assert {one.label for result in told.results for one in result.top} == labels
        assert {event.label for result in told.results for event in result.events} <= labels


def clip(path: Path, colours: Sequence[Any]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for colour in colours:
        writer.write(np.full((48, 64, 3), colour[::-1], np.uint8))
    writer.release()
    return path


def test_events_in_the_log_of_a_run(run: Run, stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not all within a millisecond, which is what times are told to.
    monkeypatch.setenv(SIMULATE, "2")
    flicker = [RED] * 6 + [BLUE] + [RED] * 6 + [GREEN] * 6
    source, log = clip(tmp_path / "clip.avi", flicker), tmp_path / "log.jsonl"
    code, _, _ = run("run", "--model", stub, "--source", source, "--every-frame", "--log", log, "--deny", "green")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert code == 0 and len(lines) == 19
    events = [(line["frame"], event) for line in lines for event in line.get("events", [])]
    assert [(frame, event["event"], event["label"]) for frame, event in events] == [
        (2, "appeared", "red"),
        (15, "gone", "red"),
    ]
    assert events[0][1]["end"] is None and events[1][1]["end"] > events[1][1]["start"]
    assert events[1][1]["best"] > 0.9
    assert all("events" not in line for line in lines if line["frame"] not in (2, 15))
    assert all(one["label"] != "green" for line in lines for one in line["top"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--appear", "0"], "--appear"),
        (["--appear", "0.3", "--gone", "0.4"], "0.4"),
        (["--gone", "nan"], "--gone"),
        (["--consecutive", "0"], "--consecutive"),
        (["--consecutive", "2.5"], "--consecutive"),
        (["--allow", "unicorn"], "unicorn"),
        (["--deny", "red,unicorn"], "unicorn"),
        (["--deny", ","], "--deny"),
    ],
    ids=" ".join,
)
def test_bad_decisions_are_one_line(run: Run, stub: Path, options: list[str], named: str) -> None:
    code, out, err = run("run", "--model", stub, "--source", "test", "--max-frames", 1, *options)
    assert code == 2 and out == "" and named in err and len(err.splitlines()) == 1


def test_a_profile_decides(run: Run, stub: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "extends: base\noutput: {appear: 0.9, gone: 0.1, consecutive: 1, allow: [Red, blue], deny: blue}\n"
    )
    source, log = clip(tmp_path / "clip.avi", [GREEN, RED, GREEN]), tmp_path / "log.jsonl"
    code, _, err = run("run", "--model", stub, "--source", source, "--every-frame", "--log", log, "--device", profile)
    assert code == 0, err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [[one["event"] for one in line.get("events", [])] for line in lines] == [[], ["appeared"], ["gone"]]
    code, out, _ = run("devices", "show", profile, "--resolved")
    assert code == 0 and '["Red", "blue"]' in out
