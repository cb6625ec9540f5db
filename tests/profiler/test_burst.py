from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mnv2.errors import SourceError
from edge_mnv2.profiler.burst import (
    PATTERN_SIZE,
    STAGES,
    Burst,
    choose_feed,
    loop_burst,
    model_burst,
    pattern_feed,
    percentiles,
)
from edge_mnv2.runtime.opening import open_classifier
from edge_mnv2.settings.schema import Camera


def test_percentiles_are_those_of_numpy() -> None:
    times = np.random.default_rng(1).integers(1, 10**7, 1001)
    for count in (1, 2, 3, 100, 1001):
        own = percentiles([int(value) for value in times[:count]])
        for name, fraction in (("p50", 50), ("p95", 95), ("p99", 99)):
            assert own[name] == pytest.approx(np.percentile(times[:count], fraction) / 1e6, abs=6e-5)
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_a_burst_keeps_every_frame_of_every_stage(stub: Path) -> None:
    classifiers = [open_classifier(str(stub))[0] for _ in range(2)]
    for count in (1, 2):
        burst = loop_burst(classifiers[:count], pattern_feed((64, 48)), 0.1)
        assert burst.frames >= 3 * count
        assert all(len(getattr(burst, name)) == burst.frames for name in STAGES if name != "capture")
        assert len(burst.capture) >= burst.frames and len(burst.rates) == len(burst.spans) == 1
        parts = zip(burst.preprocess, burst.inference, burst.postprocess)
        assert all(sum(stages) <= whole for stages, whole in zip(parts, burst.end_to_end))
        assert burst.cpu_s > 0
        # The rate leaves out the start: it cannot be far from the frames over the whole time.
        began, ended = burst.spans[0]
        assert burst.rates[0] >= 0.9 * burst.frames / ((ended - began) / 1e9)
    both = Burst()
    both.add(burst)
    both.add(burst)
    assert both.frames == 2 * burst.frames and both.cpu_ms_per_frame == pytest.approx(burst.cpu_ms_per_frame)


@pytest.mark.parametrize(("cpus", "readers"), [(2, "worker"), (4, "capture")])
def test_as_many_workers_as_cpus_read_the_frames_themselves(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int, readers: str
) -> None:
    """As `run` does with a file, or a sweep would choose by other figures than those of `run`."""
    monkeypatch.setattr("edge_mnv2.board.cpus.usable_cpus", lambda: cpus)
    clip = str(tmp_path / "clip.avi")
    writer = cv2.VideoWriter(clip, cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for _ in range(9):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    feed, threads = choose_feed(clip, Camera()), set()
    read = feed.source.read
    monkeypatch.setattr(feed.source, "read", lambda: (threads.add(threading.current_thread().name), read())[1])
    loop_burst([open_classifier(str(stub))[0] for _ in range(2)], feed, 0.05)
    assert threads and all(name.startswith(readers) for name in threads)


def test_a_burst_has_some_frames_however_short_it_is(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = open_classifier(str(stub))[0]
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", "20")
    slow = open_classifier(str(stub))[0]
    assert loop_burst([slow], pattern_feed((64, 48)), 0.001).frames >= 3
    times = model_burst(classifier.interpreter, 0.001)
    assert len(times) == 3 and min(times) >= 20e6


def test_a_source_that_is_not_there(stub: Path, tmp_path: Path) -> None:
    classifier = open_classifier(str(stub))[0]
    with pytest.raises(SourceError, match="gone"):
        loop_burst([classifier], choose_feed(str(tmp_path / "gone.mp4"), Camera()), 0.1)


def test_which_sources_wait_and_which_come_in_every_size(tmp_path: Path) -> None:
    plain = choose_feed(None, Camera(width=320, height=240))
    assert (plain.size, plain.waits, plain.sizable) == ((320, 240), False, True)
    assert plain.description == "test pattern 320x240, without pause"
    assert choose_feed(None, Camera()).size == PATTERN_SIZE
    assert choose_feed("test:80x60", Camera()).size == (80, 60)
    like_a_camera = choose_feed("test:80x60@30", Camera())
    assert like_a_camera.waits and not like_a_camera.sizable
