"""A measured value: a dial and a level before real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.builder.float_heads import cell_states
from edge_mnv2.camera.still import read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.model_io import ModelSpec
from edge_mnv2.runtime.prediction import Prediction
from edge_mnv2.teach import value_head
from edge_mnv2.teach.embedding import Layer
from edge_mnv2.teach.lesson import Lesson, learn
from edge_mnv2.teach.lesson_document import document
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.tflite import graph
from tests.teach.gauges import HIGH, LOW, gauges, level, tank
from tests.teach.lessons import CORAL, OURS, taught


@pytest.mark.slow
@pytest.mark.parametrize("model", [OURS, *CORAL], ids=["ours", "quant", "ptq"])
def test_a_dial_is_read(data: Path, tmp_path: Path, dials: Path, model: str) -> None:
    one = taught(LessonRequest(dials, model=model if model == OURS else str(data / "models" / model), unit="bar"))
    metrics = document(one, "dial.tflite", "", [])["metrics"]
    assert len(one.held) == 12
    assert metrics["rmse"] < 0.05 * (HIGH - LOW)
    assert metrics["largest_difference_of_range"] < 0.01
    # The same through the whole model, picture by picture.
    path = tmp_path / "dial.tflite"
    path.write_bytes(one.model)
    main = graph.read(one.model).main
    assert {tensor.dtype for tensor in main.tensors} <= {"int8", "uint8", "int32"}
    with Classifier.open(path, spec=ModelSpec(task="regression")) as classifier:
        for place in one.held:
            picture = one.lesson.paths[place]
            assert picture is not None
            value = float(classifier.scores(read_still(picture))[0])
            assert value == pytest.approx(float(one.answers.scores[place, 0]), abs=0.012 * (HIGH - LOW))


@pytest.mark.slow
@pytest.mark.parametrize("model", [OURS, *CORAL], ids=["ours", "quant", "ptq"])
def test_a_level_is_read(data: Path, tmp_path: Path, model: str) -> None:
    levels = gauges(data, tmp_path / "levels", level)
    one = taught(LessonRequest(levels, model=model if model == OURS else str(data / "models" / model)))
    metrics = document(one, "level.tflite", "", [])["metrics"]
    assert metrics["rmse"] < (0.06 if "ptq" in model else 0.05) * (HIGH - LOW)
    assert metrics["largest_difference_of_range"] < 0.01


@pytest.mark.slow
def test_a_level_behind_glass_is_read(data: Path, tmp_path: Path) -> None:
    """Each photograph shines through, colours differ: cells are in one of two states, and the integers say so too."""
    one = taught(LessonRequest(gauges(data, tmp_path / "tanks", tank), model=OURS))
    metrics = document(one, "tank.tflite", "", [])["metrics"]
    assert one.settings["reads"] == "states of cells"
    assert metrics["rmse"] < 0.04 * (HIGH - LOW) and metrics["largest_difference_of_range"] < 0.01


def test_two_states_are_found_by_what_follows_the_value() -> None:
    """A boundary that moves over the rows of a map, in one of its directions, under other channels' noise."""
    random = np.random.default_rng(0)
    values = np.linspace(0, 8, 40)
    layer = Layer(0, 0, (8, 6, 5), 1.0, 0)
    below = np.arange(8)[None, :, None] >= 8 - values[:, None, None]
    maps = random.normal(0, 3, (40, 8, 6, 5))
    state = np.broadcast_to(below, (40, 8, 6)) * 4.0 + random.normal(0, 0.3, (40, 8, 6))
    maps[..., 0] = state + maps[..., 1]
    flat = maps.reshape(40, -1).astype(np.float32)
    cells = cell_states(value_head.two_states(flat, values, layer), flat).reshape(40, 8, 6)
    # What the second channel adds to the first is taken off again: each cell is clearly one or the other.
    seen = np.abs(cells - np.broadcast_to(below, cells.shape))
    assert min(np.mean(seen < 0.2), np.mean(seen < 0.5)) > 0.95 or np.mean(seen > 0.8) > 0.95
    # Pictures that do not differ, and values without a cell that follows them, make no noise either.
    same = np.tile(flat[:1], (40, 1))
    assert np.isfinite(cell_states(value_head.two_states(same, values, layer), same)).all()


def test_errors_by_part_of_the_range() -> None:
    values, errors = np.arange(20.0), np.repeat([1.0, 2.0, 3.0, 4.0], 5)
    assert value_head.expected_errors(values, errors) == [
        (0.0, 4.5, 1.0), (4.5, 9.5, 2.0), (9.5, 14.5, 3.0), (14.5, 19.0, 4.0)
    ]  # fmt: skip
    assert value_head.expected_errors(values[:4], errors[:4]) == [(0.0, 3.0, 1.0)]
    # Steps, and no part without a width: pictures of one value are in one part.
    assert value_head.expected_errors(np.repeat([0.0, 1.0], [12, 8]), np.repeat([3.0, 4.0], [12, 8])) == [
        (0.0, 0.5, 3.0), (0.5, 1.0, 4.0)
    ]  # fmt: skip
    assert value_head.expected_errors(np.repeat([0.0, 1.0], [1, 30]), np.repeat([0.0, 31**0.5], [1, 30])) == [
        (0.0, 1.0, pytest.approx(30**0.5))
    ]
    parts = value_head.expected_errors(np.arange(40) % 3.0, np.ones(40))
    assert [part[:2] for part in parts] == [(0.0, 0.5), (0.5, 1.5), (1.5, 2.0)]


@pytest.mark.parametrize(
    ("value", "off", "said"),
    [(99.961, 120.0, "99.96 ± 120 W"), (20480.0, 1500.0, "20480 ± 1500 W"), (101325.0, 140.0, "101300 ± 140 W")],
)
def test_people_read_values_written_out(value: float, off: float, said: str) -> None:
    assert Prediction("value", 0, value, "W", off).figure == said


def test_smoothing_is_its_own_transpose() -> None:
    """Averaged weights on a map are the weights on the averaged map."""
    layer = Layer(0, 0, (5, 4, 2), 1.0, 0)
    random = np.random.default_rng(0)
    maps, weights = random.normal(size=(3, 40)), random.normal(size=(1, 40))
    smooth = value_head._smooth(maps, layer, 2)
    np.testing.assert_allclose(smooth @ weights[0], maps @ value_head._smooth(weights, layer, 2)[0])
    assert smooth.std() < 0.5 * maps.std()


@pytest.fixture(scope="module")
def lesson(dials: Path) -> Lesson:
    found, embedder = learn(
        LessonRequest(dials, model=OURS, variations=False), lambda said: None, lambda done, total: None
    )
    embedder.close()
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adagrad", "rmsprop", "adam"])
def test_steps_come_to_where_the_closed_form_is(lesson: Lesson, optimizer: str) -> None:
    layer = next(layer for layer in lesson.layers if layer.size == 14 * 14 * 64)
    embeddings = layer.real(lesson.codes)
    choice = value_head.Choice(layer, smoothing=1, power=3, decay=1e-5, error=0.0)
    closed, stepped = (
        value_head.fit(embeddings, lesson.truth, choice, optimizer=name) for name in ("closed", optimizer)
    )
    assert np.abs(closed(embeddings) - stepped(embeddings)).max() < 0.02 * (HIGH - LOW)


@pytest.mark.slow
def test_the_command_and_evaluate(run, data: Path, tmp_path: Path) -> None:
    folder = gauges(data, tmp_path / "tank", tank, count=24, backgrounds=1)
    out = tmp_path / "tank.tflite"
    code, said, notes = run(
        "teach", folder, "--model", OURS, "--out", out, "--unit", "%", "--json", "--holdout", "0.25"
    )
    assert code == 0, notes
    known = json.loads(said)
    assert known["task"] == "regression" and known["unit"] == "%" and known["held_out"] == 6
    assert known["range"] == {"low": pytest.approx(-10), "high": pytest.approx(110)}
    assert json.loads(out.with_suffix(".json").read_text()) == known
    code, said, _ = run("classify", folder, "--model", out)
    assert code == 0 and "%  value" in said and said.count(" %  value") == 24
    # Each reading says what it may be off by, in its part of the range.
    parts = known["metrics"]["expected_errors"]
    assert [parts[0]["low"], parts[-1]["high"]] == [0, 100] and len(parts) == 4
    assert said.count(" ± ") == 24
    code, said, _ = run("classify", folder, "--model", out, "--json")
    for one in json.loads(said)["results"]:
        (reading,) = one["top"]
        part = next((part for part in parts if reading["score"] <= part["high"]), parts[-1])
        assert reading["error"] == pytest.approx(part["rmse"], abs=1e-5)
    log = tmp_path / "values.jsonl"
    code, _, notes = run("run", "--source", folder, "--model", out, "--every-frame", "--log", log)
    values = [json.loads(line)["top"] for line in log.read_text().splitlines()]
    assert all(top[0]["unit"] == "%" for top in values)
    # Values around and below 0 are answers like any other.
    assert code == 0, notes
    assert len(values) == 24 and all(top[0]["label"] == "value" for top in values)
    code, said, notes = run("evaluate", folder, "--model", out, "--json")
    assert code == 0, notes
    assert json.loads(said)["rmse"] < 6


@pytest.mark.slow
@pytest.mark.parametrize("model", [OURS, *CORAL], ids=["ours", "quant", "ptq"])
@pytest.mark.parametrize(("low", "high"), [(990.0, 1030.0), (7.5, 77.5), (-100.0, -50.0), (1.5, 3.5)])
def test_a_range_that_is_clear_of_zero(data: Path, tmp_path: Path, model: str, low: float, high: float) -> None:
    folder = gauges(data, tmp_path / "tank", level, count=24, backgrounds=1)
    table = folder / "labels.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    table.write_text("file,value\n" + "".join(f"{name},{low + float(v) * (high - low) / 100}\n" for name, v in rows))
    one = taught(LessonRequest(folder, model=model if model == OURS else str(data / "models" / model)))
    metrics = document(one, "tank.tflite", "", [])["metrics"]
    assert metrics["rmse"] < 0.06 * (high - low) and metrics["largest_difference_of_range"] < 0.01
    path = tmp_path / "tank.tflite"
    path.write_bytes(one.model)
    assert {tensor.dtype for tensor in graph.read(one.model).main.tensors} <= {"int8", "uint8", "int32"}
    with Classifier.open(path, spec=ModelSpec(task="regression")) as classifier:
        value = float(classifier.scores(read_still(folder / rows[0][0]))[0])
    assert value == pytest.approx(low + float(rows[0][1]) * (high - low) / 100, abs=0.15 * (high - low))


@pytest.mark.slow
def test_values_in_file_names(run, data: Path, tmp_path: Path) -> None:
    folder = gauges(data, tmp_path / "tank", tank, count=12, backgrounds=1)
    for line in (folder / "labels.csv").read_text().splitlines()[1:]:
        name, value = line.split(",")
        (folder / name).rename(folder / f"{value}_{name}")
    (folder / "labels.csv").unlink()
    out = tmp_path / "tank.tflite"
    code, said, notes = run("teach", folder, "--task", "regression", "--model", OURS, "--out", out, "--json")
    assert code == 0, notes
    assert json.loads(said)["pictures"] == 12 and "few for a measured value" in notes
    (folder / "empty_one.png").write_bytes(next(folder.glob("*.png")).read_bytes())
    other = tmp_path / "other.tflite"
    code, _, notes = run("teach", folder, "--task", "regression", "--model", OURS, "--out", other)
    assert code == 2 and "empty_one.png does not begin with its value" in notes
