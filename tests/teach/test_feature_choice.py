"""Which features and which samples a class head learns from, and that its integers agree with its floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.builder.float_heads import unit_evidence
from edge_mnv2.teach import feature_choice
from edge_mnv2.teach.feature_choice import LeftOut, choose_features, choose_samples, left_out
from edge_mnv2.teach.head_fitting import Taught, answers
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.tflite import graph
from edge_mnv2.tflite.costs import operator_macs
from edge_mnv2.zoo.resolve import resolve
from tests.teach.lessons import OURS, kinds, taught
from tests.teach.made_classes import write_classes

SIMPLE, BOTH = ("embedding",), ("embedding", "evidence")


def test_ridge_regression_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(0)
    values, truth = random.normal(size=(40, 6)), np.arange(40) % 3
    fold = np.arange(0, 40, 5)
    used = np.delete(np.arange(40), fold)
    result = left_out([values @ values.T], np.arange(40), truth, 3, [fold], np.array([0.01]))
    centred = values - values[used].mean(axis=0)
    size = np.mean(np.sum(centred[used] ** 2, axis=1))
    answers_wanted = np.eye(3)[truth]
    # The decay is a mean over pictures, on features of mean square 1: in scikit-learn's units it is a sum.
    reference = Ridge(alpha=0.01 * len(used) * size).fit(centred[used], answers_wanted[used])
    square = np.sum((reference.predict(centred[fold]) - answers_wanted[fold]) ** 2, axis=1)
    assert result.square == pytest.approx(square, abs=1e-6)


def test_the_simpler_choice_stays_unless_the_other_is_clearly_better() -> None:
    right, square = np.ones(50), np.full(50, 0.2)
    simple = LeftOut(right, square, 1e-3)
    noisy = square - np.tile([0.052, -0.048], 25)
    assert not LeftOut(right, noisy, 1e-3).better_than(simple)
    assert LeftOut(right, square - 0.02, 1e-3).better_than(simple)
    assert not LeftOut(right - 0.1, square - 0.02, 1e-3).better_than(simple)


def test_what_says_nothing_is_not_read_and_what_says_all_is() -> None:
    random = np.random.default_rng(1)
    truth = np.repeat(np.arange(4), 8)
    told_apart = np.eye(4)[truth] + random.normal(0, 0.1, (32, 4))
    weak = np.eye(4)[truth] + random.normal(0, 1.5, (32, 4))
    noise = random.normal(size=(32, 40))
    assert choose_features({"embedding": told_apart, "evidence": noise}, [SIMPLE, BOTH], truth, 4)[0] == SIMPLE
    names, _, accuracy = choose_features({"embedding": weak, "evidence": told_apart}, [SIMPLE, BOTH], truth, 4)
    assert names == BOTH and accuracy["embedding+evidence"] > accuracy["embedding"]
    # One picture a class: nothing to choose by.
    single = {"embedding": weak[::8], "evidence": noise[::8]}
    assert choose_features(single, [SIMPLE, BOTH], truth[::8], 4) == (SIMPLE, 1e-3, {})


def test_mirrored_pictures_that_mislead_are_left_out() -> None:
    """Two classes that are each other's mirror image: arrows to the left and to the right."""
    random = np.random.default_rng(2)
    truth = np.arange(40) % 2
    own = np.where(truth[:, None] == 1, 1.0, -1.0) + random.normal(0, 0.6, (40, 1))
    samples = np.concatenate([own, -own], axis=1).reshape(-1, 1)
    picture, mirrored = np.repeat(np.arange(40), 2), np.tile([False, True], 40)
    chosen = choose_samples([samples], picture, truth, 2, mirrored)
    assert np.array_equal(chosen, ~mirrored)
    same = np.repeat(own, 2, axis=0)
    assert choose_samples([same], picture, truth, 2, mirrored).all()


@pytest.mark.slow
def test_a_large_lesson_is_chosen_by_some_of_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(feature_choice, "_products", lambda block: sizes.append(len(block)) or block @ block.T)
    truth = np.arange(2000) % 7
    choose_features({"embedding": np.eye(7)[truth]}, [SIMPLE], truth, 7)
    assert sizes == [300]


@pytest.mark.slow
def test_photographs_read_evidence_and_the_integers_agree(fifteen_kinds: Taught) -> None:
    one = fifteen_kinds
    assert one.settings["features"] == "embedding+evidence"
    codes = one.layer.of(one.lesson.codes[one.lesson.first])
    logits, exact = answers(one.backbone, codes).logits, one.head(one.embeddings)
    assert logits is not None
    assert np.mean(logits.argmax(axis=1) == exact.argmax(axis=1)) >= 0.98
    assert np.abs(logits - exact).mean() < 0.02 * np.ptp(exact)
    contents = resolve(OURS).path.read_bytes(), one.model
    plain, own = (sum(operator_macs(each) or 0 for each in graph.read(content).operators) for content in contents)
    assert own <= 1.01 * plain


@pytest.mark.slow
def test_digits_read_the_embedding_alone(tmp_path: Path) -> None:
    one = taught(LessonRequest(write_classes(tmp_path / "digits", "digits", 6, 3), holdout=0.0))
    assert one.settings["features"] == "embedding" and set(one.settings["left_out_accuracy"]) == {
        "embedding",
        "embedding+evidence",
    }
    assert not [tensor for tensor in one.backbone.graph.tensors if tensor.name == "logits.evidence"]


@pytest.mark.slow
def test_more_known_pictures_cost_rejected_strangers(data: Path, tmp_path: Path) -> None:
    folder = kinds(data, tmp_path / "kinds", ("bird", "food", "insect"))
    few, many = (taught(LessonRequest(folder, known=known, holdout=0.0)) for known in (0.9, 0.99))
    assert few.unknown is not None and many.unknown is not None and few.open_set is not None
    assert few.unknown.threshold > many.unknown.threshold
    curve = few.open_set.curve()
    thresholds, strangers = [point[1] for point in curve], [point[2] for point in curve]
    assert thresholds == sorted(thresholds, reverse=True)
    assert all(one is not None and other is not None and one >= other for one, other in zip(strangers, strangers[1:]))
    unit = unit_evidence(few.unknown.familiarity.evidence, few.embeddings)
    assert np.linalg.norm(unit, axis=1) == pytest.approx(1.0)
