from __future__ import annotations

import gc
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame, Source
from edge_mnv2.camera.handover import Handover
from edge_mnv2.camera.live import NoFrames, ReaderThread, ThreadedSource, call_within
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import Geometry, Roi
from edge_mnv2.camera.watchdog import FROZEN_FRAMES, PROOF_FRAMES, Watchdog, fingerprint
from edge_mnv2.errors import SourceError, SourceLost, UsageError
from tests.processes import until


class Script(Source):
    """A live source that follows a list: each opening has its own; a number is a picture's grey, an error is raised."""

    live = True
    backoff = (0.01, 0.02)

    def __init__(self, *openings: object) -> None:
        super().__init__("script")
        self._openings = list(openings)
        self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1
        chapter = self._openings.pop(0) if self._openings else SourceError("gone for good")
        if isinstance(chapter, Exception):
            raise chapter
        self._frames = list(chapter)  # type: ignore[call-overload]
        self._count = 0

    def read(self) -> Optional[Frame]:
        if not self._frames:
            return None
        item = self._frames.pop(0)
        if isinstance(item, Exception):
            raise item
        if item is None:
            time.sleep(0.05)
            return self.read()
        self._count += 1
        pixels = np.full((64, 64, 3), item % 256, np.uint8)
        return self._frame(pixels, "rgb", time.monotonic_ns(), self._count - 1)

    def close(self) -> None:
        self.closed += 1


class Sizes:
    """A device whose pictures have one of `sizes` (height, width) after the other, ten of each at least and until one
    was `seen`, and then the last."""

    def __init__(self, *sizes: tuple[int, int]) -> None:
        self._left = [size for size in sizes for _ in range(10)]
        self.seen: set[tuple[int, ...]] = set()

    def read(self) -> Any:
        time.sleep(0.01)
        size = self._left[0]
        if len(self._left) > 1 and (self._left[1] == size or size in self.seen):
            del self._left[0]
        return np.random.default_rng().integers(0, 256, (*size, 3), np.uint8), time.monotonic_ns()

    def release(self) -> None: ...

    def interrupt(self) -> None: ...


class Changing(ThreadedSource):
    backoff = (0.01, 0.02)

    def __init__(self, *sizes: tuple[int, int]) -> None:
        super().__init__("changing", Geometry(roi=Roi(30, 10, 20, 20)), 60.0)
        self._device = Sizes(*sizes)

    def open(self) -> None:
        self.close()
        self._start("changing", lambda: self._device, 60.0)

    def _frame(self, pixels: np.ndarray, *arguments: Any, **more: Any) -> Frame:
        self._device.seen.add(pixels.shape[:2])
        return super()._frame(pixels, *arguments, **more)


def test_a_region_that_a_camera_loses_for_a_while_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with Watchdog(Changing((60, 80), (20, 20), (60, 80))) as source:
        for _ in range(30):
            frame = source.take()
            assert frame is not None and frame.pixels.shape == (60, 80, 3) and frame.roi == (30, 10, 20, 20)
        assert source.reconnects == 1
    assert "region 30,10,20,20 lies outside the 20x20 picture: no results until it returns" in caplog.text
    with pytest.raises(UsageError, match="lies outside"), Watchdog(Changing((20, 20))) as source:
        source.take()


LOST = SourceLost("script was lost")


def drained(source: Watchdog) -> list[Frame]:
    frames = []
    while (frame := source.read()) is not None:
        frames.append(frame)
    return frames


def test_a_lost_source_is_opened_again_and_numbers_go_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    script = Script([1, 2, 3, LOST], SourceError("not there"), [4, 5, 6, 7, LOST], [8, 9, 10, 11])
    with Watchdog(script, frozen_s=0) as source:
        frames = drained(source)
        assert source.reconnects == 2 and source.state == "ok"
    proof = PROOF_FRAMES
    assert [frame.pixels[0, 0, 0] for frame in frames] == [1, 2, 3, *range(4 + proof, 8), *range(8 + proof, 12)]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert caplog.text.count("no results until") == 2 and caplog.text.count("is back") == 2


def test_warmup_frames_are_thrown_away_after_each_opening() -> None:
    script = Script(range(10, 20), [LOST])
    with Watchdog(script, frozen_s=0, warmup_frames=4) as source:
        frame = source.read()
        assert frame is not None and frame.pixels[0, 0, 0] == 14


def test_the_first_opening_is_final() -> None:
    with pytest.raises(SourceError, match="not there"):
        Watchdog(Script(SourceError("not there"))).open()


def test_it_gives_up_in_the_end() -> None:
    source = Watchdog(Script([1, LOST]), give_up_s=0.3)
    source.open()
    assert source.read() is not None
    with pytest.raises(SourceError, match=r"did not come back within 0\.3 s") as caught:
        source.read()
    assert caught.value.exit_code == 4


def test_giving_up_breaks_off_a_long_opening() -> None:
    class Silent(Script):
        def __init__(self) -> None:
            super().__init__([1, LOST])
            self.ended = threading.Event()

        def open(self) -> None:
            if self.opened:
                self.ended.clear()
                assert self.ended.wait(60)
                raise SourceError("closed while it was being opened")
            super().open()

        def close(self) -> None:
            super().close()
            self.ended.set()

    source = Watchdog(Silent(), give_up_s=0.5)
    source.open()
    assert source.read() is not None
    with pytest.raises(SourceError, match="did not come back"):
        source.read()


@pytest.mark.slow
def test_a_picture_that_stands_still_is_lost_until_it_changes() -> None:
    still = [*range(100, 105), *[7] * 40]
    script = Script(iter_slowly(still), iter_slowly([7] * 40), [7, 7, 7, 8, 9, 10])
    source = Watchdog(script, frozen_s=0.3)
    states = []
    with source:
        for _ in range(200):
            frame = source.read()
            if frame is None:
                break
            states.append(int(frame.pixels[0, 0, 0]))
        assert source.reconnects == 1
    assert states[:5] == [100, 101, 102, 103, 104] and states[-3:] == [8, 9, 10]
    assert 1 < states.count(7) < 40 and script.opened == 3


def iter_slowly(pictures: list[int]) -> list[object]:
    """The pictures, with a pause of 0.05 s before each."""
    return [item for picture in pictures for item in (None, picture)]


def test_a_slow_camera_that_gives_one_picture_a_few_times_is_not_frozen(caplog: pytest.LogCaptureFixture) -> None:
    """Each picture comes later than `frozen_s` after the one before."""
    few, many = iter_slowly([1, *[7] * FROZEN_FRAMES, 8]), iter_slowly([9] * (FROZEN_FRAMES + 2))
    with Watchdog(Script([*few, *many], [5, 6, 7, 8, 9]), frozen_s=0.01) as source:
        assert [frame.pixels[0, 0, 0] for frame in drained(source)][: FROZEN_FRAMES + 2] == [1, *[7] * FROZEN_FRAMES, 8]
        assert source.reconnects == 1
    lost = [record.message for record in caplog.records if "same picture" in record.message]
    assert len(lost) == 1 and lost[0].endswith(" s (setting camera.frozen_s): no results until it returns")


def test_frozen_is_never_said_where_it_is_turned_off() -> None:
    with Watchdog(Script([7] * 50), frozen_s=0) as source:
        assert len(drained(source)) == 50


def test_status_while_it_is_away() -> None:
    script = Script([1, LOST], *[NoFrames("opens but gives nothing")] * 10_000)
    source = Watchdog(script, backoff=(0.02, 0.02))
    source.open()
    assert source.read() is not None
    reader = threading.Thread(target=source.read)
    reader.start()
    until(lambda: script.opened > 2)
    assert source.state == "stalled"
    script._openings[:] = [SourceError("not there")] * 10_000
    until(lambda: source.state == "reconnecting")
    source.close()
    reader.join(60)
    assert not reader.is_alive()


def test_close_during_a_long_pause_or_opening() -> None:
    class Slow(Script):
        def __init__(self) -> None:
            super().__init__([1, LOST])
            self.ended = threading.Event()

        def open(self) -> None:
            if self.opened:
                # What blocks in a library ends when the source is closed, not before.
                assert self.ended.wait(30)
                raise SourceError("closed")
            super().open()

        def close(self) -> None:
            super().close()
            if self.opened:
                self.ended.set()

    for source in (Watchdog(Script([1, LOST]), backoff=(60, 60)), Watchdog(Slow(), backoff=(0.01, 0.01))):
        source.open()
        assert source.read() is not None
        if isinstance(source.source, Slow):
            source.source.ended.clear()
        results: list[Optional[Frame]] = []
        reader = threading.Thread(target=lambda one=source, into=results: into.append(one.read()))
        reader.start()
        time.sleep(0.3)
        began = time.monotonic()
        source.close()
        reader.join(60)
        assert not reader.is_alive() and results == [None] and time.monotonic() - began < 5


def test_the_fingerprint_sees_a_small_change_anywhere_on_the_grid() -> None:
    for height, width in ((480, 640), (64, 64), (16, 2000), (1080, 1920)):
        picture = np.zeros((height, width, 3), np.uint8)
        before = fingerprint(picture)
        assert len(before) <= 3 * 97 * 97
        picture[height // 2 :, width // 2 :] = 1
        assert fingerprint(picture) != before


@pytest.mark.parametrize("frames", [20_000])
def test_soak_with_forced_losses_keeps_everything_flat(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """EDGE_MNV2_SOAK_FRAMES=200000 makes it as long as one likes; a loss every thousand."""
    frames = _SOAK_FRAMES or frames
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_LOSS_EVERY", "1000")
    with open_source("test:320x240@100000") as source:
        count, memory, before = 0, 0, (0, 0)
        while count < frames:
            frame = source.read()
            assert frame is not None and frame.index == count
            count += 1
            if count == frames // 4:
                gc.collect()
                memory, before = _memory_kb(), (threading.active_count(), _descriptors())
        assert source.reconnects >= frames // 1000 - 1
        # Threads and files of other tests may have ended meanwhile.
        assert threading.active_count() <= before[0] and _descriptors() <= before[1]
        assert _memory_kb() - memory < 5_000


_SOAK_FRAMES = int(os.environ.get("EDGE_MNV2_SOAK_FRAMES", "0"))


def _memory_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# The pieces below: the slot and the pump


def test_the_slot_holds_the_newest_only() -> None:
    slot: Handover[int] = Handover()
    assert slot.put(1) and slot.put(2)
    assert slot.take(1) == 2 and slot.dropped == 1
    assert slot.take(0.01) is None and not slot.ended
    slot.put(3)
    slot.finish(SourceLost("no more"))
    assert slot.take(1) == 3
    with pytest.raises(SourceLost):
        slot.take(1)
    slot.close()
    assert slot.take(1) is None and not slot.put(4)


class Stuck:
    """A reader whose calls block until the test lets them go."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.released = threading.Event()
        self.free = threading.Event()

    def read(self) -> Optional[int]:
        if self.after == 0:
            self.free.wait()
            return None
        self.after -= 1
        return self.after

    def release(self) -> None:
        self.released.set()

    def interrupt(self) -> None:
        """Nothing helps."""


def test_a_reader_that_is_stuck_is_left_behind_and_released_later() -> None:
    reader = Stuck(after=1)
    pump: ReaderThread[int] = ReaderThread("stuck", lambda: reader)
    pump.start(5)
    assert pump.take(1) is not None
    with pytest.raises(SourceLost, match="no frame"):
        pump.take(0.1)
    assert pump.stop(0.1) is False and not reader.released.is_set()
    assert pump.take(1) is None
    reader.free.set()
    assert reader.released.wait(60)


@pytest.mark.slow
def test_opening_has_a_time_limit_and_says_what_it_waited_for() -> None:
    never, reader = threading.Event(), Stuck(after=0)

    def connect() -> Stuck:
        never.wait(20)
        raise SourceError("late")

    with pytest.raises(SourceError, match="does not answer"):
        ReaderThread("silent", connect).start(0.2)
    never.set()
    pump: ReaderThread[int] = ReaderThread("empty", lambda: reader)
    reader.interrupt = reader.free.set  # type: ignore[method-assign]
    with pytest.raises(NoFrames, match="gives no frames"):
        pump.start(0.2)


def test_errors_of_a_library_become_one_line_without_secrets() -> None:
    def connect() -> Stuck:
        raise RuntimeError("cannot open rtsp://admin:hunter2@cam/x")

    with pytest.raises(SourceError) as caught:
        ReaderThread("cam", connect).start(5)
    assert "hunter2" not in str(caught.value) and "RuntimeError" in str(caught.value)


def test_a_late_result_is_released() -> None:
    late: list[int] = []
    go = threading.Event()

    def slow() -> int:
        go.wait(20)
        return 5

    with pytest.raises(SourceError, match="opening"):
        call_within(0.1, "opening", slow, late.append)
    go.set()
    until(lambda: late)
    assert late == [5]
    assert call_within(60, "quick", lambda: 6, late.append) == 6 and late == [5]
