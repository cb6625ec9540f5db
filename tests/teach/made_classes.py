"""Pictures of classes from a seeded generator: digits, textures, defects of a part, signs. RGB uint8 224x224x3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

SIDE = 224
DIGITS = tuple(str(digit) for digit in range(10))
TEXTURES = ("bricks", "checks", "clouds", "dots", "fine_stripes", "grains", "waves", "weave", "wide_stripes")
DEFECTS = ("crack", "dent", "good", "hole", "scratch", "stain")

_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "arrow": (((-1, 0), (1, 0)), ((0.4, -0.6), (1, 0), (0.4, 0.6))),
    "bolt": (((0.3, -1), (-0.5, 0.1), (0.3, 0.1), (-0.3, 1)),),
    "cross": (((0, -1), (0, 1)), ((-1, 0), (1, 0))),
    "flag": (((-0.6, 1), (-0.6, -1), (0.8, -0.7), (-0.6, 0.1)),),
    "house": (((-0.8, 1), (-0.8, -0.1), (0, -1), (0.8, -0.1), (0.8, 1), (-0.8, 1)), ((0, 1), (0, 0.4), (0.4, 0.4))),
    "kite": (((0, -1), (0.7, -0.2), (0, 1), (-0.7, -0.2), (0, -1)), ((-0.7, -0.2), (0.7, -0.2))),
    "star": (((0, -1), (0.6, 0.9), (-1, -0.3), (1, -0.3), (-0.6, 0.9), (0, -1)),),
    "tree": (((0, 1), (0, -0.9)), ((-0.8, -0.4), (0, 0.2), (0.8, -0.4)), ((-0.6, 0.1), (0, 0.6), (0.6, 0.1))),
}
"""Points (x, y) of each stroke, -1 to 1."""
SIGNS = tuple(_STROKES)

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)


def _clouds(random: np.random.Generator, grain: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Smooth noise with mean 0 and standard deviation 1, float32 height x width; `grain` is its size in pixels."""
    small = random.normal(size=(height // grain + 2, width // grain + 2)).astype(np.float32)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return (large - large.mean()) / (large.std() + 1e-6)


def _two_colours(random: np.random.Generator, contrast: float) -> tuple[np.ndarray, np.ndarray]:
    middle, half = random.uniform(70, 185, 3), random.uniform(contrast, 1.4 * contrast, 3) * random.choice([-1, 1])
    return middle - half, middle + half


def _mixed(share: np.ndarray, random: np.random.Generator, contrast: float) -> np.ndarray:
    first, second = _two_colours(random, contrast)
    return first + share[:, :, None] * (second - first)


def _photographed(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Uneven light, a camera's noise and blur."""
    light = 1 + 0.12 * _clouds(random, 112)[:, :, None]
    picture = picture * light * random.uniform(0.8, 1.2) + random.normal(0, 4, picture.shape)
    picture = cv2.GaussianBlur(np.clip(picture, 0, 255).astype(np.float32), (0, 0), random.uniform(0.3, 1.0))
    return np.clip(picture, 0, 255).astype(np.uint8)


def digit(name: str, random: np.random.Generator) -> np.ndarray:
    """A printed digit of some font, size, place and slant on an uneven ground."""
    ink = np.zeros((SIDE, SIDE), np.uint8)
    scale, thickness = random.uniform(2.5, 5.0), int(random.integers(4, 12))
    font = _FONTS[int(random.integers(len(_FONTS)))]
    (wide, high), _ = cv2.getTextSize(name, font, scale, thickness)
    left, top = (SIDE - wide) / 2 + random.uniform(-25, 25), (SIDE + high) / 2 + random.uniform(-25, 25)
    cv2.putText(ink, name, (int(left), int(top)), font, scale, 255, thickness, cv2.LINE_AA)
    turned = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), random.uniform(-15, 15), 1.0)
    share = cv2.warpAffine(ink, turned, (SIDE, SIDE)).astype(np.float32) / 255
    return _photographed(_mixed(share, random, 45) + 10 * _clouds(random, 28)[:, :, None], random)


def texture(name: str, random: np.random.Generator) -> np.ndarray:
    """A surface that fills the picture, in some colours, size and turn."""
    size = random.uniform(0.8, 1.25)
    turn = np.deg2rad(random.uniform(-12, 12))
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    x = columns * np.cos(turn) + rows * np.sin(turn) + random.uniform(0, 200)
    y = rows * np.cos(turn) - columns * np.sin(turn) + random.uniform(0, 200)
    if name in ("fine_stripes", "wide_stripes"):
        share = np.sin(2 * np.pi * x / (size * (12 if name == "fine_stripes" else 30)))
    elif name == "waves":
        share = np.sin(2 * np.pi * (x + 10 * size * np.sin(2 * np.pi * y / (60 * size))) / (24 * size))
    elif name == "checks":
        share = np.sign(np.sin(np.pi * x / (16 * size)) * np.sin(np.pi * y / (16 * size)))
    elif name == "dots":
        share = 2.0 * (np.hypot((x % (24 * size)) - 12 * size, (y % (24 * size)) - 12 * size) < 6 * size) - 1
    elif name == "bricks":
        row = np.floor(y / (20 * size))
        joint = ((x + 20 * size * (row % 2)) % (40 * size) < 4 * size) | (y % (20 * size) < 4 * size)
        share = 1 - 2.0 * joint
    elif name == "weave":
        over = (np.floor(x / (12 * size)) + np.floor(y / (12 * size))) % 2
        share = np.where(over > 0, np.sin(np.pi * x / (12 * size)) ** 2, np.sin(np.pi * y / (12 * size)) ** 2) * 2 - 1
    else:
        share = np.tanh(_clouds(random, int((5 if name == "grains" else 14) * size)))
    share = np.clip(share * random.uniform(0.6, 1.0) + 0.25 * _clouds(random, 3), -1, 1)
    return _photographed(_mixed((share + 1) / 2, random, 35), random)


def defect(name: str, random: np.random.Generator) -> np.ndarray:
    """A brushed metal part, whole or with one defect somewhere on it."""
    brushed = cv2.blur(random.normal(0, 30, (SIDE, SIDE)).astype(np.float32), (41, 1))
    grey = random.uniform(120, 180)
    part = np.full((SIDE, SIDE, 3), random.uniform(40, 90), np.float32)
    left, top = (int(value) for value in random.integers(14, 34, 2))
    cv2.rectangle(part, (left, top), (left + 170, top + 170), (grey,) * 3, -1)
    part[top : top + 170, left : left + 170] += brushed[top : top + 170, left : left + 170, None]
    x, y = left + int(random.integers(40, 130)), top + int(random.integers(40, 130))
    mark = np.zeros((SIDE, SIDE), np.float32)
    depth = random.uniform(45, 90)
    if name == "scratch":
        turn, long = random.uniform(0, np.pi), random.uniform(25, 60)
        ends = [(int(x + sign * long / 2 * np.cos(turn)), int(y + sign * long / 2 * np.sin(turn))) for sign in (-1, 1)]
        cv2.line(mark, *ends, -1.0, int(random.integers(1, 3)), cv2.LINE_AA)
    elif name == "crack":
        turn, place = random.uniform(0, 2 * np.pi), np.array([x, y], np.float64)
        for _ in range(int(random.integers(6, 11))):
            turn += random.normal(0, 0.7)
            after = place + random.uniform(5, 10) * np.array([np.cos(turn), np.sin(turn)])
            cv2.line(mark, tuple(place.astype(int).tolist()), tuple(after.astype(int).tolist()), 1.0, 2, cv2.LINE_AA)
            place = after
    elif name == "hole":
        cv2.circle(mark, (x, y), int(random.integers(4, 9)), 1.4, -1, cv2.LINE_AA)
    elif name == "dent":
        rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
        radius = random.uniform(9, 16)
        across, down = (columns - x) / radius, (rows - y) / radius
        mark = (across + down) * np.exp(-(across**2 + down**2))
    elif name == "stain":
        blot = _clouds(random, 12) - 2.2 * np.hypot(*(np.mgrid[0:SIDE, 0:SIDE] - np.array([y, x])[:, None, None])) / 18
        mark = 0.5 * np.clip(blot + 2.2, 0, 1).astype(np.float32)
    return _photographed(part - depth * mark[:, :, None], random)


def sign(name: str, random: np.random.Generator) -> np.ndarray:
    """A sign drawn by hand: no two lines of it are where they were, on an uneven ground."""
    ink = np.zeros((SIDE, SIDE), np.uint8)
    turn, size = np.deg2rad(random.uniform(-15, 15)), random.uniform(35, 75)
    turned = size * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    middle, thickness = SIDE / 2 + random.uniform(-25, 25, 2), int(random.integers(3, 10))
    for stroke in _STROKES[name]:
        points = (np.array(stroke) * random.uniform(0.8, 1.2, 2) + random.normal(0, 0.09, (len(stroke), 2))) @ turned
        cv2.polylines(ink, [np.int32(middle + points)], False, 255, thickness, cv2.LINE_AA)
    share = cv2.GaussianBlur(ink, (0, 0), random.uniform(0.5, 1.5)).astype(np.float32) / 255
    return _photographed(_mixed(share, random, 45) + 10 * _clouds(random, 28)[:, :, None], random)


MADE: dict[str, tuple[tuple[str, ...], Callable[[str, np.random.Generator], np.ndarray]]] = {
    "digits": (DIGITS, digit),
    "textures": (TEXTURES, texture),
    "defects": (DEFECTS, defect),
    "signs": (SIGNS, sign),
}


def write_classes(folder: Path, kind: str, each: int, seed: int) -> Path:
    """`each` pictures of every class of `kind` as PNG files, one folder a class."""
    from PIL import Image

    names, draw = MADE[kind]
    for row, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            picture = draw(name, np.random.default_rng((seed, row, number)))
            Image.fromarray(picture).save(folder / name / f"{number:03}.png")
    return folder
