"""Calibration and comparison pictures: crops of what the user gives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.errors import SourceError, UsageError

log = logging.getLogger(__name__)

CROPS = 50
"""About so many crops settle the mean of the ranges; more change nothing that can be measured."""

_LEAST = 3
_CORNER = 0.7


@dataclass(frozen=True)
class Crops:
    """`images` are RGB uint8 of the model's size; `whole` marks those that are a picture's usual centre crop."""

    images: Sequence[np.ndarray]
    whole: Sequence[bool]
    pictures: int


def read_crops(folder: Path, size: int, crops: int = CROPS) -> Crops:
    """Crops of the pictures in `folder`: the usual centre crop of each, and where they are few, more parts of each.

    Raises UsageError where the folder has fewer than three readable pictures.
    """
    try:
        files = list_stills(folder)
    except SourceError as error:
        raise UsageError(f"--calibration {folder}: {error.message}") from error
    pictures = []
    if len(files) > crops:
        # Evenly over the whole folder, which may be sorted by class.
        files = [files[round(place * (len(files) - 1) / (crops - 1))] for place in range(crops)]
    for file in files:
        try:
            pictures.append(read_still(file))
        except SourceError as error:
            log.warning("%s", error)
    if len(pictures) < _LEAST:
        raise UsageError(
            f"--calibration {folder}: {len(pictures)} readable picture{'' if len(pictures) == 1 else 's'}",
            hint=f"give a folder with at least {_LEAST}; about {crops} are enough",
        )
    each = min(6, -(-crops // len(pictures)))
    images, whole = [], []
    for picture in pictures:
        for number, (left, top, wide, high) in enumerate(_boxes(*picture.shape[:2])[:each]):
            part = picture[top : top + high, left : left + wide]
            images.append(resized(part, size))
            whole.append(number == 0)
    return Crops(images, whole, len(pictures))


def resized(picture: np.ndarray, size: int) -> np.ndarray:
    """`picture` (HxWx3 uint8) as `size` x `size`, one linear resize as in every command; without OpenCV by numpy, whose
    values differ by one level at most. (32-bit Arm has no OpenCV wheel, and a build needs nothing else of it.)"""
    try:
        import cv2
    except ImportError:
        return linear(picture, size)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


def linear(picture: np.ndarray, size: int) -> np.ndarray:
    """`resized` in numpy: each new pixel's centre lies between two rows and two columns of the old ones."""
    rows = picture.astype(np.float32)
    for axis in (0, 1):
        place = np.clip((np.arange(size) + 0.5) * (rows.shape[axis] / size) - 0.5, 0, rows.shape[axis] - 1)
        first = np.minimum(place.astype(int), max(rows.shape[axis] - 2, 0))
        second = np.minimum(first + 1, rows.shape[axis] - 1)
        share = (place - first).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        rows = rows.take(first, axis) * (1 - share) + rows.take(second, axis) * share
    return np.rint(rows).astype(np.uint8)


def _boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(left, top, width, height): the usual centre crop, four corners, the whole picture."""
    short = min(height, width)
    centre, corner = max(1, round(short * 224 / 256)), max(1, round(short * _CORNER))
    return [
        ((width - centre) // 2, (height - centre) // 2, centre, centre),
        (0, 0, corner, corner),
        (width - corner, height - corner, corner, corner),
        (width - corner, 0, corner, corner),
        (0, height - corner, corner, corner),
        (0, 0, width, height),
    ]
