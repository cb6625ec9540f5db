"""Pictures decoded and fitted ahead by threads, handed over in order.

Decoders let go of Python's lock, so the cores are used; only small fitted pictures wait, never whole photographs.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Union

import numpy as np

from edge_mnv2.errors import SourceError
from edge_mnv2.runtime.preprocess import Preprocessor

Size = tuple[int, int]
Fitted = dict[Size, np.ndarray]
"""(height, width) of a model's input → the picture as that model sees it, RGB uint8 height x width x 3."""

_AHEAD = 4


def fitted_pictures(
    paths: Sequence[Path], sizes: Sequence[Size], resize: str, workers: int
) -> Iterator[Union[Fitted, SourceError]]:
    """For each path in order its picture fitted to each of `sizes`, or the error that names the file.

    `workers` threads decode ahead of the consumer; each holds one whole photograph at a time.
    """
    remaining = iter(paths)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Union[Fitted, SourceError]]] = deque()
        try:
            for path in itertools.islice(remaining, workers * _AHEAD):
                waiting.append(pool.submit(_fitted, path, sizes, resize))
            while waiting:
                picture = waiting.popleft().result()
                for path in itertools.islice(remaining, 1):
                    waiting.append(pool.submit(_fitted, path, sizes, resize))
                yield picture
        finally:
            for future in waiting:
                future.cancel()


def _fitted(path: Path, sizes: Sequence[Size], resize: str) -> Union[Fitted, SourceError]:
    from edge_mnv2.camera.still import read_still

    try:
        pixels = read_still(path)
    except SourceError as error:
        return error
    # A preprocessor keeps its result until its next picture: a new one each time leaves the result to the consumer.
    return {(height, width): Preprocessor(height, width, resize).to_rgb(pixels) for height, width in sizes}
