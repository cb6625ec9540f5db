"""The hand-off between the capture thread and the classifying one."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame
from edge_mnv2.errors import SourceLost
from edge_mnv2.pipeline.handoff import Handoff


def frame(index: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), "rgb", time.monotonic_ns(), index)


def taken(handoff: Handoff) -> int:
    got = handoff.take(0)
    assert got is not None
    return got.index


def test_only_the_newest_frame_is_kept_and_the_rest_is_counted() -> None:
    handoff = Handoff(lossless=False)
    for index in range(5):
        handoff.put(frame(index))
    assert taken(handoff) == 4
    assert handoff.dropped == 4
    assert handoff.take(0.01) is None


def test_a_lossless_writer_waits_for_its_reader() -> None:
    handoff = Handoff(lossless=True, depth=2)
    written = []

    def write() -> None:
        for index in range(20):
            handoff.put(frame(index))
            written.append(index)
        handoff.finish()

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.05)
    assert len(written) <= 2
    seen = []
    while not handoff.ended:
        got = handoff.take(1.0)
        if got is not None:
            seen.append(got.index)
    writer.join(1)
    assert seen == list(range(20)) and handoff.dropped == 0


def test_an_error_comes_after_the_last_frame() -> None:
    handoff = Handoff(lossless=True)
    handoff.put(frame(0))
    handoff.finish(SourceLost("gone"))
    assert taken(handoff) == 0
    with pytest.raises(SourceLost):
        handoff.take(0)


@pytest.mark.parametrize("lossless", [True, False])
def test_discarding_frees_a_waiting_writer_and_counts_what_was_left(lossless: bool) -> None:
    handoff = Handoff(lossless=lossless)
    answers: list[bool] = []

    def write() -> None:
        for index in range(4):
            answers.append(handoff.put(frame(index)))

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.05)
    handoff.discard()
    writer.join(1)
    assert not writer.is_alive()
    assert handoff.ended
    assert handoff.put(frame(9)) is False
    assert handoff.dropped >= 2
