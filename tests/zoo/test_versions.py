"""Versions of a model: kept, listed, taken back, never half."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_mnv2.errors import ModelError
from edge_mnv2.zoo import versions


def written(folder: Path, number: int) -> Path:
    model = folder / "kiosk.tflite"
    model.with_suffix(".labels.txt").write_text(f"cup {number}\n")
    model.with_suffix(".yaml").write_text("labels: kiosk.labels.txt\n")
    document = {"date": f"2026-11-{number:02}", "pictures": 10 * number, "metrics": {"top1": number / 100}}
    model.with_suffix(".json").write_text(json.dumps(document))
    model.write_bytes(b"model" + bytes([number]))
    return model


def test_what_was_there_is_listed_and_comes_back_with_its_labels(tmp_path: Path) -> None:
    for number in range(1, 4):
        versions.keep(tmp_path / "kiosk.tflite")
        model = written(tmp_path, number)
    rows = versions.versions(model)
    assert [(row.number, row.pictures, row.accuracy, row.current) for row in rows] == [
        (1, 10, 0.01, False),
        (2, 20, 0.02, False),
        (3, 30, 0.03, True),
    ]
    back = versions.use(model, 1)
    assert back.current and back.number == 1
    assert model.read_bytes() == b"model\x01" and model.with_suffix(".labels.txt").read_text() == "cup 1\n"
    assert [row.current for row in versions.versions(model)] == [True, False, False]
    assert versions.use(model, 3).number == 3 and model.read_bytes() == b"model\x03"
    assert versions.use(model, 3).current


def test_the_oldest_go_and_the_one_in_use_stays(tmp_path: Path) -> None:
    for number in range(1, 10):
        model = written(tmp_path, number)
        versions.keep(model)
    assert [row.number for row in versions.versions(model)] == [5, 6, 7, 8, 9]
    versions.use(model, 5)
    written(tmp_path, 10)
    versions.keep(model)
    rows = versions.versions(model)
    assert len(rows) == versions.KEEP and rows[-1].current


def test_a_model_without_history_and_one_that_is_none(tmp_path: Path) -> None:
    model = tmp_path / "plain.tflite"
    model.write_bytes(b"x")
    assert [(row.number, row.accuracy, row.current) for row in versions.versions(model)] == [(1, None, True)]
    with pytest.raises(ModelError, match="no version 7"):
        versions.use(model, 7)
    for ask in (versions.versions, lambda path: versions.use(path, 1)):
        with pytest.raises(ModelError, match=r"none\.tflite: no such file"):
            ask(tmp_path / "none.tflite")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(ModelError, match="not a model file"):
        versions.versions(tmp_path / "folder.tflite")


@pytest.mark.slow
def test_killed_at_any_moment_a_model_has_its_own_labels(tmp_path: Path) -> None:
    for number in range(1, 4):
        model = written(tmp_path, number)
        versions.keep(model)
    code = (
        "import sys, itertools; from pathlib import Path; from edge_mnv2.zoo import versions\n"
        "print('ready', flush=True)\n"
        "for number in itertools.cycle((1, 2, 3)): versions.use(Path(sys.argv[1]), number)\n"
    )
    for turn in range(12):
        child = subprocess.Popen([sys.executable, "-c", code, str(model)], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(0.01 + 0.007 * turn)
        child.send_signal(signal.SIGKILL)
        child.wait()
        rows = versions.versions(model)
        assert len(rows) == 3
        again = versions.use(model, rows[0].number if not rows[0].current else rows[1].number)
        number = model.read_bytes()[-1]
        assert model.with_suffix(".labels.txt").read_text() == f"cup {number}\n" and again.current
