"""Pictures decoded and fitted ahead by threads, handed over in order.

Decoders let go of Python's lock, so the cores are used; only small fitted pictures wait, never whole photographs.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np

from edge_mnv2.errors import SourceError
from edge_mnv2.runtime.preprocess import Preprocessor


class Fit(NamedTuple):
    """How a model wants its pictures: a resize policy, and the size of its input in pixels."""

    resize: str
    height: int
    width: int


Fitted = dict[Fit, np.ndarray]
"""The picture as a model sees it: RGB uint8 height x width x 3."""

_AHEAD = 4


def fitted_pictures(paths: Sequence[Path], fits: Sequence[Fit], workers: int) -> Iterator[Union[Fitted, SourceError]]:
    """For each path in order its picture fitted in each of `fits`, or the error that names the file.

    `workers` threads decode ahead of the consumer; each holds one whole photograph at a time.
    """
    remaining = iter(paths)
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Union[Fitted, SourceError]]] = deque()
        try:
            for path in itertools.islice(remaining, workers * _AHEAD):
                waiting.append(pool.submit(_fitted, path, fits))
            while waiting:
                picture = waiting.popleft().result()
                for path in itertools.islice(remaining, 1):
                    waiting.append(pool.submit(_fitted, path, fits))
                yield picture
        finally:
            for future in waiting:
                future.cancel()


def _fitted(path: Path, fits: Sequence[Fit]) -> Union[Fitted, SourceError]:
    from edge_mnv2.camera.still import read_still

    # A preprocessor keeps its result until its next picture: a new one each time leaves the result to the consumer.
    preprocessors = {fit: Preprocessor(fit.height, fit.width, fit.resize) for fit in fits}
    try:
        pixels = read_still(path, max(one.least_side for one in preprocessors.values()))
    except SourceError as error:
        return error
    return {fit: preprocessor.to_rgb(pixels) for fit, preprocessor in preprocessors.items()}
