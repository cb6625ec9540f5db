"""Pictures to embeddings: what the frozen network sees in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from edge_mnv2.builder.backbone import Backbone, cut, keep_only, layers
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.model_graph import read_graph
from edge_mnv2.runtime.model_io import describe_input
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.runtime.preprocess import Preprocessor
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.tflite import graph
from edge_mnv2.zoo.resolve import Resolved

_SMALLEST = 0.85
_SMALLEST_MEASURED = 0.94
_LIGHT = (0.85, 1.15)
_POOL = -1


@dataclass(frozen=True)
class Sample:
    """One picture's embeddings in the backbone's own integers (all layers,): as it is, and as light variations of it.

    `hash` is a 64-bit difference hash of the picture, `brightness` its mean grey 0..255.
    """

    codes: np.ndarray
    variations: list[np.ndarray]
    hash: int
    brightness: float


@dataclass(frozen=True)
class Layer:
    """One output of the embedder: the operator that makes it, its place in the codes, its shape (height, width and
    channels of a map, else only channels count), and real = scale * (q - zero)."""

    operator: int
    start: int
    shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def size(self) -> int:
        """Values of one picture."""
        return math.prod(self.shape)

    def of(self, codes: np.ndarray) -> np.ndarray:
        """This layer's part of `codes` (..., all layers)."""
        return codes[..., self.start : self.start + self.size]

    def real(self, codes: np.ndarray) -> np.ndarray:
        """Real values float32 of this layer in `codes` (..., all layers)."""
        return (self.of(codes).astype(np.float32) - self.zero_point) * np.float32(self.scale)


class Embedder:
    """The cut backbone in an interpreter. One thread at a time; a context manager.

    `layers` says what `codes` holds one after the other: the average pool, or for measured values the maps before it
    too.
    """

    def __init__(
        self,
        model: Resolved,
        *,
        operators: Optional[Sequence[int]] = None,
        maps: bool = False,
        resize: str = "crop",
        runtime: str = "auto",
        threads: int = 1,
        scaling: ModelOptions = ModelOptions(),
    ) -> None:
        """`operators` names the layers to read; else the pool, with `maps` every layer that can be read.

        `model` and `notes` are then the model with the mean and std of its input, where its graph alone does not say
        them, and sentences to be said once.

        Raises ModelError where the model has no embedding.
        """
        places = list(operators or (layers(_read(model)) if maps else [_POOL]))
        backbones = [cut(_read(model), model.name, None if place == _POOL else place) for place in places]
        self.layers: list[Layer] = []
        for place, backbone in zip(places, backbones):
            start = sum(layer.size for layer in self.layers)
            shape = tuple(backbone.embedding.shape[1:])
            self.layers.append(Layer(place, start, shape, backbone.scale, backbone.zero_point))
        if len(backbones) == 1:
            whole = backbones[0].graph
        else:
            whole = _read(model)
            keep_only(whole, [whole.main.operators[place].outputs[0] for place in places])
        self._interpreter = open_interpreter(graph.write(whole), runtime=runtime, threads=threads)
        path, tensor = model.path, self._interpreter.inputs[0]
        described, self.notes = describe_input(str(path), tensor, read_graph(path), model_spec(model, scaling))
        self._writer = described.writer(tensor)
        self.model = model
        if described.origin["mean"] != "graph" or self.notes:
            said = replace(model.preprocess, mean=described.mean, std=described.std)
            self.model = replace(model, preprocess=said)
        self._fit = Preprocessor(self._writer.height, self._writer.width, resize, self._writer.channels)
        self.runtime = self._interpreter.runtime

    def fitted(self, pixels: np.ndarray) -> np.ndarray:
        """RGB uint8 `pixels` as the model sees them (a copy)."""
        return self._fit.to_rgb(pixels).copy()

    def codes(self, pixels: np.ndarray) -> np.ndarray:
        """The embedding of RGB uint8 `pixels` HxWx3 as int8 or uint8 (all layers,)."""
        self._interpreter.set_input(self._writer(self._fit.to_rgb(pixels)))
        self._interpreter.invoke()
        outputs = [self._interpreter.output(place).reshape(-1) for place in range(len(self.layers))]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def sample(
        self, pixels: np.ndarray, variations: int, random: np.random.Generator, *, measured: bool = False
    ) -> Sample:
        """Embed `pixels` and so many variations of it; with `measured` such that a measured value stays the same."""
        codes = self.codes(pixels)
        varied = (vary_light if measured else vary)(pixels, variations, random)
        more = [self.codes(one) for one in varied]
        small = _grey(pixels)
        return Sample(codes, more, _difference_hash(small), float(small.mean()))

    def close(self) -> None:
        self._interpreter.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_backbone(model: Resolved, layer: Layer) -> Backbone:
    """The backbone of a model file, cut anew behind `layer`. Raises ModelError."""
    return cut(_read(model), model.name, None if layer.operator == _POOL else layer.operator)


def _read(model: Resolved) -> graph.Graph:
    return graph.read(model.path.read_bytes(), model.name)


def vary(pixels: np.ndarray, count: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """`count` variations as another moment would give them: every other one mirrored, a little nearer and moved."""
    for number in range(count):
        part = _part(pixels, random.uniform(_SMALLEST, 1.0), random)
        yield np.ascontiguousarray(part[:, ::-1]) if number % 2 == 0 else part


def vary_light(pixels: np.ndarray, count: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """`count` variations that keep a measured value: a little nearer and moved, in other light, never mirrored."""
    for _ in range(count):
        part = _part(pixels, random.uniform(_SMALLEST_MEASURED, 1.0), random)
        table = np.clip(np.arange(256) * random.uniform(*_LIGHT), 0, 255).astype(np.uint8)
        yield table[part]


def _part(pixels: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """A part of the picture somewhere in it, `share` of its height and width."""
    height, width = pixels.shape[:2]
    high, wide = max(1, round(height * share)), max(1, round(width * share))
    top, left = int(random.integers(height - high + 1)), int(random.integers(width - wide + 1))
    return pixels[top : top + high, left : left + wide]


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The picture as 8 rows of 9 grey values, float."""
    import cv2

    return cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA).astype(np.float32).mean(axis=2)


def _difference_hash(small: np.ndarray) -> int:
    """One bit for each pair of neighbours in a row: is the right one brighter. Equal scenes differ in a few bits."""
    bits = (small[:, 1:] > small[:, :-1] + 0.5).reshape(-1)
    return int("".join("1" if bit else "0" for bit in bits), 2)
