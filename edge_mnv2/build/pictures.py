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
    import cv2

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
            images.append(cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR))
            whole.append(number == 0)
    return Crops(images, whole, len(pictures))


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
