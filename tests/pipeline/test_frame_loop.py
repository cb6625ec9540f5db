"""The loop over a real model and sources whose timing is known."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame, Granted
from edge_mnv2.errors import ModelError, SourceLost
from edge_mnv2.pipeline.capture import Capture
from edge_mnv2.pipeline.controls import Controls
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result
from edge_mnv2.pipeline.statistics import Statistics
from edge_mnv2.pipeline.workers import Workers
from edge_mnv2.runtime.classifier import Classified, Classifier
from tests.pipeline.conftest import Collected
from tests.stubs import BLUE, GREEN, RED, colour_model, solid


class Scripted:
    """A source of `count` solid frames, red green blue in turn. `fps` makes it a camera, else it has no clock."""

    description = "scripted"
    granted: Optional[Granted] = None
    paced = False

    def __init__(self, count: int, fps: Optional[float] = None, lost_at: Optional[int] = None) -> None:
        self.live = fps is not None
        self._count, self._fps, self._lost_at = count, fps, lost_at
        self._pictures = [solid(colour) for colour in (RED, GREEN, BLUE)]
        self.opened = 0
        self.closed = threading.Event()
        self._next = 0

    def open(self) -> None:
        self.opened += 1
        self._next = 0
        self._began = time.monotonic()

    def read(self) -> Optional[Frame]:
        index = self._next
        if index == self._lost_at:
            raise SourceLost("pulled out")
        if index >= self._count:
            return None
        self._next += 1
        if self._fps:
            self.closed.wait(max(0.0, self._began + index / self._fps - time.monotonic()))
        return Frame(self._pictures[index % 3], "rgb", time.monotonic_ns(), index)

    def close(self) -> None:
        self.closed.set()

    def __enter__(self) -> Scripted:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def run(source: Scripted, engines: list[Any], **options: Any) -> tuple[str, FrameLoop, list[Result]]:
    collected = Collected()
    with source:
        loop = FrameLoop(source, engines, [collected], **options)
        ended = loop.run()
    return ended, loop, collected.results


def test_a_source_without_a_clock_loses_nothing(model: Classifier) -> None:
    ended, loop, results = run(Scripted(50), [model])
    assert ended == "eof" and loop.dropped == 0
    assert [result.frame.index for result in results] == list(range(50))
    assert [result.top[0].label for result in results[:4]] == ["red", "green", "blue", "red"]


@pytest.mark.parametrize("inline", [False, True])
def test_several_workers_keep_the_order(tmp_path: Path, inline: bool) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())

    class Uneven:
        """A real classifier that answers some frames late."""

        def __init__(self) -> None:
            self._inner = Classifier.open(path, ["red", "green", "blue"])
            self.top = self._inner.top

        def classify(self, pixels: np.ndarray, order: str = "rgb") -> Any:
            if pixels[0, 0, 0] == 255:
                time.sleep(0.01)
            return self._inner.classify(pixels, order)

    source, threads = Scripted(60), set()
    read = source.read
    source.read = lambda: (threads.add(threading.current_thread().name), read())[1]  # type: ignore[method-assign]
    ended, loop, results = run(source, [Uneven(), Uneven(), Uneven()], inline=inline)
    assert all(name.startswith("worker" if inline else "capture") for name in threads)
    assert ended == "eof" and loop.dropped == 0
    assert [result.frame.index for result in results] == list(range(60))
    assert [result.top[0].label for result in results] == ["red", "green", "blue"] * 20


@pytest.mark.slow
def test_a_live_source_hands_over_the_newest_and_counts_the_rest(
    model: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    model._simulated_ns = 80_000_000
    source, classify, read = Scripted(10**9, fps=200), model.classify, list[int]()

    def noting(*arguments: Any) -> Any:
        read.append(source._next)
        if len(read) == 12:
            source._count = source._next
        return classify(*arguments)

    monkeypatch.setattr(model, "classify", noting)
    ended, loop, results = run(source, [model])
    assert ended == "eof"
    assert len(results) + loop.dropped == source._next
    assert loop.dropped > 20
    # By what had been read when its turn came, however long the machine stops meanwhile: that one, or one on its way.
    behind = sorted(newest - 1 - result.frame.index for newest, result in zip(read, results))
    assert len(read) == len(results) and behind[-2] <= 2, behind
    age = loop.statistics.frame_age.quantile(0.5)
    assert age is not None and age < 40e6
    indices = [result.frame.index for result in results]
    assert indices == sorted(indices) and results[-1].dropped <= loop.dropped


def test_max_frames_counts_results(model: Classifier) -> None:
    ended, _, results = run(Scripted(50), [model], max_frames=7)
    assert ended == "max_frames" and len(results) == 7


def test_duration_ends_a_source_that_never_does(model: Classifier) -> None:
    began = time.monotonic()
    ended, _, _ = run(Scripted(10**9, fps=50), [model], duration_s=0.3)
    assert ended == "duration" and 0.2 < time.monotonic() - began < 5


def test_stop_from_another_thread(model: Classifier) -> None:
    source = Scripted(10**9, fps=20)
    collected = Collected()
    with source:
        loop = FrameLoop(source, [model], [collected])
        threading.Timer(0.2, loop.stop).start()
        assert loop.run() == "signal"
    assert source.closed.is_set()


def test_a_lost_source_keeps_what_was_found(model: Classifier) -> None:
    ended, loop, results = run(Scripted(50, lost_at=10), [model])
    assert ended == "source_lost" and isinstance(loop.lost, SourceLost)
    assert len(results) == 10


def test_repeat_begins_again_and_goes_on_counting(model: Classifier) -> None:
    source = Scripted(5)
    ended, _, results = run(source, [model], repeat=True, max_frames=12)
    assert ended == "max_frames" and source.opened >= 3
    assert [result.frame.index for result in results] == list(range(12))


@pytest.mark.parametrize(("positions", "least_s"), [([0], 0.04), ([0, 60], 0.12)])
def test_the_last_frame_of_a_clip_that_repeats_keeps_its_time(positions: list[int], least_s: float) -> None:
    class Clip(Scripted):
        paced = True

        def read(self) -> Optional[Frame]:
            frame = super().read()
            return frame and replace(frame, position_ns=positions[frame.index] * 1_000_000)

    capture = Capture(Clip(len(positions)), lossless=True, repeat=True, inline=True)  # type: ignore[arg-type]
    frames = [capture.take(10) for _ in range(4 * len(positions) + 1)]
    times = [frame.captured_at for frame in frames if frame is not None]
    assert times[-1] - times[0] > 0.95 * 4 * least_s * 1e9


def test_repeating_nothing_is_an_error_and_no_spin(model: Classifier) -> None:
    ended, loop, _ = run(Scripted(0), [model], repeat=True)
    assert ended == "source_lost" and "no frames" in str(loop.lost)


def test_threshold_leaves_out_and_smoothing_remembers(model: Classifier) -> None:
    _, _, results = run(Scripted(3), [model], threshold=0.5)
    assert [len(result.top) for result in results] == [1, 1, 1]
    _, _, smoothed = run(Scripted(2), [model], smooth=0.9)
    assert smoothed[1].top[0].label == "red"


def test_times_add_up(model: Classifier) -> None:
    _, loop, results = run(Scripted(30), [model])
    measured = loop.statistics.measured()
    assert measured["frames"] == 30 and measured["fps"] > 0
    for result in results:
        assert result.latency_ns >= result.inference_ns > 0
    assert measured["latency_ms"]["p99"] >= measured["latency_ms"]["p50"]
    assert set(measured["stages_ms"]) == {"capture", "preprocess", "inference", "postprocess"}


def test_many_runs_leave_no_thread_behind(model: Classifier) -> None:
    before = threading.active_count()
    for _ in range(20):
        run(Scripted(3), [model])
    assert threading.active_count() <= before + 1


@pytest.mark.slow
def test_a_highest_rate_is_held_and_the_rest_dropped(model: Classifier) -> None:
    ended, loop, results = run(Scripted(100, fps=100), [model], max_fps=lambda: 10.0)
    assert ended == "eof" and len(results) + loop.dropped == 100
    assert len(results) <= 14


@pytest.mark.parametrize("paused", [False, True])
def test_files_are_read_in_the_classifying_thread_where_there_is_one_cpu(model: Classifier, paused: bool) -> None:
    source, collected = Scripted(9), Collected()
    threads = set()
    read = source.read
    source.read = lambda: (threads.add(threading.current_thread().name), read())[1]  # type: ignore[method-assign]
    source.open()
    loop = FrameLoop(source, [model], [collected], every_frame=True, inline=True)
    if paused:
        loop.controls.paused = True
        threading.Timer(0.3, lambda: setattr(loop.controls, "paused", False)).start()
    assert loop.run() == "eof"
    assert [result.frame.index for result in collected.results] == list(range(9)) and loop.dropped == 0
    assert threads == {threading.current_thread().name} and source.closed.is_set()


def test_a_camera_keeps_its_thread_on_one_cpu(model: Classifier) -> None:
    source, collected = Scripted(6, fps=100, lost_at=4), Collected()
    source.open()
    loop = FrameLoop(source, [model], [collected], every_frame=True, inline=True)
    assert loop.run() == "source_lost" and loop.lost is not None
    assert len(collected.results) == 4


def test_a_file_that_is_lost_inline(model: Classifier) -> None:
    source = Scripted(6, lost_at=2)
    source.open()
    loop = FrameLoop(source, [model], every_frame=True, inline=True)
    assert loop.run() == "source_lost" and loop.lost is not None and loop.statistics.frames == 2


def test_workers_with_an_error_have_not_ended(model: Classifier) -> None:
    """Whoever asks between the error and what comes after it does not take one for an end of the file."""
    source = Scripted(9, lost_at=0)
    source.open()
    capture = Capture(source, lossless=True, inline=True)
    with Workers([model, model], capture, Controls(0.0), 0.01, None) as workers:
        for thread in workers._threads:
            thread.join(30)
        assert capture.ended and not workers.ended
        with pytest.raises(SourceLost):
            workers.next_in_order(30)


def test_a_file_that_several_workers_lose_is_lost_and_has_not_ended(model: Classifier) -> None:
    class Still:
        """Takes no time, so that the workers take turns at the end of the file."""

        def __init__(self) -> None:
            self.top = model.top
            self._answer = model.classify(solid(RED))

        def classify(self, pixels: np.ndarray, order: str = "rgb") -> Any:
            return self._answer

    workers = [Still() for _ in range(4)]
    for _ in range(50):
        source = Scripted(9, lost_at=5)
        source.open()
        loop = FrameLoop(source, workers, every_frame=True, inline=True)
        assert loop.run() == "source_lost" and loop.lost is not None
        assert loop.statistics.frames + loop.dropped == 5


class Blind(Collected):
    wants_pixels = False


def read_in_bursts(source: Scripted, models: list[Classifier], sinks: list[Any], **options: Any) -> FrameLoop:
    with source:
        loop = FrameLoop(source, models, sinks, every_frame=True, bursts=True, **options)
        loop.run()
    return loop


@pytest.fixture
def in_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is."""
    monkeypatch.setattr("edge_mnv2.pipeline.workers._FAST_NS", 10**12)


@pytest.fixture(params=[1, 3])
def models(request: pytest.FixtureRequest, model: Classifier) -> Iterator[list[Classifier]]:
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(Classifier.open(model.path, model.labels)) for _ in range(request.param - 1)]
        yield [model, *others]


@pytest.mark.usefixtures("in_bursts")
@pytest.mark.parametrize("inline", [False, True])
def test_bursts_give_the_same_answers_in_the_same_order(models: list[Classifier], inline: bool) -> None:
    blind = Blind()
    loop = read_in_bursts(Scripted(40), models, [blind], inline=inline)
    assert loop.dropped == 0 and loop.statistics.frames == 40
    answers = [
        [(one.frame.index, one.top, one.ranked, one.seen, one.gated, one.engine) for one in results]
        for results in (blind.results, run(Scripted(40), models[:1])[2])
    ]
    assert answers[0] == answers[1]
    for stage in ("preprocess", "inference", "postprocess", "latency", "frame_age"):
        assert getattr(loop.statistics, stage).count == 40


@pytest.mark.usefixtures("in_bursts")
@pytest.mark.parametrize("most", range(1, 30, 4))
def test_no_frame_is_taken_that_nobody_wants(models: list[Classifier], most: int) -> None:
    source, blind = Scripted(40), Blind()
    loop = read_in_bursts(source, models, [blind], inline=True, max_frames=most)
    assert (len(blind.results), source._next, loop.dropped) == (most, most, 0)


@pytest.mark.usefixtures("in_bursts")
@pytest.mark.parametrize("last", range(1, 8))
def test_a_stop_within_a_burst_counts_what_was_read(models: list[Classifier], last: int) -> None:
    class Stopping(Blind):
        def write(self, result: Result) -> None:
            super().write(result)
            if len(self.results) == last:
                loop.stop()

    source, stopping = Scripted(30), Stopping()
    with source:
        loop = FrameLoop(source, models, [stopping], every_frame=True, inline=True, bursts=True)
        assert loop.run() == "signal"
    assert len(stopping.results) == last and last + loop.dropped == source._next


@pytest.mark.usefixtures("in_bursts")
@pytest.mark.parametrize("lost_at", range(8))
def test_what_was_read_before_a_source_was_lost_is_reported(models: list[Classifier], lost_at: int) -> None:
    blind = Blind()
    loop = read_in_bursts(Scripted(30, lost_at=lost_at), models, [blind], inline=True)
    assert loop.lost is not None and (len(blind.results), loop.dropped) == (lost_at, 0)


@pytest.mark.usefixtures("in_bursts")
def test_results_before_an_inference_that_fails_are_reported(model: Classifier, monkeypatch: Any) -> None:
    invoke, left = model.interpreter.invoke, list(range(7))

    def fail() -> None:
        if not left:
            raise ModelError("no more")
        left.pop()
        invoke()

    monkeypatch.setattr(model.interpreter, "invoke", fail)
    blind = Blind()
    with pytest.raises(ModelError, match="no more"):
        read_in_bursts(Scripted(30), [model], [blind], inline=True)
    assert [result.frame.index for result in blind.results] == list(range(7))


def test_frames_that_another_worker_has_come_before_the_error(model: Classifier, monkeypatch: Any) -> None:
    """Frame 7 fails while another worker still has frame 6."""
    failed = threading.Event()

    class Ending(Scripted):
        def read(self) -> Optional[Frame]:
            frame = super().read()
            shade = {6: 0, 7: 255}.get(frame.index) if frame else None
            return frame if frame is None or shade is None else replace(frame, pixels=solid((shade,) * 3))

    with contextlib.ExitStack() as stack:
        workers = [model, stack.enter_context(Classifier.open(model.path, model.labels))]
        for one in workers:

            def fail(values: np.ndarray, position: int = 0, do: Any = one.interpreter.set_input) -> None:
                if values.min() == 255:
                    failed.set()
                    raise ModelError("no more")
                assert values.max() or failed.wait(20)
                do(values, position)

            monkeypatch.setattr(one.interpreter, "set_input", fail)
        seen = Collected()
        with Ending(30) as source, pytest.raises(ModelError, match="no more"):
            FrameLoop(source, workers, [seen], every_frame=True, inline=True).run()
    assert [result.frame.index for result in seen.results] == list(range(7))


@pytest.mark.usefixtures("in_bursts")
@pytest.mark.parametrize("pictures", [False, True])
def test_pixels_stay_where_somebody_looks_at_them(models: list[Classifier], pictures: bool) -> None:
    looking = Collected()
    read_in_bursts(Scripted(30), models, [Blind(), looking] if pictures else [looking], inline=True)
    assert all(result.frame.pixels.size for result in looking.results) and len(looking.results) == 30
    assert [result.top[0].label for result in looking.results] == ["red", "green", "blue"] * 10
    blind = Blind()
    read_in_bursts(Scripted(30), models, [blind], inline=True)
    assert not any(result.frame.pixels.size for result in blind.results) and len(blind.results) == 30


@pytest.mark.parametrize("workers", [1, 2])
def test_a_slow_model_takes_one_frame_after_the_other(tmp_path: Path, monkeypatch: Any, workers: int) -> None:
    """Nobody waits for more than the inference in work: not who stops it, nor who reads its log."""
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", "30")
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    places = []
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Classifier.open(path, ["red", "green", "blue"])) for _ in range(workers)]
        for one in slow:
            monkeypatch.setattr(
                one,
                "prepare",
                lambda pixels, order, place=0, do=one.prepare: places.append(place) or do(pixels, order, place),
            )
        loop = read_in_bursts(Scripted(6 * workers), slow, [Blind()], inline=True)
    assert places == [0] * loop.statistics.frames == [0] * 6 * workers


def test_results_seconds_apart_are_a_rate_and_a_source_that_stops_has_none() -> None:
    """A slow network, or a camera that gives one picture now and then: 0 and 1 FPS in turns said neither."""
    second = 1_000_000_000
    classified = Classified(np.zeros(3, np.float32), 1, 3 * second, 1, 0, "cpu")
    slow, fast = Statistics(), Statistics()
    for number in range(1, 4):
        slow.add((number - 1) * 3 * second + 1, classified, number * 3 * second)
        rates = [slow.recent_fps(number * 3 * second + int(late * second)) for late in (0, 0.5, 1.5, 2.9, 6)]
        assert rates == pytest.approx([1 / 3] * 4 + [1 / 6], abs=0.01)
    for number in range(30):
        for statistics in (slow, fast):
            statistics.add(9 * second + number, classified, 9 * second + (number + 1) * second // 30)
    assert [slow.recent_fps(10 * second), fast.recent_fps(10 * second)] == [30.0, pytest.approx(30.0, abs=0.1)]
    assert [statistics.recent_fps(12 * second) for statistics in (slow, fast)] == [0.0, 0.0]
