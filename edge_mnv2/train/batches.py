"""Batches of pictures: decoded by the one reader of stills, augmented for training, preprocessed as on the board for
validation. What comes depends on (seed, epoch, picture) alone, never on the number of workers or on where a run began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from edge_mnv2.camera.still import read_still
from edge_mnv2.datasets.labelled_pictures import Example, Truth
from edge_mnv2.errors import SourceError
from edge_mnv2.runtime.preprocess import Preprocessor
from edge_mnv2.train.training_data import Augmentation

_CACHE_BYTES = 256 << 20
"""Decoded pictures that each process keeps."""


@dataclass(frozen=True)
class Batch:
    """`pixels` uint8 (pictures, 3, size, size); `truth` int64 (pictures,), or float32 (pictures, 1) for values;
    `teacher` the same views for the teacher, or None; `failures` are (name, reason) of pictures left out."""

    pixels: torch.Tensor
    truth: torch.Tensor
    teacher: Optional[torch.Tensor]
    failures: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class _Sample:
    views: list[np.ndarray]
    truth: Truth


class Pictures(Dataset):
    """`examples` at `size` pixels, and at `teacher_size` too where one is given. A key is (epoch, position)."""

    def __init__(
        self,
        examples: Sequence[Example],
        size: int,
        seed: int = 0,
        augmentation: Optional[Augmentation] = None,
        teacher_size: Optional[int] = None,
    ) -> None:
        self.examples = list(examples)
        self.sizes = [size] if teacher_size is None else [size, teacher_size]
        self.seed = seed
        self.augmentation = augmentation
        self._cache: dict[int, np.ndarray] = {}
        self._cached = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> _Sample | tuple[str, str]:
        epoch, position = key
        example = self.examples[position]
        try:
            pixels = self._decoded(position)
        except SourceError as error:
            return example.name, error.message
        if self.augmentation is None:
            views = [Preprocessor(size, size).to_rgb(pixels).copy() for size in self.sizes]
        else:
            views = self.augmentation.views(pixels, self.sizes, (self.seed, epoch, position))
        return _Sample(views, example.truth)

    def _decoded(self, position: int) -> np.ndarray:
        pixels = self._cache.get(position)
        if pixels is None:
            pixels = read_still(self.examples[position].path)
            if self._cached + pixels.nbytes <= _CACHE_BYTES:
                self._cache[position] = pixels
                self._cached += pixels.nbytes
        return pixels


class Order(Sampler):
    """The batches of one epoch as lists of (epoch, position), from batch `start` on: shuffled by (seed, epoch), or as
    they come. A last batch of one picture is left out in training, because normalization needs two."""

    def __init__(self, count: int, batch: int, *, seed: int = 0, shuffle: bool = True) -> None:
        self.count, self.batch, self.seed, self.shuffle = count, batch, seed, shuffle
        self.epoch = self.start = 0

    def batches(self) -> int:
        """Batches of a whole epoch."""
        whole, rest = divmod(self.count, self.batch)
        return whole + (rest > (1 if self.shuffle and whole else 0))

    def __len__(self) -> int:
        return self.batches() - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for number in range(self.start, self.batches()):
            part = order[number * self.batch : (number + 1) * self.batch]
            yield [(self.epoch, int(position)) for position in part]


def collate(samples: Sequence[_Sample | tuple[str, str]]) -> Batch:
    """One batch of what could be read."""
    good = [sample for sample in samples if isinstance(sample, _Sample)]
    failures = tuple(sample for sample in samples if not isinstance(sample, _Sample))
    if not good:
        empty = torch.empty(0)
        return Batch(empty, empty, None, failures)
    # Channels stay last in memory, which is how convolutions are fastest on a CPU.
    views = [
        torch.from_numpy(np.stack([sample.views[which] for sample in good])).permute(0, 3, 1, 2)
        for which in range(len(good[0].views))
    ]
    classes = isinstance(good[0].truth, int)
    truth = torch.tensor([sample.truth for sample in good], dtype=torch.int64 if classes else torch.float32)
    return Batch(views[0], truth, views[1] if len(views) > 1 else None, failures)


def make_loader(pictures: Pictures, order: Order, workers: int, *, pinned: bool = False) -> DataLoader:
    """Batches of `pictures` in `order`, decoded by `workers` processes (0: in this one)."""
    more: dict[str, Any] = {"persistent_workers": True, "worker_init_fn": _one_thread} if workers else {}
    # Its own generator: a loader draws a seed for its workers, which must not move the global stream of a resumed run.
    return DataLoader(
        pictures,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pinned,
        generator=torch.Generator(),
        **more,
    )


def _one_thread(_worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)
