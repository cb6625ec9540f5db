"""Profiles side by side, from the files that the commands write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.profiler.compare import Comparison, render


def profile(board: str, frame_ms: float, **more: Any) -> dict[str, Any]:
    times = {"p50": frame_ms, "p95": frame_ms * 2, "p99": frame_ms * 3}
    settings = {
        "model": "m",
        "runtime": "litert 2",
        "delegate": "xnnpack",
        "threads": 2,
        "workers": 1,
        "source": "test",
    }
    stages = {
        name: {"p50": 0.1, "p95": 0.2, "p99": 0.3} for name in ("capture", "preprocess", "inference", "postprocess")
    }
    return {
        "board": board,
        "settings": {**settings, "source": "test", **more.pop("settings", {})},
        "model_ms": times,
        "stages_ms": stages,
        "end_to_end_ms": times,
        "fps": 1000 / frame_ms,
        "health": {"max_temp_c": None, "throttled": None},
        "energy_mj": None,
        **more,
    }


def written(folder: Path, **documents: Any) -> list[Path]:
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return [folder / f"{name}.json" for name in documents]


def test_boards_and_models_with_accuracy(tmp_path: Path) -> None:
    hot = profile("Pi <4>", 20.0, health={"max_temp_c": 81.5, "throttled": ["throttled"]})
    small = profile("Pi 5", 4.0, settings={"model": "small"}, energy_mj=12.5)
    files = written(
        tmp_path, a=hot, b=small, c={"model": "small", "images": 9, "top1": 0.5}, d={"model": "other", "top1": 0.9}
    )
    comparison = Comparison(files)
    document = comparison.document()
    assert [(row["board"], row["ratio"], row["top1"]) for row in document["profiles"]] == [
        ("Pi <4>", 5.0, None),
        ("Pi 5", 1.0, 0.5),
    ]
    best = str(files[1])
    assert document["best"] == {"latency": best, "throughput": best, "energy": best, "accuracy": best}
    assert document["notes"] == ["other: an accuracy of a model that no profile ran"]
    header, cells = comparison.cells()
    assert header == ["", "MODEL MS", "FRAME MS", "P95", "FPS", "MJ", "°C", "TOP-1", "TIMES"]
    assert cells[0] == ["A", "20.00", "20.00", "40.00", "50.0", "-", "82", "-", "5.00"]
    page = render(comparison)
    assert "Pi &lt;4&gt;" in page and "<4>" not in page
    assert "(throttled: throttled)" in page
    assert page.count("<svg ") == 2


def test_without_accuracy_there_is_no_chart_of_it(tmp_path: Path) -> None:
    page = render(Comparison(written(tmp_path, a=profile("x", 1.0), b=profile("y", 2.0))))
    assert page.count("<svg ") == 1


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ({"a": profile("x", 1.0)}, "two profiles at least, and got 1"),
        ({"a": profile("x", 1.0), "b": {"model": "m"}}, "neither of"),
        ({"a": profile("x", 1.0), "b": [1]}, "neither of"),
    ],
)
def test_files_that_cannot_be_compared(documents: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        Comparison(written(tmp_path, **documents))
    for text in ("{", "[" * 200_000):
        (tmp_path / "text.json").write_text(text)
        with pytest.raises(UsageError, match="no JSON document"):
            Comparison([tmp_path / "text.json"])
    with pytest.raises(UsageError, match="cannot be read"):
        Comparison([tmp_path / "missing.json"])
