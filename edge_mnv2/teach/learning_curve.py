"""Whether more pictures would help: accuracy or error by the number of pictures taught."""

from __future__ import annotations

import numpy as np

from edge_mnv2.builder.float_heads import ClassHead, ValueHead
from edge_mnv2.datasets.labelled_pictures import REGRESSION
from edge_mnv2.teach import class_head, value_head
from edge_mnv2.teach.feature_choice import HeadFeatures
from edge_mnv2.teach.head_fitting import Head, Taught

CURVE_DRAWS = 3
_CURVE = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200)


def learning_curve(taught: Taught) -> list[tuple[int, float, float]]:
    """(pictures a class, or in all for a value; held-out accuracy or RMSE; the same on the taught ones), by the float
    head with the decay that was chosen, as a mean over draws. Empty where nothing is held out, or one class only."""
    lesson, held = taught.lesson, taught.held
    regression = lesson.task == REGRESSION
    if not len(held) or (not regression and len(np.unique(lesson.truth[held])) == 1):
        return []
    truth = lesson.truth if regression else lesson.truth.astype(int)
    pool = taught.taught
    most = len(pool) if regression else int(np.bincount(truth[pool]).max())
    sizes = [size for size in _CURVE if (2 if regression else 1) <= size < most] + [most]
    points = []
    for size in sizes:
        results = []
        for draw in range(1 if size == most else CURVE_DRAWS):
            random = np.random.default_rng((lesson.request.seed, size, draw))
            some = _drawn(pool, truth, size, regression, random)
            if regression and len(np.unique(truth[some])) < 2:
                continue
            head = _refit(taught, some)
            results.append([_score(head, taught, places, truth, regression) for places in (held, some)])
        if results:
            on_held, on_taught = np.mean(results, axis=0)
            points.append((size, float(on_held), float(on_taught)))
    return points


def _drawn(pool: np.ndarray, truth: np.ndarray, size: int, regression: bool, random: np.random.Generator) -> np.ndarray:
    if regression:
        return random.permutation(pool)[:size]
    members = (random.permutation(pool[truth[pool] == row])[:size] for row in np.unique(truth[pool]))
    return np.concatenate(list(members))


def _refit(taught: Taught, some: np.ndarray) -> Head:
    lesson, settings = taught.lesson, taught.settings
    places = lesson.places(some)
    if not settings.get("mirrored", True):
        places = places[~lesson.mirrored[places]]
    embeddings, truth = taught.layer.real(lesson.codes[places]), lesson.truth[lesson.picture[places]]
    if lesson.task == REGRESSION:
        value_choice = value_head.Choice(
            taught.layer,
            settings["smoothing"],
            settings["screening"],
            settings["weight_decay"],
            0.0,
            isinstance(taught.head, ValueHead) and taught.head.states is not None,
        )
        return value_head.fit(embeddings, truth, value_choice)
    rows = truth.astype(int)
    if lesson.head == "imprint":
        return ClassHead(class_head.imprint(embeddings, rows, lesson.rows, settings["factor"]))
    assert isinstance(taught.head, ClassHead)
    read = HeadFeatures.of(taught.layer.real(lesson.codes[lesson.first[some]]), taught.head.evidence)
    choice = class_head.Choice(settings["weight_decay"], settings["steps"], 0.0, settings["factor"])
    optimizer, seed = settings["optimizer"], lesson.request.seed
    return read.unfold(class_head.fit(read(embeddings), rows, lesson.rows, choice, optimizer=optimizer, seed=seed))


def _score(head: Head, taught: Taught, places: np.ndarray, truth: np.ndarray, regression: bool) -> float:
    predicted = head(taught.embeddings[places])
    if regression:
        return float(np.sqrt(np.mean((predicted[:, 0] - truth[places]) ** 2)))
    return float(np.mean(predicted.argmax(axis=1) == truth[places]))
