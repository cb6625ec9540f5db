"""Frames as pictures: JPEG, and what a run sees written on them for recordings and the window."""

from __future__ import annotations

import functools
import time
from typing import Any, Optional

import numpy as np

from edge_mnv2.camera.frame import Frame
from edge_mnv2.outputs.records import UNRECOGNIZED
from edge_mnv2.pipeline.result import Result

_ROI = (40, 200, 255)
_SEEN = (177, 195, 79)


def bgr(frame: Frame, most: int = 0, seen: Optional[tuple[int, int, int, int]] = None) -> np.ndarray:
    """`frame` as BGR uint8 of its own memory, its longer side at most `most` pixels (0: as it is), its region of
    interest and what the model sees (`seen`: left, top, width, height) outlined."""
    import cv2

    pixels = frame.pixels
    height, width = pixels.shape[:2]
    scale = min(1.0, most / max(height, width)) if most else 1.0
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # Twice smaller and more, LINEAR leaves pixels out; AREA costs little there.
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR)
    if frame.order == "rgb":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    elif pixels is frame.pixels:
        pixels = pixels.copy()
    thick = max(1, round(max(pixels.shape[:2]) / 400))
    for box, colour in ((frame.roi, _ROI), (None if seen == (0, 0, width, height) else seen, _SEEN)):
        if box is not None:
            left, top, wide, high = (round(value * scale) for value in box)
            cv2.rectangle(pixels, (left, top), (left + wide - 1, top + high - 1), colour, thick)
    return pixels


def jpeg(pixels: np.ndarray, quality: int = 80) -> bytes:
    """BGR uint8 HxWx3 as JPEG."""
    import cv2

    made, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not made:
        raise ValueError("the picture could not be encoded")
    return data.tobytes()


_WHITE, _QUIET, _ACCENT = (255, 255, 255), (205, 215, 210), (177, 195, 79)
_CLASSES = 3


def annotated(result: Result, most: int = 0) -> np.ndarray:
    """The frame as BGR uint8 with its region, time, speed and best classes; its longer side at most `most` (0: any)."""
    picture = bgr(result.frame, most)
    annotate(picture, result)
    return picture


def annotate(picture: np.ndarray, result: Result) -> None:
    """Write time, speed and best classes on `picture`, BGR uint8. One too small to be read stays as it is."""
    height, width = picture.shape[:2]
    size = max(11, min(36, height // 22))
    if height >= 3 * size and width >= 6 * size:
        _headline(picture, result, size)
        _classes(picture, result, size)


def say(picture: np.ndarray, text: str) -> None:
    """A short message across the middle of `picture`."""
    size = max(11, min(36, picture.shape[0] // 18))
    mask = _text(text, size)
    top, left = (picture.shape[0] - mask.shape[0]) // 2, max(0, (picture.shape[1] - mask.shape[1]) // 2)
    _shade(picture, 0, top - size // 2, picture.shape[1], mask.shape[0] + size)
    _draw(picture, mask, left, top, _WHITE)


def _headline(picture: np.ndarray, result: Result, size: int) -> None:
    parts = [f"{result.fps:.1f} FPS", f"{result.latency_ns / 1e6:.0f} ms"]
    if result.temp_c is not None:
        parts.append(f"{result.temp_c:.0f} °C")
    if result.throttled:
        parts.append(result.throttled[0])
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(result.wall_time))
    _shade(picture, 0, 0, picture.shape[1], round(1.6 * size))
    edge = round(0.3 * size)
    right = _text("   ".join(parts), size)
    _draw(picture, right, picture.shape[1] - right.shape[1] - size // 2, edge, _WHITE)
    left = _text(clock, size)
    if left.shape[1] + right.shape[1] + 2 * size < picture.shape[1]:
        _draw(picture, left, size // 2, edge, _QUIET)


def _classes(picture: np.ndarray, result: Result, size: int) -> None:
    height, width = picture.shape[:2]
    best = result.shown[:_CLASSES]
    lines = [(f"{one.figure}  {one.label.split(',')[0]}", one.label in result.present) for one in best]
    lines = lines or [(UNRECOGNIZED, False)]
    step = round(1.8 * size)
    room = min(len(lines), max(1, (height - 2 * step) // step))
    top = height - room * step - size // 3
    _shade(picture, 0, top, width, height - top)
    for number, (line, present) in enumerate(lines[:room]):
        y = top + number * step + size // 4
        score = best[number].score if best else 0.0
        bar = round((width - size) * max(0.0, min(1.0, score)))
        if bar:
            thick, under = max(2, size // 7), y + round(1.3 * size)
            picture[under : under + thick, size // 2 : size // 2 + bar] = _ACCENT
        _draw(picture, _text(line, size), size // 2, y, _ACCENT if present else _WHITE if number == 0 else _QUIET)


def _shade(picture: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    part = picture[max(0, top) : top + height, left : left + width]
    np.multiply(part, 0.4, out=part, casting="unsafe")


def _draw(picture: np.ndarray, mask: np.ndarray, left: int, top: int, colour: tuple[int, int, int]) -> None:
    """Blend `colour` over `picture` by `mask` (float32 0..1, cut where it sticks out)."""
    left, top = max(0, left), max(0, top)
    part = picture[top : top + mask.shape[0], left : left + mask.shape[1]]
    share = mask[: part.shape[0], : part.shape[1], None]
    part += (share * (np.asarray(colour, np.float32) - part)).astype(np.int16).astype(np.uint8)


@functools.lru_cache(maxsize=256)
def _text(text: str, size: int) -> np.ndarray:
    """`text` as coverage, float32 0..1, one line high."""
    from PIL import Image, ImageDraw

    font = _font(size)
    try:
        width = int(font.getlength(text)) + 2
    except UnicodeError:  # Pillow's built-in bitmap font knows Latin letters only
        text = text.encode("latin-1", "replace").decode("latin-1")
        width = int(font.getlength(text)) + 2
    image = Image.new("L", (width, round(1.3 * size)))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    return np.asarray(image, np.float32) / 255


@functools.lru_cache(maxsize=8)
def _font(size: int) -> Any:
    from PIL import ImageFont

    for name in ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1
        return ImageFont.load_default()
