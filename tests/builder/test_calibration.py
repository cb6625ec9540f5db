"""Calibration crops: which parts of which pictures, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mnv2.builder.calibration import linear, read_crops, resized
from edge_mnv2.errors import UsageError


@pytest.mark.parametrize("shape", [(480, 640), (100, 37), (64, 64), (1, 5), (3, 1), (96, 96)])
def test_numpy_resizes_as_opencv_does(shape: tuple[int, int]) -> None:
    coarse = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    wanted = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(linear(coarse, 64).astype(int) - wanted).max() <= 1


def test_without_opencv(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = read_crops(photos, 64)
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert resized(np.zeros((5, 5, 3), np.uint8), 3).shape == (3, 3, 3)
    found = read_crops(photos, 64)
    assert (len(found.images), found.whole, found.pictures) == (len(usual.images), usual.whole, usual.pictures)
    assert max(np.abs(mine.astype(int) - theirs).max() for mine, theirs in zip(found.images, usual.images)) <= 1


def test_few_pictures_are_cropped_often_and_many_once(photos: Path, tmp_path: Path) -> None:
    few = read_crops(photos, 32)
    assert (few.pictures, len(few.images), sum(few.whole)) == (6, 36, 6)
    many = read_crops(photos, 32, crops=4)
    assert (many.pictures, len(many.images), all(many.whole)) == (4, 4, True)


def test_unreadable_pictures_do_not_count(photos: Path) -> None:
    for number in (0, 1, 2):
        (photos / f"{number}.png").write_bytes(b"no picture")
    assert read_crops(photos, 32).pictures == 3
    (photos / "3.png").write_bytes(b"")
    with pytest.raises(UsageError, match="2 readable pictures"):
        read_crops(photos, 32)
