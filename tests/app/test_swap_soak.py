"""A run that swaps and is killed: no frame lost, always a whole model with its own labels. Minutes: marked `soak`."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.datasets.collection import Answer, Collection
from edge_mnv2.runtime.opening import open_classifier
from tests.outputs.web.conftest import Served, serving
from tests.outputs.web.test_workbench import add, ask, photographs

DEFAULT = "mobilenet_v2_1.0_224_int8"
KINDS = ("dog", "bird", "food")


def answered(data: Path, folder: Path) -> Collection:
    collection = Collection(folder)
    for kind, paths in photographs(data, KINDS, 6).items():
        for path in paths:
            collection.answer([add(collection, path.read_bytes(), kind)], Answer(kind))
    return collection


def teach(run: Served) -> None:
    assert ask(run, "/api/teach", {}, token=None)[0] == 200
    while ask(run, "/api/workbench", token=None)[1]["teaching"]["state"] == "teaching":
        time.sleep(0.1)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_twenty_swaps_and_twenty_steps_back_lose_no_frame(data: Path, tmp_path: Path) -> None:
    answered(data, tmp_path / "collected")
    run = serving(DEFAULT, "--source", "test:320x240@30", "--collect", tmp_path / "collected", "--web", 0)
    with run as served:
        teach(served)
        assert ask(served, "/api/model", {"model": "candidate", "force": True}, token=None)[1]["taken"]
        for _ in range(20):
            for model in ("original", "version:1"):
                assert ask(served, "/api/model", {"model": model, "force": True}, token=None)[1]["taken"]
        summary = json.loads(served.stop()[0])
    assert summary["swaps"] == 41 and summary["write_errors"] == 0
    # On a busy machine frames are dropped, and counted (the pattern itself leaves out what it is late for).
    captured = summary["frames"] + summary["dropped"]
    assert captured > 0.85 * 30 * summary["duration_s"]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_fifty_moments_the_board_comes_back_with_a_whole_model(data: Path, tmp_path: Path) -> None:
    answered(data, tmp_path / "collected")
    home = tmp_path / "collected" / "taught" / "taught.tflite"
    moments = random.Random(0)
    for turn in range(50):
        model: Any = home if home.is_file() else DEFAULT
        with serving(model, "--source", "test:320x240@30", "--collect", tmp_path / "collected", "--web", 0) as served:
            teach_in_background(served)
            time.sleep(moments.uniform(0.0, 6.0))
            served.process.send_signal(signal.SIGKILL)
        subprocess.run(["pkill", "-f", str(tmp_path / "collected")], check=False)
        if home.is_file():
            with open_classifier(str(home))[0] as classifier:
                assert set(classifier.labels) <= {*KINDS, "unknown"}, turn
        Collection(tmp_path / "collected")


def teach_in_background(run: Served) -> None:
    """Teach, and take the model as soon as it is there; whoever kills the run decides how far that comes."""
    script = (
        "import json,sys,time,urllib.request as u\n"
        "def ask(path, document):\n"
        "    request = u.Request(sys.argv[1].rstrip('/') + path, json.dumps(document).encode(),"
        " {'Content-Type': 'application/json'})\n"
        "    return u.urlopen(request, timeout=20).read()\n"
        "ask('/api/teach', {})\n"
        "while True:\n"
        "    time.sleep(0.05)\n"
        "    try:\n"
        "        ask('/api/model', {'model': 'candidate', 'force': True})\n"
        "    except u.HTTPError:\n"
        "        pass\n"
    )
    subprocess.Popen([sys.executable, "-c", script, run.url], stderr=subprocess.DEVNULL)
