"""From a picture to a model's input: the one path of every command and source.

`crop` takes the centre rectangle of the model's aspect ratio, 224/256 of the largest that fits (torchvision's
evaluation transform: short side to 256, centre crop of 224), `stretch` the whole picture, `letterbox` the whole picture
with grey bars. Then comes one LINEAR resize, and the colour order is changed last, on the small picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.runtime.table import TensorSpec

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
        # Frames of one source have one size.
        self._size = (0, 0)
        self._box = (0, 0, 0, 0)

    @property
    def least_side(self) -> int:
        """The shorter side, in pixels, of the smallest picture that need not be enlarged."""
        longer = max(self.height, self.width)
        return math.ceil(longer / CROP_FRACTION) if self.resize == "crop" else longer

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the part of a `width` x `height` picture that reaches the model."""
        if (width, height) != self._size:
            crop = crop_box(width, height, self.width / self.height)
            self._box = crop if self.resize == "crop" else (0, 0, width, height)
            self._size = width, height
        return self._box

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """The part of `pixels` (HxWx3) that reaches the model, a view."""
        left, top, wide, high = self.box(pixels.shape[1], pixels.shape[0])
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


Channels = Union[float, Sequence[float]]


class InputWriter:
    """Turns an RGB uint8 picture into the tensor that a model's input asks for.

    With `mean` and `std` (in pixel units, one number or one a channel) the real value is `(pixel - mean) / std`, in
    integers by the tensor's own scale and zero point. Without them uint8 takes the pixels as they are, int8 the pixels
    minus 128, and floats are `(pixel - 127.5) / 127.5`. `layout` is NHWC or NCHW, None for what the shape says.
    """

    def __init__(
        self,
        spec: TensorSpec,
        mean: Optional[Channels] = None,
        std: Optional[Channels] = None,
        layout: Optional[str] = None,
    ) -> None:
        layout, self.channels = image_layout("the model", spec.shape, layout)
        self.height, self.width = spec.shape[1:3] if layout == "NHWC" else spec.shape[2:4]
        if min(self.height, self.width) < 1:
            raise ModelError("the size of the model's input is open")
        self._planes = layout == "NCHW"
        shape = (self.height, self.width, self.channels)
        self._tensor = np.empty((1, *((self.channels, *shape[:2]) if self._planes else shape)), spec.dtype)
        # A picture's own order of axes, where the tensor has another and integers are looked up.
        self._interleaved = np.empty(shape, spec.dtype) if self._planes else self._tensor[0]
        self._table: Optional[np.ndarray] = None
        self._mean: Any = None
        if spec.dtype.kind == "f":
            # In interleaved order whole rows at a time: numpy is slow along an axis of three.
            repeats = 1 if self._planes else self.width
            self._mean, divisor = (
                np.tile(np.broadcast_to(np.asarray(127.5 if one is None else one, np.float32), self.channels), repeats)
                for one in (mean, std)
            )
            self._inverse = np.float32(1.0) / divisor
        elif spec.dtype.name not in ("uint8", "int8"):
            raise ModelError(f"the model's input is {spec.dtype.name}", hint="uint8, int8 and floats can be fed")
        elif mean is not None or std is not None:
            table = quantization_table(spec, 0.0 if mean is None else mean, 1.0 if std is None else std, self.channels)
            self._table = np.ascontiguousarray(table.T[np.newaxis]).view(np.uint8)
        self._signed = spec.dtype.name == "int8"
        # The last picture that is a tensor as it is, and that tensor: `Preprocessor` gives one buffer again and again.
        self._image: Optional[np.ndarray] = None
        self._as_it_is = self._tensor

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The input tensor for `image` (HxWx3 RGB, or HxW where the model has one channel)."""
        if image is self._image:
            return self._as_it_is
        pixels = image.reshape(self.height, self.width, self.channels)
        if self._mean is not None:
            self._scale(pixels)
            return self._tensor
        interleaved = self._interleaved.view(np.uint8)
        if self._table is not None:
            import cv2

            # A lookup table of one channel gives an array without that axis.
            np.copyto(interleaved, cv2.LUT(pixels, self._table).reshape(interleaved.shape))
        elif self._signed:
            np.bitwise_xor(pixels, 0x80, out=interleaved)
        elif not self._planes:
            self._image, self._as_it_is = image, pixels[np.newaxis]
            return self._as_it_is
        else:
            interleaved = pixels
        if self._planes:
            self._tensor.view(np.uint8)[0] = interleaved.transpose(2, 0, 1)
        return self._tensor

    def _scale(self, pixels: np.ndarray) -> None:
        if self._planes:
            for channel, plane in enumerate(self._tensor[0]):
                np.subtract(pixels[..., channel], self._mean[channel], out=plane, casting="same_kind")
                np.multiply(plane, self._inverse[channel], out=plane, casting="same_kind")
            return
        rows, target = pixels.reshape(self.height, -1), self._tensor.reshape(self.height, -1)
        np.subtract(rows, self._mean, out=target, casting="same_kind")
        np.multiply(target, self._inverse, out=target, casting="same_kind")


def quantization_table(spec: TensorSpec, mean: Channels, std: Channels, channels: int) -> np.ndarray:
    """The integers (channels, 256) of the input `spec` that stand for each pixel value."""
    means, stds = (np.broadcast_to(np.asarray(values, float), channels)[:, np.newaxis] for values in (mean, std))
    limits = np.iinfo(spec.dtype)
    real = (np.arange(256, dtype=float) - means) / stds
    scaled = np.rint(real / (spec.scale or 1.0)) + spec.zero_point
    return np.clip(scaled, limits.min, limits.max).astype(spec.dtype)


def image_layout(path: str, shape: Sequence[int], layout: Optional[str] = None) -> tuple[str, int]:
    """(NHWC or NCHW, channels) of an input's `shape` (-1: open). Raises ModelError with what it is instead."""
    shown = "x".join("?" if n < 0 else str(n) for n in shape)
    if len(shape) != 4:
        raise ModelError(f"{path} takes {shown or 'one number'}, not a picture (1xHxWx3 or 1x3xHxW)")
    if shape[0] not in (1, -1):
        raise ModelError(
            f"{path} takes {shape[0]} pictures at once ({shown})", hint="export it with a batch of 1, or an open one"
        )
    for name, channels in (("NHWC", shape[3]), ("NCHW", shape[1])):
        if channels in (1, 3) and layout in (None, name):
            return name, channels
    if layout is not None:
        raise ModelError(f"{path} takes {shown}, which is not {layout} with 3 channels or 1")
    if shape[1] < 0 and shape[3] < 0:
        raise ModelError(f"{path} takes {shown}: its number of channels is open", hint="export it with a fixed one")
    channels = shape[3] if shape[3] > 0 and (shape[1] < 0 or shape[3] < shape[1]) else shape[1]
    raise ModelError(f"{path} takes {channels} channels ({shown}); a picture has 3 (RGB) or 1 (grey)")


def sized_shape(path: str, shape: Sequence[int], size: Optional[tuple[int, int]]) -> tuple[int, ...]:
    """An input's `shape` with a batch of 1 and, where height and width are open, those of `size`. Raises UsageError."""
    if len(shape) != 4:
        return tuple(shape)
    layout, channels = image_layout(path, shape)
    height, width = shape[1:3] if layout == "NHWC" else shape[2:4]
    if min(height, width) < 1 and size is None:
        raise UsageError(
            f"{path} leaves the size of its input open",
            hint="say it with --input-size WxH, or export it with a fixed size",
        )
    if size is not None:
        if any(n > 0 and n != wanted for n, wanted in zip((height, width), size)):
            shown = "x".join("?" if n < 0 else str(n) for n in (width, height))
            raise UsageError(f"--input-size {size[1]}x{size[0]} does not fit {path}: it takes {shown}")
        height, width = size
    return (1, height, width, channels) if layout == "NHWC" else (1, channels, height, width)
