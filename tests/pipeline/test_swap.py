"""Another model takes over between two frames."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from edge_mnv2.app.run_model import RunModel
from edge_mnv2.board import cpus
from edge_mnv2.camera.frame import Frame
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.pipeline.controls import Controls, Pending
from edge_mnv2.pipeline.decision import Decider, Event
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result
from edge_mnv2.pipeline.stages import SceneGate
from edge_mnv2.pipeline.workers import Workers
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import Classifiers, open_classifiers
from edge_mnv2.settings.profile import resolve
from tests.pipeline.conftest import Collected
from tests.pipeline.test_frame_loop import Scripted
from tests.processes import until
from tests.runtime.test_probability import onnx_file, softmax
from tests.stubs import colour_model

NAMES = (["red", "green", "blue"], ["rouge", "vert", "bleu"])


class Announced(Collected):
    """Also keeps what was announced between results."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def announce(self, events: list[Event]) -> None:
        self.events += events


class Patient(Scripted):
    """A camera whose next frame comes when the last one has become a result: a busy machine drops none.

    It goes on until `ending` is set.
    """

    def __init__(self, sink: Announced) -> None:
        super().__init__(10**9, fps=200)
        self._sink = sink
        self.ending = threading.Event()

    def read(self) -> Optional[Frame]:
        while len(self._sink.results) < self._next and not self.ending.is_set():
            time.sleep(0.0005)
        return None if self.ending.is_set() else super().read()


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_swaps_lose_no_frame_and_mix_no_names(tmp_path: Path, workers: int, gated: bool) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())

    def classifiers(turn: int) -> list[Classifier]:
        return [Classifier.open(path, NAMES[turn % 2]) for _ in range(workers)]

    def gate() -> SceneGate:
        return SceneGate(refresh_s=60)

    sink = Announced()
    source = Patient(sink)
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
            assert swapped.wait(60)
            for one in former:
                one.close()
        seen = len(sink.results)
        while len(sink.results) == seen:
            time.sleep(0.002)
        source.ending.set()
        thread.join(20)
        assert not thread.is_alive()
    # Whatever else the machine does: no swap drops a frame, and each has one result.
    assert loop.dropped == 0
    assert [result.frame.index for result in sink.results] == list(range(len(sink.results)))
    turns = [int(result.top[0].label in NAMES[1]) for result in sink.results]
    assert sum(a != b for a, b in zip(turns, turns[1:])) == 20
    for result, turn in zip(sink.results, turns):
        assert {one.label for one in result.top} <= set(NAMES[turn])
        assert set(result.present) <= set(NAMES[turn])
    assert any(event.kind == "gone" for event in sink.events)
    for one in current:
        one.close()


@pytest.mark.parametrize("gated", [False, True])
def test_swaps_between_bursts_lose_no_frame_and_mix_no_names(
    tmp_path: Path, gated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mnv2.pipeline.workers._FAST_NS", 10**12)
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    models = [Classifier.open(path, NAMES[turn % 2]) for turn in range(6)]
    turns = iter(range(1, 6))

    class Swapping(Announced):
        def write(self, result: Result) -> None:
            super().write(result)
            if len(self.results) % 7 == 0 and (turn := next(turns, None)) is not None:
                decider = Decider(NAMES[turn % 2], on=0.3, off=0.2, results=1)
                gate = SceneGate(refresh_s=60) if gated else None
                # The former one is closed as soon as that is allowed.
                loop.swap([models[turn]], decider, gate, models[turn - 1].close)

    sink, source = Swapping(), Scripted(60)
    with source:
        loop = FrameLoop(
            source, models[:1], [sink], every_frame=True, decider=Decider(NAMES[0], on=0.3, results=1), bursts=True
        )
        assert loop.run() == "eof"
    models[5].close()
    assert loop.dropped == 0 and [result.frame.index for result in sink.results] == list(range(60))
    turned = [int(result.top[0].label in NAMES[1]) for result in sink.results]
    assert sum(a != b for a, b in zip(turned, turned[1:])) == 5
    for result, turn in zip(sink.results, turned):
        assert {one.label for one in result.top} | set(result.present) <= set(NAMES[turn])


def test_a_swap_does_not_wait_for_a_frame(tmp_path: Path) -> None:
    """Of several workers one is nearly always waiting for it."""
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    waiting, go = threading.Event(), threading.Event()

    def take(_timeout: float, _paused: bool) -> None:
        waiting.set()
        go.wait(20)

    capture: Any = SimpleNamespace(take=take, ended=False, give_back=lambda _number: None)
    with Classifier.open(path, NAMES[0]) as one, Classifier.open(path, NAMES[1]) as other:
        with Workers([one, one], capture, Controls(), 0.1) as workers:
            assert waiting.wait(10)
            swap = threading.Thread(target=workers.swap, args=([other, other], None))
            swap.start()
            swap.join(10)
            swapped = not swap.is_alive()
            go.set()
        assert swapped and workers.classifiers == [other, other]


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
        assert swapped.wait(60)
        loop.stop()
        thread.join(60)
    for one in (*old, *new):
        one.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_swap_that_was_given_up_never_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """A model that takes longer for one picture than whoever waits: what was refused and closed is not used later."""
    monkeypatch.setattr("edge_mnv2.app.run_model._SWITCH_S", 0.1)
    classify, inferring, go = Classifier.classify, threading.Semaphore(0), threading.Event()
    withdraw = Pending.withdraw

    def too_long(self: Pending[Any], swap: Any) -> bool:
        # Several workers are asked every tenth of a second whether another model waits, and finish what they are at.
        until(lambda: workers == 1 or self._begun or self._ended)
        taken_back = withdraw(self, swap)
        go.set()
        return taken_back

    def slowly(self: Classifier, *arguments: Any) -> Any:
        inferring.release()
        go.wait(60)
        return classify(self, *arguments)

    monkeypatch.setattr(Pending, "withdraw", too_long)
    monkeypatch.setattr(Classifier, "classify", slowly)
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    settings = resolve(
        "generic", {"runtime.model": (str(path), "command line"), "runtime.workers": (workers, "command line")}
    )
    with RunModel(settings, "cpu", 0) as model, Scripted(10**9, fps=100) as source:
        sink = Collected()
        loop = FrameLoop(source, model.classifiers.classifiers, [sink])
        thread = threading.Thread(target=loop.run)
        thread.start()
        other = model.open_other(str(path))
        # In the middle of a picture for each worker, however long the machine takes for anything else.
        assert all(inferring.acquire(timeout=60) for _ in range(workers))
        try:
            model.switch(other, loop, lambda: None)
        except UsageError as error:
            assert "no other one can take over" in str(error) and workers == 1
            other.__exit__()
        assert go.is_set()
        seen = len(sink.results)
        until(lambda: len(sink.results) > seen + 3 or not thread.is_alive())
        assert thread.is_alive()
        assert model.swaps == (0 if workers == 1 else 1)
        loop.stop()
        thread.join(60)
        assert not thread.is_alive()
        # After its end nothing can take over, whatever was tried.
        with pytest.raises(UsageError, match="the run has ended"):
            model.switch(model.open_other(str(path)), loop, lambda: None)


def test_several_who_switch_at_once_leave_one_model_open(tmp_path: Path) -> None:
    """A page, a message and the contest of runtimes: each from a thread of its own."""
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    settings = resolve("generic", {"runtime.model": (str(path), "command line")})
    with RunModel(settings, "cpu", 0) as model, Scripted(10**9, fps=200) as source:
        loop = FrameLoop(source, model.classifiers.classifiers)
        live = Live()
        live.attach(loop, Facts(), engines=model)
        running = threading.Thread(target=loop.run)
        running.start()
        opened, failed = [model.classifiers], []

        def switch() -> None:
            for _ in range(6):
                other = model.open_other(str(path))
                other.classifiers[0].interpreter.losses = 1
                opened.append(other)
                try:
                    model.switch(other, loop, lambda: None)
                except Exception as error:
                    failed.append(error)

        threads = [threading.Thread(target=switch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert running.is_alive() and failed == [] and model.swaps == 18
        assert [one for one in opened if one.classifiers[0].interpreter._native is not None] == [model.classifiers]
        # Those of former models count too.
        assert live.tpu_losses == model.tpu_losses == 18
        loop.stop()
        running.join(10)
    assert not running.is_alive()


def test_a_swap_that_comes_while_no_frame_does_reaches_every_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    old, new = ([Classifier.open(path, names) for _ in range(2)] for names in NAMES)
    source, sink, asked, swapped = Scripted(10**9, fps=100), Collected(), [], threading.Event()
    next_in_order = Workers.next_in_order

    def waiting(self: Workers, timeout: float) -> object:
        done = next_in_order(self, timeout)
        if done is None and not asked:
            asked.append(loop.swap(new, None, None, swapped.set))
        return done

    monkeypatch.setattr(Workers, "next_in_order", waiting)
    with source:
        loop = FrameLoop(source, old, [sink])
        loop.controls.change(paused=True)
        thread = threading.Thread(target=loop.run)
        thread.start()
        assert swapped.wait(60)
        for one in old:
            one.close()
        loop.controls.change(paused=False)
        until(lambda: len(sink.results) >= 10 or not thread.is_alive())
        loop.stop()
        thread.join(60)
    assert len(sink.results) >= 10 and {result.top[0].label for result in sink.results} <= set(NAMES[1])
    for one in new:
        one.close()


def test_the_winner_of_the_contest_takes_over_from_the_model_that_was_asked_for_alone(tmp_path: Path) -> None:
    """What is present stays present then; a model that took over meanwhile stays."""
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    settings = resolve("generic", {"runtime.model": (str(path), "command line")})
    with RunModel(settings, "cpu", 0) as model, Scripted(10**9, fps=200) as source:
        told: list[str] = []
        decider = model.decider()
        loop = FrameLoop(source, model.classifiers.classifiers, decider=decider)
        running = threading.Thread(target=loop.run)
        running.start()
        first = model.classifiers
        model.take_winner(loop, lambda: told.append("winner"))
        assert told == ["winner"] and model.classifiers is not first and model.swaps == 0 and loop.decider is decider
        other = model.open_other(str(path))
        model.switch(other, loop, lambda: told.append("other"))
        with pytest.raises(UsageError, match="another model has taken over"):
            model.take_winner(loop, lambda: told.append("again"))
        assert told == ["winner", "other"] and model.classifiers is other and loop.decider is not decider
        loop.stop()
        running.join(10)
    assert not running.is_alive()


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_the_workers_of_a_file_have_one_thread_each_whatever_kind_of_model_takes_over(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
    monkeypatch.setattr(cpus, "usable_cpus", lambda root="/": 3)
    monkeypatch.setattr(cpus.MemoryReader, "read", lambda self: cpus.Memory(total=4000, available=3000))
    path, other = tmp_path / "stub.tflite", tmp_path / f"other.{suffix}"
    path.write_bytes(colour_model())
    other.write_bytes(colour_model() if suffix == "tflite" else onnx_file(softmax))
    settings = resolve("generic", {"runtime.model": (str(path), "command line")})
    with RunModel(settings, "cpu", 0, shared=True) as model, model.open_other(str(other)) as opened:
        assert [one.interpreter.threads for one in model.classifiers.classifiers] == [1, 1, 1]
        assert [one.interpreter.threads for one in opened.classifiers] == [1, 1, 1]


def test_a_model_for_fewer_accelerators_than_workers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a board with one Edge TPU; the page and MQTT say it, and the run goes on."""
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    said = {"runtime.model": (str(path), "command line"), "runtime.workers": (2, "command line")}
    settings = resolve("generic", said)

    def on_one(*arguments: Any, **options: Any) -> Classifiers:
        return open_classifiers(*arguments, **{**options, "workers": 1})

    with RunModel(settings, "cpu", 0) as model:
        monkeypatch.setattr("edge_mnv2.app.run_model.open_classifiers", on_one)
        with pytest.raises(UsageError, match="accelerators for 1 of this run's 2 workers"):
            model.open_other(str(path))
