"""The hand-over between the thread that reads and the one that classifies."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame
from edge_mnv2.camera.handover import Handover
from edge_mnv2.errors import SourceLost


def frame(index: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), "rgb", time.monotonic_ns(), index)


def taken(handover: Handover[Frame]) -> int:
    got = handover.take(0)
    assert got is not None
    return got.index


def test_only_the_newest_frame_is_kept_and_the_rest_is_counted() -> None:
    handover: Handover[Frame] = Handover()
    for index in range(5):
        handover.put(frame(index))
    assert taken(handover) == 4
    assert handover.dropped == 4
    assert handover.take(0.01) is None


def test_a_lossless_writer_waits_for_its_reader() -> None:
    handover: Handover[Frame] = Handover(2)
    written = []

    def write() -> None:
        for index in range(20):
            handover.put(frame(index))
            written.append(index)
        handover.finish()

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.05)
    assert len(written) <= 2
    seen = []
    while not handover.ended:
        got = handover.take(1.0)
        if got is not None:
            seen.append(got.index)
    writer.join(60)
    assert seen == list(range(20)) and handover.dropped == 0


def test_an_error_comes_after_the_last_frame() -> None:
    handover: Handover[Frame] = Handover(4)
    handover.put(frame(0))
    handover.finish(SourceLost("gone"))
    assert taken(handover) == 0
    with pytest.raises(SourceLost):
        handover.take(0)


@pytest.mark.parametrize("depth", [4, 0])
def test_discarding_frees_a_waiting_writer_and_counts_what_was_left(depth: int) -> None:
    handover: Handover[Frame] = Handover(depth)
    answers: list[bool] = []

    def write() -> None:
        for index in range(4):
            answers.append(handover.put(frame(index)))

    writer = threading.Thread(target=write)
    writer.start()
    deadline = time.monotonic() + 60
    while len(answers) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    handover.close()
    writer.join(60)
    assert not writer.is_alive()
    assert handover.ended
    assert handover.put(frame(9)) is False
    assert handover.dropped >= 2
