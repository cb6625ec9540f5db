"""The figures of a taught model, as the JSON beside it, and the warnings that belong to them.

Unknown values are None, shares are fractions.
"""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import combinations
from typing import Any

import numpy as np

from edge_mnv2 import __version__
from edge_mnv2.datasets.classes import name_key
from edge_mnv2.datasets.labelled_pictures import REGRESSION
from edge_mnv2.errors import SourceError
from edge_mnv2.evaluate.metrics import regression_errors, wilson
from edge_mnv2.teach.class_head import left_out_cosines, unit
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.teach.head_fitting import Taught, backbone
from edge_mnv2.teach.learning_curve import learning_curve
from edge_mnv2.teach.lesson_request import LEAST_HELD_OUT, UNKNOWN
from edge_mnv2.teach.open_set import KNOWN, MOST_LOST, REJECTED, rejected

Document = dict[str, Any]

_FEW = 10
_FEW_VALUES = 20
_UNBALANCED = 4
_SEPARATE = 0.95
_LEAST_COMPARED, _COMPARED = 3, 10
_SEPARABLE = 0.75
_MIDDLE, _SPREAD = 128.0, 45.0
_CONSPICUOUS = 12
"""Grey levels between the classes' means below which brightness is no explanation."""
_NEAR_BITS = 4


def document(taught: Taught, out: str, runtime: str, warnings: list[str]) -> Document:
    """Everything about `taught`, ready for `json.dumps`; `out` is the file's name."""
    lesson = taught.lesson
    regression = lesson.task == REGRESSION
    return {
        "model": out,
        "sha256": hashlib.sha256(taught.model).hexdigest(),
        "bytes": len(taught.model),
        "task": lesson.task,
        "head": lesson.head,
        "unit": lesson.request.unit,
        "pictures": len(lesson.truth),
        "held_out": len(taught.held),
        "classes": [] if regression else _classes(taught),
        "unknown": _unknown(taught),
        "range": {"low": taught.low, "high": taught.high} if regression else None,
        "metrics": _errors(taught) if regression else _accuracy(taught),
        "learning_curve": [
            {"pictures": size, "held_out": round(held, 6), "taught": round(own, 6)}
            for size, held, own in learning_curve(taught)
        ],
        "settings": {**taught.settings, "seed": lesson.request.seed, "holdout": lesson.request.holdout},
        "preprocess": {"resize": lesson.resize},
        "backbone": backbone(lesson),
        "extendable": taught.extendable,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "edge-mnv2": __version__,
            "runtime": runtime,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "warnings": warnings,
        "failed": [{"file": name, "error": error} for name, error in lesson.failures],
    }


def _classes(taught: Taught) -> list[Document]:
    lesson = taught.lesson
    truth = lesson.truth.astype(int)
    return [
        {
            "label": name,
            "row": row,
            "pictures": int(np.sum(truth == row)),
            "held_out": int(np.sum((truth == row) & lesson.held_out)),
        }
        for row, name in enumerate(lesson.classes)
    ]


def _unknown(taught: Taught) -> Any:
    if taught.unknown is None:
        return None
    held = taught.held
    row = taught.lesson.rows
    known = float(np.mean(taught.answers.scores[held].argmax(axis=1) != row)) if len(held) else None
    return {
        "label": UNKNOWN,
        "row": row,
        "threshold": round(taught.unknown.threshold, 6),
        "slope": round(taught.unknown.slope, 6),
        "by": "embedding" if taught.unknown.familiarity.evidence is None else "evidence of the backbone's own classes",
        "kept_when_taught": taught.lesson.request.known,
        "kept_of_held_out": known,
        "curve": [
            {"known": share, "threshold": round(threshold, 6), "rejected": other and round(other, 4)}
            for share, threshold, other in (taught.open_set.curve() if taught.open_set is not None else ())
        ],
    }


def _accuracy(taught: Taught) -> Document:
    lesson, held = taught.lesson, taught.held
    truth = lesson.truth.astype(int)
    logits = taught.answers.logits
    assert logits is not None
    integer = logits.argmax(axis=1)
    exact = taught.float_logits(np.arange(len(truth))).argmax(axis=1)
    answered = taught.answers.scores.argmax(axis=1)
    with_unknown = taught.float_scores(np.arange(len(truth))).argmax(axis=1)
    # Of one class alone the recall is known, which a head that always names that class has in full.
    compared = held if len(np.unique(truth[held])) > 1 else held[:0]
    interval = wilson(int(np.sum(integer[compared] == truth[compared])), len(compared))

    def share(one: np.ndarray, other: np.ndarray, places: np.ndarray) -> Any:
        return float(np.mean(one[places] == other[places])) if len(places) else None

    names = [*lesson.classes, UNKNOWN]
    cells = Counter(zip(truth[held].tolist(), answered[held].tolist()))
    return {
        "top1": share(integer, truth, compared),
        "top1_interval": list(interval) if interval else None,
        "top1_float": share(exact, truth, compared),
        "top1_with_unknown": share(answered, truth, compared),
        "top1_of_taught": share(integer, truth, taught.taught),
        "agreement": share(integer, exact, held),
        "agreement_with_unknown": share(answered, with_unknown, held),
        "confusion": [
            {"label": names[row], "predicted": names[other], "row": row, "predicted_row": other, "images": count}
            for (row, other), count in sorted(cells.items())
        ],
    }


def _errors(taught: Taught) -> Document:
    lesson, held = taught.lesson, taught.held
    integer = taught.answers.scores[:, 0].astype(float)
    exact = np.clip(taught.float_logits(np.arange(len(lesson.truth)))[:, 0], taught.low, taught.high)
    spread = float(np.ptp(lesson.truth))
    errors = regression_errors(lesson.truth[held].tolist(), integer[held].tolist())
    own = regression_errors(lesson.truth[taught.taught].tolist(), integer[taught.taught].tolist())
    off = np.abs(integer - exact)[held if len(held) else slice(None)]
    return {
        "rmse": errors.rmse if errors else None,
        "mae": errors.mae if errors else None,
        "mape": errors.mape if errors else None,
        "mse": errors.mse if errors else None,
        "rmse_of_range": errors.rmse / spread if errors else None,
        "rmse_of_taught": own.rmse if own else None,
        "expected_errors": [
            {"low": low, "high": high, "rmse": round(error, 6)} for low, high, error in taught.expected_errors
        ],
        "largest_difference_from_float": float(off.max()),
        "largest_difference_of_range": float(off.max()) / spread,
        "values": [
            {"file": lesson.names[place], "true": float(lesson.truth[place]), "predicted": float(integer[place])}
            for place in held
        ],
    }


def warnings(taught: Taught, embedder: Embedder) -> list[str]:
    """One sentence each, the weightiest first."""
    sentences = list(_too_few(taught))
    sentences += _duplicates(taught)
    if taught.lesson.task != REGRESSION:
        sentences += _similar_names(taught.lesson.classes)
        sentences += _weak_unknown(taught)
        sentences += _unbalanced(taught)
        sentences += _brightness(taught, embedder)
    return sentences


def _too_few(taught: Taught) -> Iterator[str]:
    lesson = taught.lesson
    if lesson.task == REGRESSION:
        if len(lesson.truth) < _FEW_VALUES:
            yield f"{len(lesson.truth)} pictures are few for a measured value: about {_FEW_VALUES} or more are good"
        return
    counts = np.bincount(lesson.truth.astype(int), minlength=lesson.rows)
    none = [f"{name} ({count})" for name, count in zip(lesson.classes, counts) if count < LEAST_HELD_OUT]
    if none and lesson.request.holdout > 0:
        yield f"fewer than {LEAST_HELD_OUT} pictures, none is held out, the accuracy is not known: {', '.join(none)}"
    tested = np.unique(lesson.truth[taught.held].astype(int))
    if len(tested) == 1:
        yield f"only '{lesson.classes[tested[0]]}' has held-out pictures: how well it is told from others is not known"
    few = [f"{name} ({count})" for name, count in zip(lesson.classes, counts) if LEAST_HELD_OUT <= count < _FEW]
    if few:
        yield f"few pictures, more would help: {', '.join(few)}"


def _similar_names(classes: Sequence[str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for name in classes:
        if (other := first.setdefault(name_key(name), name)) != name:
            yield f"'{other}' and '{name}' are taught as two classes: give them one name if they are one"


def _weak_unknown(taught: Taught) -> Iterator[str]:
    if taught.unknown is None:
        return
    share = rejected(taught.unknown, taught.layer.real(taught.lesson.negatives))
    if share < REJECTED:
        yield (
            f"'unknown' is weak with these classes on {taught.lesson.backbone.name}: {1 - share:.0%} of noise, "
            "darkness and plain surfaces are not rejected; add a class of what else may be in view"
        )
    meant = 1 - (taught.lesson.request.known or KNOWN)
    similarities = taught.open_set.known if taught.open_set is not None else np.zeros(0)
    lost = float(np.mean(similarities < taught.unknown.threshold)) if len(similarities) else 0.0
    if lost > MOST_LOST * meant:
        yield (
            f"'unknown' takes too many pictures of these classes: {lost:.0%} of those taught, by models without them, "
            f"where {meant:.0%} are meant; take more pictures with the object larger, or leave it out (--no-unknown)"
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
        if np.mean(cosines.argmax(axis=1) == truth) < _SEPARABLE:
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

    embeddings = []
    for place in places:
        path = taught.lesson.paths[place]
        assert path is not None
        try:
            pixels = read_still(path).astype(np.float32)
        except SourceError:
            continue
        even = (pixels - pixels.mean()) * (_SPREAD / max(float(pixels.std()), 1.0)) + _MIDDLE
        codes = embedder.codes(np.clip(even, 0, 255).astype(np.uint8))
        embeddings.append(taught.layer.real(codes))
    return np.stack(embeddings) if embeddings else np.zeros((0, taught.layer.size), np.float32)


def near_duplicates(hashes: Sequence[int], held_out: np.ndarray) -> list[tuple[int, int]]:
    """(held out, taught) pairs of places whose difference hashes are nearly the same."""
    held = set(held_out.tolist())
    taught = [place for place in range(len(hashes)) if place not in held]
    pairs = []
    for place in sorted(held):
        for other in taught:
            if bin(hashes[place] ^ hashes[other]).count("1") <= _NEAR_BITS:
                pairs.append((place, other))
                break
    return pairs
