"""What a person should know before trusting a taught model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from edge_mnv2.errors import SourceError
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.teach.pictures import REGRESSION
from edge_mnv2.teach.split import LEAST, near_duplicates
from edge_mnv2.teach.taught import Taught

_FEW = 10
_FEW_VALUES = 20
_UNBALANCED = 4
_SEPARATE = 0.95
_LOOKED_AT = 4
_CONSPICUOUS = 12
"""Grey levels between the classes' means below which brightness is no explanation."""


def warnings(taught: Taught, embedder: Embedder) -> list[str]:
    """One sentence each, the weightiest first."""
    found = list(_too_few(taught))
    found += _duplicates(taught)
    if taught.lesson.task != REGRESSION:
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
    """Pairs of classes whose answer follows the brightness: as bright as the other class, pictures turn into it."""
    lesson = taught.lesson
    grey = np.array(lesson.brightness)
    seen = np.array([path is not None for path in lesson.paths])
    members = [np.flatnonzero((lesson.truth == row) & seen) for row in range(lesson.rows)]
    for one, other in combinations(range(lesson.rows), 2):
        if min(len(members[one]), len(members[other])) < 2:
            continue
        first, second = grey[members[one]], grey[members[other]]
        if abs(first.mean() - second.mean()) < _CONSPICUOUS or _overlap(first, second) < _SEPARATE:
            continue
        turned = [
            _turns(taught, embedder, int(place), one, other, target.mean())
            for row, target in ((one, second), (other, first))
            for place in members[row][:_LOOKED_AT]
        ]
        if turned and sum(turned) > len(turned) / 2:
            yield (
                f"{lesson.classes[one]} and {lesson.classes[other]} differ in brightness only: other light will "
                "change the answer; take pictures of both in the same light"
            )


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """How well one threshold tells the two apart: the area under the ROC curve, from 0.5 to 1."""
    wins = float(np.mean(first[:, None] > second[None, :]) + 0.5 * np.mean(first[:, None] == second[None, :]))
    return max(wins, 1 - wins)


def _turns(taught: Taught, embedder: Embedder, place: int, one: int, other: int, target: float) -> bool:
    from edge_mnv2.camera.still import read_still

    path = taught.lesson.paths[place]
    assert path is not None
    try:
        pixels = read_still(path).astype(np.float32)
    except SourceError:
        return False
    lit = pixels * (target / max(float(pixels.mean()), 1.0))
    # A gain alone cannot brighten black: what clipping takes away is given as an offset.
    lit = np.clip(lit + (target - float(np.clip(lit, 0, 255).mean())), 0, 255).astype(np.uint8)
    logits = taught.head(taught.layer.real(embedder.codes(lit))[None])[0]
    answered = one if logits[one] >= logits[other] else other
    return answered != int(taught.lesson.truth[place])
