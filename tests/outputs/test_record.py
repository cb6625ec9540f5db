"""Recordings that play to their last second, whatever ended them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.record import RecordSink
from edge_mnv2.outputs.sink import Isolated
from tests.outputs.results import result
from tests.outputs.test_rotation import small_disk

Run = Callable[..., "tuple[int, str, str]"]


def played(path: Path) -> list[float]:
    """The times, in seconds, of every frame that a player shows."""
    capture = cv2.VideoCapture(str(path))
    times = []
    while True:
        shown, picture = capture.read()
        if not shown:
            break
        assert picture is not None and picture.size
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    return times


def frames_in(path: Path) -> int:
    """Frames in the file, whether or not a player can show them."""
    with av.open(str(path)) as video:
        return sum(packet.size > 0 for packet in video.demux(video=0))


def frame_at(seconds: float, index: int = 0, size: tuple[int, int] = (240, 320)) -> Any:
    """A result whose picture is its own, captured so many seconds after the start."""
    pixels = np.full((*size, 3), (index * 37) % 256, np.uint8)
    pixels[:, : index * 7 % size[1]] = 255
    return result(index, frame=Frame(pixels, "bgr", int(seconds * 1e9) + 10**12, index))


def test_frames_are_shown_when_they_were_captured(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = RecordSink(str(path))
    wanted = [0.0, 0.04, 0.5, 0.54, 3.0, 3.04, 3.08]
    for index, seconds in enumerate(wanted):
        sink.write(frame_at(seconds, index))
    sink.close()
    with av.open(str(path)) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert times == pytest.approx(wanted, abs=0.002)


def test_no_more_than_thirty_a_second(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = RecordSink(str(path))
    for index in range(200):
        sink.write(frame_at(index / 100, index))
    sink.close()
    assert 45 < len(played(path)) < 66


def test_the_picture_is_annotated_and_the_colours_are_right(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = RecordSink(str(path))
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[:] = (200, 30, 30)
    for index in range(3):
        sink.write(result(index, frame=Frame(pixels, "rgb", index * 10**8, index)))
    sink.close()
    capture = cv2.VideoCapture(str(path))
    _, shown = capture.read()
    blue, green, red = shown[120, 160]
    assert red > 150 and green < 80 and blue < 80
    assert shown[215:].std() > 15, "the class is written at the bottom"


def test_an_earlier_recording_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    for _ in range(3):
        sink = RecordSink(str(path))
        sink.write(frame_at(0))
        sink.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out-2.mp4", "out-3.mp4", "out.mp4"]
    assert all(len(played(one)) == 1 for one in tmp_path.iterdir())


def test_a_camera_that_comes_back_with_another_size(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = RecordSink(str(path))
    for index, size in enumerate([(241, 321), (241, 321), (120, 160), (1440, 2560), (241, 321)]):
        sink.write(frame_at(index / 10, index, size))
    sink.close()
    capture = cv2.VideoCapture(str(path))
    assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (320, 240)
    assert len(played(path)) == 5


def test_nothing_recorded_leaves_no_file(tmp_path: Path) -> None:
    RecordSink(str(tmp_path / "out.mp4")).close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.avi", "out", "missing/out.mp4"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--record"):
        RecordSink(str(tmp_path / name))


def test_every_frame_of_a_clip_is_in_the_video(run: Run, stub: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 20, (320, 240))
    for index in range(100):
        writer.write(np.full((240, 320, 3), index * 2, np.uint8))
    writer.release()
    out = tmp_path / "out.mp4"
    code, summary, _ = run("run", "--model", stub, "--source", clip, "--every-frame", "--record", out, "--json")
    assert code == 0 and json.loads(summary)["write_errors"] == 0
    times = played(out)
    assert len(times) == 100 and times[-1] == pytest.approx(99 / 20, abs=0.06)


def test_a_clip_that_is_repeated_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = RecordSink(str(path), every_frame=True)
    for index in range(60):
        one = frame_at(0, index)
        sink.write(replace(one, frame=replace(one.frame, position_ns=(index % 30) * 50_000_000)))
    sink.close()
    times = played(path)
    assert len(times) == 60 and times == sorted(times) and times[-1] == pytest.approx(2.95, abs=0.1)


@pytest.mark.slow
def test_a_full_disk_ends_a_fragment_not_the_video(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0)
    with small_disk(tmp_path / "card", "2m") as card:
        sink = Isolated(RecordSink(str(card / "out.mp4")), lossless=True)
        for index in range(300):
            pixels = noise.integers(0, 255, (240, 320, 3), np.uint8)
            sink.write(result(index, frame=Frame(pixels, "bgr", index * 40_000_000, index)))
        time.sleep(0.5)
        assert sink.errors > 0 and "cannot be written" in caplog.text
        assert (card / "out.mp4").stat().st_size > 1_000_000
        sink.close()
        times = played(card / "out.mp4")
        assert len(times) > 20 and times == sorted(times)
        # What the disk had no room for is not in the video.
        assert sink.counts["recorded"] == frames_in(card / "out.mp4") < 300 and sum(sink.counts.values()) == 300


def test_a_recording_that_is_deleted_is_said_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "out.mp4"
    path.parent.mkdir()
    sink = RecordSink(str(path))
    for index in range(60):
        sink.write(frame_at(index / 20, index))
    path.unlink()
    failures = 0
    for index in range(60, 240):
        try:
            sink.write(frame_at(index / 20, index))
        except OSError as error:
            failures += 1
            assert "moved or deleted" in str(error)
    assert failures == 1 and len(played(path)) > 60
    # With its folder every write fails until that is back.
    path.unlink()
    path.parent.rmdir()
    failures = 0
    for index in range(240, 300):
        try:
            sink.write(frame_at(index / 20, index))
        except OSError:
            failures += 1
    assert failures > 1
    path.parent.mkdir()
    for index in range(300, 400):
        sink.write(frame_at(index / 20, index))
    sink.close()
    assert len(played(path)) > 30
    # Those of deleted ones are nowhere; behind the hole it plays again at once.
    assert sink.counts["recorded"] == frames_in(path) < len(played(path)) + 5


@pytest.mark.slow
def test_what_is_left_out_is_counted(run: Run, stub: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    code, out, _ = run(
        *["run", "--model", stub, "--source", "test:320x240@60", "--max-frames", 90, "--record", path, "--json"]
    )
    summary = json.loads(out)
    assert code == 0 and summary["recorded"] == len(played(path)) and summary["skipped"] > 0
    assert summary["recorded"] + summary["skipped"] == summary["frames"]
    code, out, _ = run("run", "--model", stub, "--source", "test", "--max-frames", 2, "--json")
    assert (json.loads(out)["recorded"], json.loads(out)["skipped"]) == (None, None), "unknown is null"


@pytest.mark.slow
def test_no_video_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board so busy that the first frame is never done."""
    go = threading.Event()
    monkeypatch.setattr("edge_mnv2.outputs.record.annotated", lambda *_: go.wait(60))
    sink = Isolated(RecordSink(str(tmp_path / "out.mp4")))
    for index in range(50):
        sink.write(frame_at(index / 10, index))
        time.sleep(0.01)
    sink.close()
    assert sink.errors > 0 and sink.counts == {"recorded": 0, "skipped": 50}
    assert not list(tmp_path.iterdir())
    # What it says then is not to be heard in another test.
    go.set()
    sink._thread.join(20)
    assert not sink._thread.is_alive()


def test_frames_and_no_video_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = RecordSink(str(tmp_path / "out.mp4"))
    sink.close()

    def full() -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(sink._floor, "check", full)
    assert sink.wants(frame_at(0))
    with pytest.raises(OSError, match="full"):
        sink.write(frame_at(0))
    with pytest.raises(OSError, match="no video"):
        sink.close()


def test_the_encoder_is_tried_before_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mnv2.outputs.record._CODECS", (("no-such-encoder", {}),))
    with pytest.raises(UsageError, match=r"neither H\.264 nor MPEG-4"):
        RecordSink(str(tmp_path / "out.mp4"))
