"""What contrib/ shows and alerts on is what a run exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.outputs.web.conftest import Served

_CONTRIB = Path(__file__).parents[3] / "contrib"
# Only a board that has the sensor exports these.
_OF_THE_BOARD = {"edge_mnv2_temperature_celsius", "edge_mnv2_throttled"}


@pytest.mark.parametrize("file", ["grafana/edge-mnv2.json", "prometheus/edge-mnv2.rules.yml"])
def test_every_figure_exists(file: str, served: Served) -> None:
    with urllib.request.urlopen(f"{served.url}metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    exported = {sample.name for family in families for sample in family.samples} | {family.name for family in families}
    exported |= {f"{family.name}_total" for family in families if family.type == "counter"}
    used = set(re.findall(r"\b(?:edge_mnv2|process)_[a-z0-9_]+\b", (_CONTRIB / file).read_text()))
    assert used and used - exported - _OF_THE_BOARD == set()


def test_the_dashboard_is_whole() -> None:
    board = json.loads((_CONTRIB / "grafana" / "edge-mnv2.json").read_text())
    places = [panel["gridPos"] for panel in board["panels"]]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert all(target["expr"] for panel in board["panels"] for target in panel["targets"])


def test_the_alerts_fire_when_they_should() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool here (apt-get install prometheus)")
    folder = _CONTRIB / "prometheus"
    for command in (["check", "rules", "edge-mnv2.rules.yml"], ["test", "rules", "edge-mnv2.rules.test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
