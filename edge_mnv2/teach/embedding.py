"""Pictures to embeddings: what the frozen network sees in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_mnv2.build import graph
from edge_mnv2.build.backbone import Backbone, cut
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter, Preprocessor
from edge_mnv2.zoo.resolve import Resolved

_SMALLEST = 0.85


@dataclass(frozen=True)
class Sample:
    """One picture's embeddings in the backbone's own integers (size,): as it is, and as light variations of it.

    `hash` is a 64-bit difference hash of the picture, `brightness` its mean grey 0..255.
    """

    codes: np.ndarray
    variations: list[np.ndarray]
    hash: int
    brightness: float


class Embedder:
    """The cut backbone in an interpreter. One thread at a time; a context manager."""

    def __init__(self, found: Resolved, *, resize: str = "crop", runtime: str = "auto", threads: int = 1) -> None:
        """Raises ModelError where the model has no embedding."""
        self.backbone = read_backbone(found)
        self._interpreter = open_interpreter(graph.write(self.backbone.graph), runtime=runtime, threads=threads)
        spec = self._interpreter.inputs[0]
        self._writer = InputWriter(spec, found.preprocess.mean, found.preprocess.std)
        self._fit = Preprocessor(self._writer.height, self._writer.width, resize, self._writer.channels)
        self.runtime = self._interpreter.runtime

    def fitted(self, pixels: np.ndarray) -> np.ndarray:
        """RGB uint8 `pixels` as the model sees them (a copy)."""
        return self._fit.to_rgb(pixels).copy()

    def codes(self, pixels: np.ndarray) -> np.ndarray:
        """The embedding of RGB uint8 `pixels` HxWx3 as int8 or uint8 (size,)."""
        self._interpreter.set_input(self._writer(self._fit.to_rgb(pixels)))
        self._interpreter.invoke()
        return self._interpreter.output().reshape(-1)

    def sample(self, pixels: np.ndarray, variations: int, random: np.random.Generator) -> Sample:
        """Embed `pixels` and so many variations of it."""
        codes = self.codes(pixels)
        more = [self.codes(varied) for varied in vary(pixels, variations, random)]
        small = _grey(pixels)
        return Sample(codes, more, _difference_hash(small), float(small.mean()))

    def real(self, codes: np.ndarray) -> np.ndarray:
        """Real embeddings float32 of `codes`."""
        return (codes.astype(np.float32) - self.backbone.zero_point) * np.float32(self.backbone.scale)

    def close(self) -> None:
        self._interpreter.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_backbone(found: Resolved) -> Backbone:
    """The backbone of a model file, cut anew. Raises ModelError."""
    return cut(graph.read(found.path.read_bytes(), found.name), found.name)


def vary(pixels: np.ndarray, count: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """`count` variations as another moment would give them: every other one mirrored, a little nearer and moved."""
    height, width = pixels.shape[:2]
    for number in range(count):
        share = random.uniform(_SMALLEST, 1.0)
        high, wide = max(1, round(height * share)), max(1, round(width * share))
        top, left = int(random.integers(height - high + 1)), int(random.integers(width - wide + 1))
        part = pixels[top : top + high, left : left + wide]
        yield np.ascontiguousarray(part[:, ::-1]) if number % 2 == 0 else part


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The picture as 8 rows of 9 grey values, float."""
    import cv2

    return cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2)


def _difference_hash(small: np.ndarray) -> int:
    """One bit for each pair of neighbours in a row: is the right one brighter. Equal scenes differ in a few bits."""
    bits = (small[:, 1:] > small[:, :-1] + 0.5).reshape(-1)
    return int("".join("1" if bit else "0" for bit in bits), 2)
