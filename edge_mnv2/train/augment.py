"""Random views of a picture for training, by Pillow. The same numbers give the same view, wherever it is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_mnv2.errors import UsageError

KINDS = ("crop", "flip", "colour")

_RATIO = (3 / 4, 4 / 3)
_COLOUR = 0.3
_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """`crop`: a random part of at least `least_area` of the picture, its sides 3:4 to 4:3; `flip`: half of the pictures
    left to right; `colour`: brightness, contrast and saturation times 0.7 to 1.3."""

    crop: bool = True
    flip: bool = True
    colour: bool = True
    least_area: float = 0.35

    @classmethod
    def parse(cls, text: str, least_area: float = 0.35) -> Augmentation:
        """From `crop,flip,colour`, any of them, or `none`. Raises UsageError."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        unknown = [word for word in words if word not in (*KINDS, "none")]
        if unknown or not words or ("none" in words and len(words) > 1):
            raise UsageError(f"--augment {text}", hint=f"some of {','.join(KINDS)}, or none")
        if not 0 < least_area <= 1:
            raise UsageError(f"--least-area {least_area:g}", hint="a share of the picture above 0, at most 1")
        return cls("crop" in words, "flip" in words, "colour" in words, least_area)

    def views(self, pixels: np.ndarray, sizes: Sequence[int], key: Sequence[int]) -> list[np.ndarray]:
        """One view of `pixels` (HxWx3 RGB uint8) as square pictures of each of `sizes`; `key` seeds the chance."""
        from PIL import Image, ImageEnhance, ImageOps

        chance = np.random.default_rng(list(key))
        image = Image.fromarray(pixels)
        box = self._box(image.width, image.height, chance)
        flipped = self.flip and chance.random() < 0.5
        order, factors = chance.permutation(3), chance.uniform(1 - _COLOUR, 1 + _COLOUR, 3)
        found = []
        for size in sizes:
            view = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
            if flipped:
                view = ImageOps.mirror(view)
            if self.colour:
                enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
                for kind in order:
                    view = enhancers[kind](view).enhance(float(factors[kind]))
            found.append(np.asarray(view))
        return found

    def _box(self, width: int, height: int, chance: np.random.Generator) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the part to take (Szegedy et al. 2015, "Going Deeper with Convolutions")."""
        if self.crop:
            for _ in range(_TRIES):
                area = width * height * chance.uniform(self.least_area, 1.0)
                ratio = math.exp(chance.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
                wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
                if wide <= width and high <= height:
                    left, top = chance.uniform(0, width - wide), chance.uniform(0, height - high)
                    return left, top, min(width, left + wide), min(height, top + high)
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
