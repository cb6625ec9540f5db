"""What a person should know before trusting a taught model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from edge_mnv2.datasets.lesson_pictures import REGRESSION
from edge_mnv2.errors import SourceError
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.teach.familiar import TOLD, told
from edge_mnv2.teach.imprint import left_out_cosines, unit
from edge_mnv2.teach.split import LEAST, near_duplicates
from edge_mnv2.teach.taught import Taught

_FEW = 10
_FEW_VALUES = 20
_UNBALANCED = 4
_SEPARATE = 0.95
_LEAST_COMPARED, _COMPARED = 3, 10
_TOLD_APART = 0.75
_MIDDLE, _SPREAD = 128.0, 45.0
_CONSPICUOUS = 12
"""Grey levels between the classes' means below which brightness is no explanation."""


def warnings(taught: Taught, embedder: Embedder) -> list[str]:
    """One sentence each, the weightiest first."""
    found = list(_too_few(taught))
    found += _duplicates(taught)
    if taught.lesson.task != REGRESSION:
        found += _not_unknown(taught)
        found += _unbalanced(taught)
        found += _brightness(taught, embedder)
    return found


def _too_few(taught: Taught) -> Iterator[str]:
    lesson = taught.lesson
    if lesson.task == REGRESSION:
        if len(lesson.truth) < _FEW_VALUES:
            yield f"{len(lesson.truth)} pictures are few for a measured value: about {_FEW_VALUES} or more are good"
        return
    counts = np.bincount(lesson.truth.astype(int), minlength=lesson.rows)
    none = [f"{name} ({count})" for name, count in zip(lesson.classes, counts) if count < LEAST]
    if none and lesson.request.holdout > 0:
        yield f"fewer than {LEAST} pictures, so none is held out and its accuracy is not known: {', '.join(none)}"
    few = [f"{name} ({count})" for name, count in zip(lesson.classes, counts) if LEAST <= count < _FEW]
    if few:
        yield f"few pictures, more would help: {', '.join(few)}"


def _not_unknown(taught: Taught) -> Iterator[str]:
    if taught.unknown is None:
        return
    share = told(taught.unknown, taught.layer.real(taught.lesson.nothing))
    if share < TOLD:
        yield (
            f"'unknown' is weak with these classes on {taught.lesson.found.name}: {1 - share:.0%} of noise, darkness "
            "and plain surfaces are taken for one of them; add a class of what else may be in view"
        )


def _duplicates(taught: Taught) -> Iterator[str]:
    lesson = taught.lesson
    new = np.flatnonzero([path is not None for path in lesson.paths])
    at = {place: number for number, place in enumerate(new.tolist())}
    held = np.array([at[place] for place in taught.held.tolist() if place in at], np.int64)
    pairs = near_duplicates([lesson.hashes[place] for place in new.tolist()], held)
    if pairs:
        one, other = (lesson.names[int(new[place])] for place in pairs[0])
        more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
        yield (
            f"held-out pictures that look the same as taught ones ({one} as {other}{more}): "
            "the accuracy is too good, take pictures at different times"
        )


def _unbalanced(taught: Taught) -> Iterator[str]:
    lesson = taught.lesson
    counts = np.bincount(lesson.truth.astype(int), minlength=lesson.rows)
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] >= _UNBALANCED * counts[least]:
        yield (
            f"unbalanced: {lesson.classes[most]} has {counts[most]} pictures, {lesson.classes[least]} has "
            f"{counts[least]}; the rare class will be missed more often"
        )


def _brightness(taught: Taught, embedder: Embedder) -> Iterator[str]:
    """Pairs of classes that brightness tells apart, and nothing else once brightness and contrast are the same."""
    lesson = taught.lesson
    grey = np.array(lesson.brightness)
    seen = np.array([path is not None for path in lesson.paths])
    members = [np.flatnonzero((lesson.truth == row) & seen) for row in range(lesson.rows)]
    alike: dict[int, np.ndarray] = {}
    for one, other in combinations(range(lesson.rows), 2):
        if min(len(members[one]), len(members[other])) < _LEAST_COMPARED:
            continue
        first, second = grey[members[one]], grey[members[other]]
        if abs(first.mean() - second.mean()) < _CONSPICUOUS or _overlap(first, second) < _SEPARATE:
            continue
        for row in (one, other):
            if row not in alike:
                alike[row] = _in_same_light(taught, embedder, members[row][:_COMPARED])
        units = unit(np.concatenate([alike[one], alike[other]]).astype(np.float64))
        truth = np.repeat([0, 1], [len(alike[one]), len(alike[other])])
        if min(np.bincount(truth, minlength=2)) < 2:
            continue
        cosines, _ = left_out_cosines(units, truth, 2)
        if np.mean(cosines.argmax(axis=1) == truth) < _TOLD_APART:
            yield (
                f"{lesson.classes[one]} and {lesson.classes[other]} differ in brightness only: other light will "
                "change the answer; take pictures of both in the same light"
            )


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """How well one threshold tells the two apart: the area under the ROC curve, from 0.5 to 1."""
    wins = float(np.mean(first[:, None] > second[None, :]) + 0.5 * np.mean(first[:, None] == second[None, :]))
    return max(wins, 1 - wins)


def _in_same_light(taught: Taught, embedder: Embedder, places: np.ndarray) -> np.ndarray:
    """Embeddings (pictures, size) of pictures brought to one mean and one spread of grey."""
    from edge_mnv2.camera.still import read_still

    found = []
    for place in places:
        path = taught.lesson.paths[place]
        assert path is not None
        try:
            pixels = read_still(path).astype(np.float32)
        except SourceError:
            continue
        even = (pixels - pixels.mean()) * (_SPREAD / max(float(pixels.std()), 1.0)) + _MIDDLE
        codes = embedder.codes(np.clip(even, 0, 255).astype(np.uint8))
        found.append(taught.layer.real(codes))
    return np.stack(found) if found else np.zeros((0, taught.layer.size), np.float32)
