"""Pictures of measuring instruments before real photographs, no photograph twice: a dial, and a tank's fill level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

LOW, HIGH = 0.0, 100.0
_FIRST, _SWEEP = 225.0, 270.0

Draw = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def dial(background: np.ndarray, percent: float, random: np.random.Generator) -> np.ndarray:
    """RGB uint8 240x320x3: a round face whose pointer says `percent`, its place and light as `random` has them."""
    picture = cv2.resize(background, (320, 240), interpolation=cv2.INTER_AREA).astype(np.float32)
    centre = 160 + int(random.integers(-6, 7)), 120 + int(random.integers(-5, 6))
    radius = 85

    def at(share: float, degrees: float) -> tuple[int, int]:
        angle = np.deg2rad(degrees)
        return (
            int(centre[0] + share * radius * np.cos(angle)),
            int(centre[1] - share * radius * np.sin(angle)),
        )

    cv2.circle(picture, centre, radius, (240, 240, 235), -1, cv2.LINE_AA)
    cv2.circle(picture, centre, radius, (30, 30, 30), 4, cv2.LINE_AA)
    for mark in range(11):
        degrees = _FIRST - _SWEEP * mark / 10
        cv2.line(picture, at(0.79, degrees), at(0.93, degrees), (20, 20, 20), 3, cv2.LINE_AA)
    cv2.line(picture, centre, at(0.76, _FIRST - _SWEEP * percent / 100), (200, 30, 30), 6, cv2.LINE_AA)
    return _lit(picture, random)


def tank(
    background: np.ndarray,
    percent: float,
    random: np.random.Generator,
    *,
    glass: float = 0.25,
    liquid: float = 0.1,
    colours: float = 15,
) -> np.ndarray:
    """RGB uint8 240x320x3: a glass filled to `percent`, its place, light and liquid as `random` has them.

    The background shows through by the shares `glass` and `liquid`, whose colour differs by so many `colours`.
    """
    picture = cv2.resize(background, (320, 240), interpolation=cv2.INTER_AREA).astype(np.float32)
    left, top = 120 + int(random.integers(-6, 7)), 32 + int(random.integers(-5, 6))
    right, bottom = left + 80, top + 176
    picture[top:bottom, left:right] = glass * picture[top:bottom, left:right] + (1 - glass) * 235
    level = bottom - round(percent / 100 * (bottom - top))
    colour = np.array([30, 70, 190], np.float32) + random.uniform(-colours, colours, 3).astype(np.float32)
    picture[level:bottom, left:right] = liquid * picture[level:bottom, left:right] + (1 - liquid) * colour
    cv2.rectangle(picture, (left, top), (right, bottom), (40, 40, 40), 3)
    return _lit(picture, random)


def level(background: np.ndarray, percent: float, random: np.random.Generator) -> np.ndarray:
    """A tank that nothing shows through, always with the same liquid."""
    return tank(background, percent, random, glass=0, liquid=0, colours=0)


def _lit(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    picture = picture * random.uniform(0.85, 1.15) + random.normal(0, 3, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def gauges(data: Path, folder: Path, draw: Draw, *, count: int = 60, seed: int = 0, backgrounds: int = 0) -> Path:
    """`count` pictures and `labels.csv` (file,value) in `folder`; with `backgrounds` only so many photographs."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    photos = random.permutation(sorted((data / "imagenet-dev").glob("*.jpg")))[: backgrounds or count]
    rows = ["file,value"]
    for number, percent in enumerate(random.permutation(np.linspace(LOW, HIGH, count))):
        with Image.open(photos[number % len(photos)]) as photo:
            background = np.array(photo.convert("RGB"))
        Image.fromarray(draw(background, percent, random)).save(folder / f"gauge_{number:03}.png")
        rows.append(f"gauge_{number:03}.png,{percent:.2f}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder
