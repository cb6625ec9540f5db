"""Buffers are used again, and never under somebody who still looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.opencv import FrameBuffers


def test_a_buffer_is_used_again_when_nobody_refers_to_it() -> None:
    buffers = FrameBuffers()
    assert buffers.take() is None
    buffers.learn(np.zeros((4, 6, 3), np.uint8))
    first = buffers.take()
    assert first is not None and first.shape == (4, 6, 3)
    second = buffers.take()
    assert second is not None and second is not first
    place = first.ctypes.data
    view = first[1:3, ::2]
    del first
    third = buffers.take()
    assert third is not None and third.ctypes.data != place
    del view
    fourth = buffers.take()
    assert fourth is not None and fourth.ctypes.data == place


def test_many_that_are_kept_get_memory_of_their_own() -> None:
    buffers = FrameBuffers()
    buffers.learn(np.zeros((2, 2, 3), np.uint8))
    kept = [buffers.take() for _ in range(50)]
    assert len({one.ctypes.data for one in kept if one is not None}) == 50


def test_another_shape_begins_anew() -> None:
    buffers = FrameBuffers()
    buffers.learn(np.zeros((2, 2, 3), np.uint8))
    old = buffers.take()
    buffers.learn(np.zeros((3, 2, 3), np.uint8))
    new = buffers.take()
    assert old is not None and new is not None and new.shape == (3, 2, 3)


def test_frames_of_a_clip_that_are_kept_stay_what_they_were(data: Path) -> None:
    clip = str(data / "video" / "bigbuckbunny.mp4")
    with open_source(clip) as source:
        kept, sums = [], []
        for number in range(40):
            frame = source.read()
            assert frame is not None
            if number % 3 == 0:
                kept.append(frame)
                sums.append(int(frame.pixels.sum()))
    assert [int(frame.pixels.sum()) for frame in kept] == sums and len(set(sums)) > 5


def test_a_clip_needs_one_buffer_where_nobody_keeps_its_frames(data: Path) -> None:
    with open_source(str(data / "video" / "bigbuckbunny.mp4")) as source:
        places = set()
        for _ in range(20):
            frame = source.read()
            assert frame is not None
            places.add(frame.pixels.ctypes.data)
            del frame
    assert len(places) == 1
