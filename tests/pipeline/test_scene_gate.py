"""The scene gate: what it spares, and that nothing which matters is missed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame
from edge_mnv2.pipeline.decision import Decider
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result
from edge_mnv2.pipeline.stages import SceneGate
from edge_mnv2.runtime.classifier import Classifier
from tests.pipeline.conftest import Collected
from tests.stubs import BLUE, GREEN, RED, colour_model, solid

SECOND = 1_000_000_000


def frame(pixels: np.ndarray, at_s: float = 0.0, roi: Optional[tuple[int, int, int, int]] = None) -> Frame:
    return Frame(pixels, "rgb", int(at_s * SECOND), 0, roi=roi)


def scene(seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """A structured 640x360 picture with sensor noise of `noise` levels."""
    rows, columns = np.mgrid[0:360, 0:640]
    base = np.stack([rows / 2, columns / 4, (rows + columns) / 6], -1) + 30
    return np.clip(base + np.random.default_rng(seed).normal(0, noise, base.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0, 2, 4])
def test_sensor_noise_is_no_movement(noise: float) -> None:
    gate = SceneGate()
    assert not gate.still(frame(scene(0, noise)))
    assert all(gate.still(frame(scene(seed, noise), 0.01 * seed)) for seed in range(1, 20))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: cv2.rectangle(p, (300, 150), (360, 210), (255, 255, 255), -1), id="a thing appears"),
        pytest.param(lambda p: np.roll(p, 40, 1), id="the camera pans"),
        pytest.param(lambda p: (p * 0.8).astype(np.uint8), id="the light goes down"),
        pytest.param(lambda p: p[..., ::-1].copy(), id="another colour of the same brightness"),
    ],
)
def test_a_change_is_movement(change: Any) -> None:
    gate = SceneGate()
    gate.still(frame(scene()))
    assert not gate.still(frame(change(scene()), 0.01))


def test_a_slow_change_adds_up() -> None:
    gate = SceneGate(change=4, refresh_s=1000)
    inferences = sum(not gate.still(frame(scene() + np.uint8(step // 2), step)) for step in range(40))
    assert 4 <= inferences <= 8


@pytest.mark.slow
def test_scores_are_used_again_for_so_long_only() -> None:
    gate = SceneGate(refresh_s=2.0)
    inferred = [at for at in np.arange(0, 10, 0.1) if not gate.still(frame(scene(), at))]
    assert np.diff(inferred) == pytest.approx(2.0, abs=0.11)


def test_a_clip_counts_its_own_time_and_beginning_again_is_a_new_scene() -> None:
    gate = SceneGate(refresh_s=1.0)

    def at(position_s: float) -> Frame:
        return Frame(scene(), "rgb", 0, 0, position_ns=int(position_s * SECOND))

    inferred = [position for position in (0, 0.5, 1.1, 1.5, 0.0, 0.4) if not gate.still(at(position))]
    assert inferred == [0, 1.1, 0.0]


def test_what_the_model_does_not_see_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "stub.tflite").write_bytes(colour_model())
    beside = scene()
    beside[:, :60] = 255
    with Classifier.open(tmp_path / "stub.tflite") as model:
        gate = SceneGate(seen=model.seen)
        assert not gate.still(frame(scene()))
        assert gate.still(frame(beside))
    cropped = SceneGate()
    assert not cropped.still(frame(scene(), roi=(100, 100, 200, 200)))
    assert cropped.still(frame(beside, roi=(100, 100, 200, 200)))


def test_any_picture_size_and_a_new_one_are_taken() -> None:
    gate = SceneGate()
    for height, width in ((1, 1), (3, 1000), (1080, 1920), (48, 64)):
        assert gate.still(frame(np.zeros((height, width, 3), np.uint8))) in (True, False)


class Film:
    """Colours as (picture, number of frames) at `fps` frames a second of clip time."""

    live, paced, description, granted = False, True, "film", None
    state, reconnects, errors = "ok", 0, ()

    def __init__(self, *shots: tuple[np.ndarray, int], fps: float = 30) -> None:
        self._pictures = [picture for picture, count in shots for _ in range(count)]
        self._fps, self._next = fps, 0

    def open(self) -> None: ...

    def read(self) -> Optional[Frame]:
        if self._next == len(self._pictures):
            return None
        index, self._next = self._next, self._next + 1
        return Frame(self._pictures[index], "rgb", time.monotonic_ns(), index, position_ns=int(index / self._fps * 1e9))

    def close(self) -> None: ...


def shown(
    film: Film, models: list[Classifier], gate: Optional[SceneGate], bursts: bool = False
) -> tuple[FrameLoop, list[Result]]:
    collected = Collected()
    decider = Decider(models[0].labels)
    loop = FrameLoop(film, models, [collected], every_frame=True, decider=decider, gate=gate, bursts=bursts)
    assert loop.run() == "eof"
    return loop, collected.results


@pytest.mark.parametrize(("workers", "bursts"), [(1, False), (1, True), (2, False)])
def test_every_event_comes_with_the_frame_that_it_would_come_with(
    workers: int, bursts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_mnv2.pipeline.workers._FAST_NS", 10**12)
    shots = [(solid(RED), 40), (solid(GREEN), 1), (solid(GREEN), 5), (solid(BLUE), 50), (solid(RED), 2)]
    path = tmp_path / "stub.tflite"
    path.write_bytes(colour_model())
    models = [Classifier.open(path, ["red", "green", "blue"]) for _ in range(workers)]
    try:
        _, plain = shown(Film(*shots), models, None)
        loop, gated = shown(Film(*shots), models, SceneGate(), bursts)
    finally:
        for each in models:
            each.close()
    assert [result.frame.index for result in gated] == [result.frame.index for result in plain]
    assert [result.top for result in gated] == [result.top for result in plain]

    def events(results: list[Result]) -> list[Any]:
        return [(event.kind, event.label, event.frame) for result in results for event in result.events]

    assert events(gated) == events(plain) and len(events(plain)) >= 4
    statistics = loop.statistics
    assert statistics.frames == 98
    # 40, 6, 50 and 2 frames of four scenes, a refresh a second at 30 frames a second.
    assert statistics.gated == 98 - (2 + 1 + 2 + 1)
    assert statistics.inference.count == statistics.frames - statistics.gated
    assert sum(result.gated for result in gated) == statistics.gated


def test_run_counts_what_it_spared(run: Any, tmp_path: Path) -> None:
    """A folder of one picture many times, through the command line."""
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene())
    log = tmp_path / "out.jsonl"
    code, out, err = run("run", "--source", tmp_path, "--gate", "--json", "--log", log, "--delegate", "none")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["frames"] == 12 and summary["gated"] == 11
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line.get("gated", False) for line in lines] == [False] + [True] * 11
    assert [line["inference_ms"] is None for line in lines] == [False] + [True] * 11
    assert len({json.dumps(line["top"]) for line in lines}) == 1


def test_the_profile_sets_the_gate(run: Any, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        cv2.imwrite(str(pictures / f"{number}.png"), scene() + np.uint8(6 * number))
    profile = tmp_path / "still.yaml"
    profile.write_text("extends: base\noutput: {gate: true, gate_change: 10, gate_refresh_s: 60}\n")
    code, out, err = run("run", "--source", pictures, "--device", profile, "--json", "--delegate", "none")
    assert code == 0, err
    assert json.loads(out)["gated"] == 2
    profile.write_text("extends: base\noutput: {gate: true, gate_refresh_s: 0}\n")
    code, out, err = run("run", "--source", pictures, "--device", profile)
    assert code == 6 and "gate_refresh_s" in err
