"""From a picture to a model's input: the one path of every command and source.

`crop` takes the centre rectangle of the model's aspect ratio, 224/256 of the largest that fits (torchvision's
evaluation transform: short side to 256, centre crop of 224), `stretch` the whole picture, `letterbox` the whole picture
with grey bars. Then comes one LINEAR resize, and the colour order is changed last, on the small picture.
"""

from __future__ import annotations

import math
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.runtime.interpreter import TensorSpec

RESIZE = ("crop", "stretch", "letterbox")
CROP_FRACTION = 224 / 256
GREY = 128


def crop_box(width: int, height: int, aspect: float) -> tuple[int, int, int, int]:
    """(left, top, width, height) in pixels of the centre rectangle that `crop` takes; `aspect` is width/height."""
    fit_width = min(width, height * aspect)
    box_width = max(1, round(fit_width * CROP_FRACTION))
    box_height = max(1, round(fit_width / aspect * CROP_FRACTION))
    box_width, box_height = min(box_width, width), min(box_height, height)
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height


class Preprocessor:
    """Fits pictures into `height` x `width`. Keeps its buffers: one thread; a result is valid until the next."""

    def __init__(self, height: int, width: int, resize: str = "crop", channels: int = 3) -> None:
        if resize not in RESIZE:
            raise UsageError(f"unknown resize policy '{resize}'", hint=f"one of {', '.join(RESIZE)}")
        import cv2

        self._cv2 = cv2
        self.height, self.width, self.resize, self.channels = height, width, resize, channels
        self._resized = np.empty((height, width, 3), np.uint8)
        self._converted = np.empty((height, width, 3) if channels == 3 else (height, width), np.uint8)
        self._geometry: Optional[tuple[int, int]] = None
        self._inner: tuple[int, int, int, int] = (0, 0, width, height)

    @property
    def least_side(self) -> int:
        """The shorter side, in pixels, of the smallest picture that need not be enlarged."""
        longer = max(self.height, self.width)
        return math.ceil(longer / CROP_FRACTION) if self.resize == "crop" else longer

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """The part of `pixels` (HxWx3) that reaches the model, a view."""
        if self.resize != "crop":
            return pixels
        left, top, wide, high = crop_box(pixels.shape[1], pixels.shape[0], self.width / self.height)
        return pixels[top : top + high, left : left + wide]

    def to_rgb(self, pixels: np.ndarray, order: str = "rgb") -> np.ndarray:
        """`pixels` (HxWx3 uint8, "rgb" or "bgr") as RGB uint8 of the model's size; HxW grey where `channels` is 1."""
        cv2 = self._cv2
        if self.resize == "letterbox":
            self._letterbox(pixels, *pixels.shape[:2])
        else:
            cv2.resize(self.seen(pixels), (self.width, self.height), dst=self._resized, interpolation=cv2.INTER_LINEAR)
        if self.channels == 1:
            code = cv2.COLOR_RGB2GRAY if order == "rgb" else cv2.COLOR_BGR2GRAY
            return cv2.cvtColor(self._resized, code, dst=self._converted)
        if order == "rgb":
            return self._resized
        return cv2.cvtColor(self._resized, cv2.COLOR_BGR2RGB, dst=self._converted)

    def _letterbox(self, pixels: np.ndarray, rows: int, columns: int) -> None:
        if self._geometry != (rows, columns):
            scale = min(self.width / columns, self.height / rows)
            wide, high = max(1, round(columns * scale)), max(1, round(rows * scale))
            self._inner = ((self.width - wide) // 2, (self.height - high) // 2, wide, high)
            self._resized[:] = GREY
            self._geometry = (rows, columns)
        left, top, wide, high = self._inner
        # A view with strides cannot be OpenCV's destination: the small picture is copied into its place.
        cv2 = self._cv2
        self._resized[top : top + high, left : left + wide] = cv2.resize(
            pixels, (wide, high), interpolation=cv2.INTER_LINEAR
        )


Channels = Union[float, tuple[float, ...]]


class InputWriter:
    """Turns an RGB uint8 picture into the tensor that a model's input asks for.

    uint8 takes the pixels as they are, int8 the pixels minus 128: quantized models map their full integer range onto
    the pixel range. With `mean` and `std` (in pixel units, one number or one a channel) the real value is
    `(pixel - mean) / std`, quantized with the tensor's own scale and zero point. float32 without them is
    `(pixel - 127.5) / 127.5`, the convention of the published MobileNetV2 float models.
    """

    def __init__(self, spec: TensorSpec, mean: Optional[Channels] = None, std: Optional[Channels] = None) -> None:
        self.height, self.width, self.channels = image_shape(spec)
        self._tensor = np.empty((1, self.height, self.width, self.channels), spec.dtype)
        kind = spec.dtype.name
        self._table: Optional[np.ndarray] = None
        self._mean: Any = None
        if kind == "float32":
            self._mean = np.asarray(127.5 if mean is None else mean, np.float32)
            self._inverse = np.float32(1.0) / np.asarray(127.5 if std is None else std, np.float32)
        elif kind in ("uint8", "int8"):
            if mean is not None or std is not None:
                self._table = _quantization_table(spec, mean or 0.0, std or 1.0, self.channels)
        else:
            raise ModelError(f"the model's input is {kind}", hint="uint8, int8 and float32 inputs can be fed")
        self._kind = kind

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The input tensor 1xHxWxC for `image` (HxWx3 RGB, or HxW where the model has one channel)."""
        target = self._tensor[0]
        pixels = image.reshape(target.shape)
        if self._table is not None:
            for channel in range(self.channels):
                np.take(self._table[channel], pixels[..., channel], out=target[..., channel])
        elif self._kind == "float32":
            np.subtract(pixels, self._mean, out=target)
            np.multiply(target, self._inverse, out=target)
        elif self._kind == "int8":
            np.bitwise_xor(pixels, 0x80, out=target.view(np.uint8))
        else:
            return pixels[np.newaxis]
        return self._tensor


def image_shape(spec: TensorSpec) -> tuple[int, int, int]:
    """(height, width, channels) of an image input. Raises ModelError that names the shape where it is not one."""
    shape = spec.shape
    if len(shape) != 4 or shape[3] not in (1, 3) or shape[0] not in (1, -1) or min(shape[1:3]) < 1:
        shown = "x".join(str(n) for n in shape)
        raise ModelError(f"the model's input has shape {shown}, not 1xHxWx3 or 1xHxWx1: it is no picture classifier")
    return shape[1], shape[2], shape[3]


def _quantization_table(spec: TensorSpec, mean: Channels, std: Channels, channels: int) -> np.ndarray:
    means, stds = np.broadcast_to(np.asarray(mean, float), channels), np.broadcast_to(np.asarray(std, float), channels)
    limits = np.iinfo(spec.dtype)
    pixels = np.arange(256, dtype=float)
    real = (pixels[np.newaxis] - means[:, np.newaxis]) / stds[:, np.newaxis]
    scale = spec.scale or 1.0
    return np.clip(np.rint(real / scale) + spec.zero_point, limits.min, limits.max).astype(spec.dtype)
