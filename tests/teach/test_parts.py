"""The parts of a lesson: intervals, what is held out, near duplicates, imprinting, where a backbone ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.builder.backbone import cut, layers
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.evaluate.metrics import wilson
from edge_mnv2.teach.class_head import imprint, left_out_cosines, unit
from edge_mnv2.teach.guide import Guide
from edge_mnv2.teach.lesson_document import near_duplicates
from edge_mnv2.teach.lesson_request import hold_out, hold_out_values
from edge_mnv2.teach.linear_fit import OPTIMIZERS, make_optimizer
from edge_mnv2.tflite import graph
from tests.stubs import colour_model
from tests.teach.lessons import OURS


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # From Wilson's formula worked out by hand; 0 and all right keep a width, unlike the normal approximation.
    [(9, 10, 0.5958, 0.9821), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962)],
)
def test_interval_of_a_share(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert wilson(0, 0) is None


def test_what_is_held_out() -> None:
    truth = np.repeat([0, 1, 2, 3], [20, 5, 4, 1])
    held = hold_out(truth, 0.25, seed=0)
    assert np.bincount(truth[held], minlength=4).tolist() == [5, 1, 0, 0]
    assert np.array_equal(held, hold_out(truth, 0.25, seed=0))
    assert not np.array_equal(held, hold_out(truth, 0.25, seed=1))
    assert len(hold_out(truth, 0.0, seed=0)) == 0
    assert np.bincount(truth[hold_out(truth, 0.99, seed=0)], minlength=4).tolist() == [19, 4, 0, 0]


def test_held_out_values_lie_between_taught_ones() -> None:
    values = np.random.default_rng(0).permutation(np.linspace(-3, 7, 40))
    held = hold_out_values(values, 0.25, seed=0)
    assert len(held) == 10 and len(set(held.tolist())) == 10
    taught = np.delete(values, held)
    assert taught.min() == -3 and taught.max() == 7
    # One of each stretch of the range.
    assert np.bincount(((values[held] + 3) / 10 * 4.999).astype(int), minlength=5).min() >= 1


def test_near_duplicates_are_pairs_of_held_out_and_taught() -> None:
    hashes = [0b1111, 0b1110, 0xFFFF0000FFFF0000, 0x0000FFFF0000FFFF, 0b0111]
    assert near_duplicates(hashes, np.array([1, 3])) == [(1, 0)]
    assert near_duplicates(hashes, np.array([0, 1, 4])) == []


def test_imprinting_is_the_mean_direction() -> None:
    embeddings = np.array([[3.0, 0, 0], [4.0, 3.0, 0], [0, 0, 2.0]])
    head = imprint(embeddings, np.array([0, 0, 1]), 2, factor=10.0)
    assert head(embeddings).argmax(axis=1).tolist() == [0, 0, 1]
    directions = unit(head.weights)
    assert directions[1] == pytest.approx([0, 0, 1])
    assert directions[0] == pytest.approx(unit(np.array([1 + 0.8, 0.6, 0])))
    cosines, several = left_out_cosines(unit(embeddings), np.array([0, 0, 1]), 2)
    assert several.tolist() == [True, True, False]
    assert cosines[0, 0] == pytest.approx(0.8)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_find_the_bottom_of_a_round_bowl(name: str) -> None:
    step, rate = make_optimizer(name)
    place, bottom = np.array([1.0, -2.0]), np.array([0.3, 0.1])
    for number in range(300):
        place = place + step(place - bottom, rate * 0.5 * (1 + np.cos(np.pi * number / 300)))
    assert place == pytest.approx(bottom, abs=0.02)


def test_an_unknown_optimizer() -> None:
    with pytest.raises(UsageError, match="momentum"):
        make_optimizer("lbfgs")


def test_where_backbones_end(data: Path) -> None:
    sizes = {
        Path(OURS): (1280, 1000),
        data / "models" / "mobilenet_v2_1.0_224_quant.tflite": (1280, 1001),
        data / "models" / "tf2_mobilenet_v2_1.0_224_ptq.tflite": (1280, 1001),
        data / "models" / "mobilenet_v1_0.25_128_quant.tflite": (256, 1001),
        data / "models" / "mobilenet_v2_1.0_224_inat_bird_quant.tflite": (1280, 965),
    }
    for model, (size, classes) in sizes.items():
        content = model.read_bytes()
        backbone = cut(graph.read(content))
        assert backbone.size == size and backbone.classes is not None
        assert backbone.classes.weights.shape == (classes, size)
        # What was cut off is gone from the file too.
        assert len(graph.write(backbone.graph)) < len(content) - classes * size
        places = layers(graph.read(content))
        maps = [graph.read(content).operators[place].outputs[0].shape for place in places]
        assert [shape for shape in maps[:-1] if shape[1] != shape[2] or shape[1] < 4] == []
        assert np.prod(maps[-1]) == size and len(maps) > 2


def test_models_without_an_embedding() -> None:
    with pytest.raises(ModelError, match="a float32 model inside"):
        cut(graph.read(colour_model("float32")))
    model = graph.read(colour_model("uint8"))
    model.main.operators = model.main.operators[1:]
    with pytest.raises(ModelError, match="no global average pool"):
        cut(model)


def test_a_picture_that_goes_while_it_is_learned_from_can_be_taught_anew(tmp_path: Path) -> None:
    (tmp_path / "ok").mkdir()
    guide = Guide(["ok"], 2, tmp_path)
    for number in range(2):
        (tmp_path / "ok" / f"{number}.jpg").touch()
        guide.add("ok", f"{number}.jpg")
    guide.learn(0, 2)
    assert guide.document()["changed"] is False
    assert guide.delete("ok", "1.jpg")
    guide.learn(2, 2)
    guide.offer(["done"])
    assert guide.document()["changed"] is True and guide.taken == {"ok": 1}
    assert guide.press("again") and guide.choice == ("again", None)
    guide.learn(0, 1)
    guide.offer(["done"])
    assert guide.document()["changed"] is False
