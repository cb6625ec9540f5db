"""Fifteen kinds of photographs: accuracy against a reference, float against integers, and what was never shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from edge_mnv2.builder.backbone import Backbone
from edge_mnv2.builder.float_heads import Linear
from edge_mnv2.camera.still import read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.teach.class_head import choose, fit
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.teach.head_fitting import Taught
from edge_mnv2.teach.lesson_document import document
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.teach.open_set import calibrate, evidence_of, noise
from tests.teach.lessons import CORAL, OURS, kinds, taught


@pytest.mark.slow
def test_integers_and_floats_agree(fifteen_kinds: Taught) -> None:
    metrics = document(fifteen_kinds, "kinds.tflite", "", [])["metrics"]
    assert len(fifteen_kinds.held) == 45
    assert metrics["agreement"] >= 0.98
    assert metrics["agreement_with_unknown"] >= 0.95
    # Every class keeps pictures to be taught with.
    lesson = fifteen_kinds.lesson
    assert set(lesson.truth[~lesson.held_out]) == set(range(15))


@pytest.mark.slow
def test_as_good_as_logistic_regression(fifteen_kinds: Taught) -> None:
    from sklearn.linear_model import LogisticRegression

    lesson = fifteen_kinds.lesson
    learn, held = fifteen_kinds.taught, fifteen_kinds.held
    reference = LogisticRegression(max_iter=2000).fit(fifteen_kinds.embeddings[learn], lesson.truth[learn])
    wanted = reference.score(fifteen_kinds.embeddings[held], lesson.truth[held])
    logits = fifteen_kinds.answers.logits
    assert logits is not None
    assert np.mean(logits[held].argmax(axis=1) == lesson.truth[held]) >= wanted - 0.02


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "rmsprop", "adam"])
def test_every_optimizer_learns(fifteen_kinds: Taught, optimizer: str) -> None:
    lesson, learn, held = fifteen_kinds.lesson, fifteen_kinds.taught, fifteen_kinds.held
    truth = lesson.truth.astype(int)
    embeddings = fifteen_kinds.embeddings
    choice = choose(embeddings[learn], truth[learn], 15, optimizer=optimizer)
    head = fit(embeddings[learn], truth[learn], 15, choice, optimizer=optimizer)
    assert np.mean(head(embeddings[held]).argmax(axis=1) == truth[held]) > 0.85


@pytest.mark.slow
def test_same_seed_same_model(data: Path, tmp_path: Path) -> None:
    folder = kinds(data, tmp_path / "pets", only=("cat", "snake", "fish"))
    models = [taught(LessonRequest(folder, seed=seed)).model for seed in (3, 3, 4)]
    assert models[0] == models[1] != models[2]


@pytest.fixture(scope="module")
def strangers(data: Path) -> dict[str, list[np.ndarray]]:
    """Noise of several grains, black frames with a sensor's noise, and photographs of no taught kind."""
    random = np.random.default_rng(0)
    grouped = {line.split(",")[0] for line in (data / "imagenet-dev" / "groups.csv").read_text().splitlines()}
    others = [path for path in sorted((data / "imagenet-dev").glob("*.jpg")) if path.name not in grouped]
    return {
        "noise": [noise(random, grain, 240, 320) for grain in (1, 4, 16, 40) * 5],
        "black": [random.integers(0, 1 + level, (240, 320, 3)).astype(np.uint8) for level in range(10)],
        "others": [read_still(path) for path in others[::2]],
    }


def _called_unknown(one: Taught, path: Path, strangers: dict[str, list[np.ndarray]]) -> dict[str, list[bool]]:
    path.write_bytes(one.model)
    with Classifier.open(path) as classifier:
        return {
            kind: [int(classifier.scores(picture).argmax()) == one.lesson.rows for picture in pictures]
            for kind, pictures in strangers.items()
        }


def _kept(one: Taught) -> np.ndarray:
    return one.answers.scores[one.held].argmax(axis=1) != one.lesson.rows


@pytest.mark.slow
@pytest.mark.parametrize("model", [OURS, *CORAL], ids=["ours", "quant", "ptq"])
def test_what_was_never_shown_is_unknown(
    data: Path, tmp_path: Path, fifteen_kinds: Taught, strangers: dict[str, list[np.ndarray]], model: str
) -> None:
    one = fifteen_kinds
    if model != OURS:
        one = taught(LessonRequest(kinds(data, tmp_path / "kinds"), model=str(data / "models" / model), holdout=0.25))
    called = _called_unknown(one, tmp_path / "one.tflite", strangers)
    assert np.mean(_kept(one)) >= 0.95
    assert all(called["black"]) and np.mean(called["noise"]) >= 0.8
    assert np.mean([strange for kind in called.values() for strange in kind]) >= 0.8
    # At the threshold that keeps just so many: other photographs alone.
    assert one.unknown is not None
    at_95 = np.quantile(one.unknown.familiarity(one.embeddings[one.held]), 0.05)
    with Embedder(one.lesson.backbone) as embedder:
        codes = np.stack([embedder.codes(picture) for picture in strangers["others"]])
    assert np.mean(one.unknown.familiarity(one.layer.real(codes)) < at_95) >= 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    "only", [("bird", "food", "insect"), ("dog", "cat"), ("fish", "food", "insect", "monkey", "snake")]
)
def test_what_was_never_shown_is_unknown_to_few_kinds(
    data: Path, tmp_path: Path, strangers: dict[str, list[np.ndarray]], only: tuple[str, ...]
) -> None:
    one = taught(LessonRequest(kinds(data, tmp_path / "kinds", only), holdout=0.25))
    called = _called_unknown(one, tmp_path / "one.tflite", strangers)
    assert all(called["black"]) and np.mean(called["noise"]) >= 0.8
    assert np.mean(called["others"]) >= 0.75
    assert np.mean([strange for kind in called.values() for strange in kind]) >= 0.8
    known = _kept(one)
    # Of few pictures one more or less is many percent: the share is that of the binomial's lower end.
    assert np.sum(known) >= 0.95 * len(known) - 1.65 * np.sqrt(len(known) * 0.95 * 0.05)


@pytest.mark.slow
def test_a_large_lesson_compares_with_so_many_pictures() -> None:
    """Rows are bounded, every class has some, and those left out in turn are what new pictures are worth."""
    random = np.random.default_rng(0)
    truth = np.repeat([0] * 880 + [1] * 15 + [2] * 5, 2)
    picture = np.repeat(np.arange(900), 2)
    centers = random.normal(size=(3, 1280))
    weights = np.concatenate([centers, random.normal(size=(997, 1280))]) / 1280
    embeddings = centers[truth] + random.normal(size=(1800, 1280)) * 4
    backbone = SimpleNamespace(classes=Linear(weights, np.zeros(1000)))
    evidence = evidence_of(cast(Backbone, backbone), embeddings[::2])
    unknown = calibrate(embeddings, picture, truth, 3, random.normal(size=(9, 1280)) * 4, evidence).rule
    assert len(unknown.familiarity.prototypes) == 600
    new = centers[[0, 1, 2] * 30] + random.normal(size=(90, 1280)) * 4
    assert np.mean(unknown.familiarity(new) >= unknown.threshold) >= 0.9
    assert np.all(unknown.familiarity(random.normal(size=(50, 1280)) * 4) < unknown.threshold)
