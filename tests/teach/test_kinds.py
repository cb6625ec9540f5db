"""Fifteen kinds of photographs: accuracy against a reference, float against integers, and what was never shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.camera.still import read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.teach.document import document
from edge_mnv2.teach.lesson import Request
from edge_mnv2.teach.softmax import choose, fit
from edge_mnv2.teach.taught import Taught
from tests.teach.lessons import kinds, taught


def test_integers_and_floats_agree(fifteen_kinds: Taught) -> None:
    metrics = document(fifteen_kinds, "kinds.tflite", "", [])["metrics"]
    assert len(fifteen_kinds.held) == 45
    assert metrics["agreement"] >= 0.98
    assert metrics["agreement_with_unknown"] >= 0.95
    # Every class keeps pictures to be taught with.
    lesson = fifteen_kinds.lesson
    assert set(lesson.truth[~lesson.held_out]) == set(range(15))


def test_as_good_as_logistic_regression(fifteen_kinds: Taught) -> None:
    from sklearn.linear_model import LogisticRegression

    lesson = fifteen_kinds.lesson
    learn, held = fifteen_kinds.taught, fifteen_kinds.held
    reference = LogisticRegression(max_iter=2000).fit(fifteen_kinds.embeddings[learn], lesson.truth[learn])
    wanted = reference.score(fifteen_kinds.embeddings[held], lesson.truth[held])
    logits = fifteen_kinds.answers.logits
    assert logits is not None
    assert np.mean(logits[held].argmax(axis=1) == lesson.truth[held]) >= wanted - 0.02


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "rmsprop", "adam"])
def test_every_optimizer_learns(fifteen_kinds: Taught, optimizer: str) -> None:
    lesson, learn, held = fifteen_kinds.lesson, fifteen_kinds.taught, fifteen_kinds.held
    truth = lesson.truth.astype(int)
    embeddings = fifteen_kinds.embeddings
    choice = choose(embeddings[learn], truth[learn], 15, optimizer=optimizer)
    head = fit(embeddings[learn], truth[learn], 15, choice, optimizer=optimizer)
    assert np.mean(head(embeddings[held]).argmax(axis=1) == truth[held]) > 0.85


def test_same_seed_same_model(data: Path, tmp_path: Path) -> None:
    folder = kinds(data, tmp_path / "pets", only=("cat", "snake", "fish"))
    models = [taught(Request(folder, seed=seed)).model for seed in (3, 3, 4)]
    assert models[0] == models[1] != models[2]


@pytest.fixture(scope="module")
def strangers(data: Path) -> dict[str, list[np.ndarray]]:
    """Noise of several grains, black frames with a sensor's noise, and photographs of no taught kind."""
    random = np.random.default_rng(0)
    grouped = {line.split(",")[0] for line in (data / "imagenet-dev" / "groups.csv").read_text().splitlines()}
    others = [path for path in sorted((data / "imagenet-dev").glob("*.jpg")) if path.name not in grouped]
    noise = []
    for size in (1, 4, 16, 40) * 5:
        grains = random.integers(0, 256, (240 // size, 320 // size, 3), dtype=np.uint8)
        noise.append(np.kron(grains, np.ones((size, size, 1), np.uint8)))
    return {
        "noise": noise,
        "black": [random.integers(0, 1 + level, (240, 320, 3)).astype(np.uint8) for level in range(10)],
        "others": [read_still(path) for path in others[::2]],
    }


@pytest.mark.parametrize(
    "only", [(), ("bird", "food", "insect"), ("dog", "cat"), ("fish", "food", "insect", "monkey", "snake")]
)
def test_what_was_never_shown_is_unknown(
    data: Path, tmp_path: Path, fifteen_kinds: Taught, strangers: dict[str, list[np.ndarray]], only: tuple[str, ...]
) -> None:
    one = taught(Request(kinds(data, tmp_path / "kinds", only), holdout=0.25)) if only else fifteen_kinds
    path = tmp_path / "one.tflite"
    path.write_bytes(one.model)
    called = {}
    with Classifier.open(path) as classifier:
        for kind, pictures in strangers.items():
            called[kind] = [int(classifier.scores(picture).argmax()) == one.lesson.rows for picture in pictures]
    assert all(called["black"])
    assert np.mean(called["noise"]) >= 0.8
    assert np.mean(called["others"]) >= 0.75
    assert np.mean([strange for kind in called.values() for strange in kind]) >= 0.8
    known = one.answers.scores[one.held].argmax(axis=1) != one.lesson.rows
    # Of few pictures one more or less is many percent: the share is that of the binomial's lower end.
    assert np.sum(known) >= 0.95 * len(known) - 1.65 * np.sqrt(len(known) * 0.95 * 0.05)
