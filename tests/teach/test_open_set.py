"""Where "unknown" begins: the rule's threshold, its curve, and `--known` for a model that is taught already."""

from __future__ import annotations

import ast
import inspect
import json
import platform
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Optional

import numpy as np
import pytest
import yaml

from edge_mnv2.builder.float_heads import Familiarity, Unknown
from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import model_spec
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.teach import feature_choice, open_set, value_head
from edge_mnv2.teach.linear_fit import gram
from edge_mnv2.zoo.model_facts import OpenSet
from edge_mnv2.zoo.resolve import resolve
from edge_mnv2.zoo.sidecar import read_sidecar
from tests.teach.lessons import OURS, imprinting
from tests.teach.made_classes import TEXTURES, texture, write_classes

Run = Callable[..., "tuple[int, str, str]"]


@pytest.mark.parametrize("pictures", [30, 50, 100, 200])
def test_of_new_pictures_the_meant_share_stays_known(pictures: int) -> None:
    """Whatever the similarities are distributed like: 0.95 in the mean, and hardly ever less than 0.90."""
    random = np.random.default_rng(pictures)
    stay = []
    for _ in range(300):
        left_out = np.tile(random.beta(6, 2, pictures), open_set._REPEATS)
        threshold = open_set._threshold(left_out, 0.95, 0.12)
        stay.append(float(np.mean(random.beta(6, 2, 2000) >= threshold)))
    assert 0.94 <= np.mean(stay) <= (0.965 if pictures >= 100 else 0.975)
    assert np.mean(np.array(stay) < 0.895) <= 0.03


def test_more_shall_stay_known_and_the_threshold_falls() -> None:
    left_out = np.random.default_rng(0).beta(6, 2, 400)
    thresholds = [open_set._threshold(left_out, share, 0.12) for share in (0.8, 0.9, 0.95, 0.98, 0.995)]
    assert thresholds == sorted(thresholds, reverse=True) and len(set(thresholds)) == 5
    assert open_set._threshold(np.zeros(0), 0.95, 0.12) == 0.12


@pytest.mark.parametrize(("similar", "points"), [((6, 2), len(open_set._CURVE)), ((1.5, 6), None), ((1, 40), 2)])
def test_the_curve_claims_no_share_that_the_lowest_threshold_does_not_reach(
    similar: tuple[float, float], points: Optional[int]
) -> None:
    left_out = np.random.default_rng(0).beta(*similar, 400)
    rule = Unknown(Familiarity(None, np.zeros((1, 1))), 0.12, 50.0)
    curve = open_set.Calibrated(rule, left_out, np.zeros(0), 0.02, 0.12).curve()
    assert len(curve) == points if points else 2 < len(curve) < len(open_set._CURVE)
    thresholds = [threshold for _, threshold, _ in curve]
    assert thresholds == sorted(thresholds, reverse=True) and (len(set(thresholds)) == len(curve) or points == 2)


@pytest.mark.parametrize("similarity", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("pictures", [1, 7, 100])
def test_pictures_that_are_all_alike_have_a_threshold(similarity: float, pictures: int) -> None:
    threshold = open_set._threshold(np.full(pictures * open_set._REPEATS, similarity), 0.95, 0.02)
    assert 0.02 <= threshold <= max(similarity, open_set._LEAST)


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of five textures, ten pictures each."""
    from edge_mnv2.teach.lesson_request import LessonRequest
    from edge_mnv2.teach.teach_run import run as teach

    folder = write_classes(tmp_path_factory.mktemp("textures"), "textures", 10, 3)
    for name in TEXTURES[5:]:
        for picture in (folder / name).iterdir():
            picture.unlink()
        (folder / name).rmdir()
    out = tmp_path_factory.mktemp("model") / "textures.tflite"
    request = LessonRequest(folder, out, model=OURS, variations=False)
    teach(request, lambda said: None, lambda done, total: None)
    return out


@pytest.mark.slow
def test_run_moves_the_threshold_without_teaching(textures: Path) -> None:
    """The share of new pictures that stay known follows `--known`, and the other classes keep their order."""
    resolved = resolve(str(textures))
    assert resolved.open_set is not None and resolved.open_set.row == 5
    assert resolved.open_set.factor(0.95) == pytest.approx(1, rel=1e-4)
    new = [texture(TEXTURES[at % 5], np.random.default_rng((9, at))) for at in range(60)]
    stay, orders = [], []
    for known in (0.8, None, 0.95, 0.99):
        spec = model_spec(resolved, ModelOptions(known=known))
        with Classifier.open(textures, spec=spec) as classifier:
            scores = np.stack([classifier.scores(picture) for picture in new])
        assert np.allclose(scores.sum(axis=1), 1, atol=0.02)
        stay.append(float(np.mean(scores.argmax(axis=1) != 5)))
        orders.append(scores[:, :5].argmax(axis=1))
    assert stay[0] < stay[1] == stay[2] <= stay[3], stay
    assert all((order == orders[0]).all() for order in orders)


@pytest.mark.slow
def test_the_command_takes_it(run: Run, textures: Path, data: Path, tmp_path: Path) -> None:
    cat = data / "images" / "cat.bmp"
    scores = []
    for known in ("0.8", "0.99"):
        code, out, err = run("classify", cat, "--model", textures, "--known", known, "--json")
        assert code == 0, err
        top = json.loads(out)["results"][0]["top"]
        scores.append(next(one["score"] for one in top if one["label"] == "unknown"))
    assert scores[0] >= scores[1]
    code, _, err = run("run", "--source", cat, "--model", textures, "--known", "0.9", "--max-frames", "1")
    assert code == 0, err
    for wrong in ("0.5", "1", "much"):
        code, _, err = run("run", "--source", "test", "--model", textures, "--known", wrong)
        assert code == 2 and "--known" in err, err
    code, _, err = run("classify", cat, "--known", "0.9")
    assert code == 2 and "does not say where its 'unknown' begins" in err
    # One picture a class: nothing could be left out, there is no curve to go along.
    single = tmp_path / "single.tflite"
    folder = imprinting(data, tmp_path / "pets")
    for place in folder.iterdir():
        for picture in sorted(place.iterdir())[1:]:
            picture.unlink()
    assert run("teach", folder, "--model", OURS, "--out", single, "--holdout", "0")[0] == 0
    code, _, err = run("classify", cat, "--model", single, "--known", "0.9")
    assert code == 2 and "--known 0.9" in err


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"row": 5, "slope": 20, "threshold": 0.3, "curve": [[0.9, 0.4]]}, "curve"),
        ({"row": 5, "slope": 20, "threshold": 0.3, "curve": [[0.95, 0.3], [0.9, 0.4]]}, "curve"),
        ({"row": 5, "slope": 20, "threshold": 0.3, "curve": [[0.9, "x"], [0.95, 0.3]]}, "curve"),
        ({"row": 5, "curve": [[0.9, 0.4], [0.95, 0.3]]}, "missing"),
        ({"row": -1, "slope": 20, "threshold": 0.3, "curve": [[0.9, 0.4], [0.95, 0.3]]}, "row"),
        ("yes", "open_set"),
    ],
)
def test_a_wrong_sidecar_is_one_sentence(tmp_path: Path, said: object, complaint: str) -> None:
    path = tmp_path / "model.tflite"
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"open_set": said}))
    with pytest.raises(ModelError, match=complaint):
        read_sidecar(path)


def test_between_the_points_of_the_curve_and_beyond_them() -> None:
    rule = OpenSet(3, 10.0, 0.3, ((0.9, 0.4), (0.95, 0.3), (0.99, 0.1)))
    assert rule.factor(0.925) == pytest.approx(np.exp(0.5))
    assert rule.factor(0.5) == pytest.approx(np.exp(1.0)) and rule.factor(0.999) == pytest.approx(np.exp(-2.0))


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_products_of_rows_among_themselves(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    rows = np.random.default_rng(0).standard_normal((300, 70)).astype(np.float32)
    for each in (rows, rows.T):
        assert gram(each).dtype == np.float32
        assert gram(each) == pytest.approx(np.einsum("ij,kj->ik", each, each), abs=1e-3)


@pytest.mark.parametrize("module", [feature_choice, open_set, value_head])
def test_no_matrix_is_multiplied_with_its_own_transpose_but_by_gram(module: ModuleType) -> None:
    """numpy leaves it to a routine that is wrong in float32 on some Arm processors: NaN, or quietly other values."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            sides = [ast.unparse(side) for side in (node.left, node.right)]
            assert sides[0] != f"{sides[1]}.T" and sides[1] != f"{sides[0]}.T", ast.unparse(node)
