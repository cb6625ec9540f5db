"""Charts: sound XML whatever the figures are."""

from __future__ import annotations

import math
import random
import xml.etree.ElementTree as ElementTree

import pytest

from edge_mnv2.evaluate import metrics
from edge_mnv2.evaluate.metrics import Answer
from edge_mnv2.svg_chart import reliability, scatter

SPACE = "{http://www.w3.org/2000/svg}"


def parse(fragment: str) -> ElementTree.Element:
    return ElementTree.fromstring(fragment.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        ([], []),
        ([0.0], [0.0]),
        ([5.0], [5.0]),
        ([-3.0, 8.4], [-2.0, 9.0]),
        ([1e30, 2e30], [1e30, 3e30]),
        ([1e-7, 2e-7], [1e-7, 5e-7]),
        ([1.0, 2.0], [math.nan, math.inf]),
        ([1000.001, 1000.002], [1000.001, 1000.003]),
    ],
)
def test_every_point_lies_inside_the_frame(truth: list[float], predicted: list[float]) -> None:
    root = parse(scatter(truth, predicted, "mm"))
    points = [(float(point.get("cx", "nan")), float(point.get("cy", "nan"))) for point in root.iter(f"{SPACE}circle")]
    assert len(points) == sum(map(math.isfinite, predicted))
    for x, y in points:
        assert 60 <= x <= 360 and 0 <= y <= 300


def test_the_bars_are_the_bins() -> None:
    chance = random.Random(3)
    answers = [Answer(0, 0, chance.randrange(2), chance.random()) for _ in range(40)]
    _, bins = metrics.calibration(answers)
    rows = [vars(entry) for entry in bins]
    bars = list(parse(reliability(rows)).iter(f"{SPACE}rect"))
    assert len(bars) == sum(entry.images > 0 for entry in bins)
    assert all(0 <= float(bar.get("y", "nan")) <= 300 for bar in bars)
