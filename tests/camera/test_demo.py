"""The demo's clip: what a person reads while it runs is in the picture."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edge_mnv2 import run
from edge_mnv2.camera.open import open_source
from edge_mnv2.paths import packaged
from edge_mnv2.zoo import registry
from edge_mnv2.zoo.pull import pull


def labels() -> dict[int, set[str]]:
    """Second → what is in the picture, by hand."""
    with packaged("models", "demo.labels.csv").open(newline="", encoding="utf-8") as handle:
        return {int(row["second"]): set(row["labels"].split("|")) for row in csv.DictReader(handle)}


def test_it_needs_no_network_and_every_second_is_labelled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_MNV2_CACHE_DIR", str(tmp_path))
    assert pull(registry.load().get("demo")).source == "package"
    assert (tmp_path / "models/demo.mp4").is_file()
    with open_source("demo") as source:
        positions = []
        while (frame := source.read()) is not None:
            positions.append(frame.position_ns)
    assert {position // 10**9 for position in positions} == set(labels())


@pytest.mark.slow
def test_most_seconds_name_what_is_there() -> None:
    """With the default settings: 60 % of the seconds at least are right, 10 % at most are wrong."""
    there = labels()
    named: dict[int, str] = {}
    for result in run(source="demo", every_frame=True):
        named[result.frame.index // 25] = result.shown[0].label if result.shown else ""
    assert set(named) == set(there)
    right = [second for second, label in named.items() if label in there[second]]
    wrong = [second for second, label in named.items() if label and label not in there[second]]
    assert len(right) >= 0.6 * len(there) and len(wrong) <= 0.1 * len(there), named
