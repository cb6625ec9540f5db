"""A whole profile, without the command line: what is measured, what is judged, what is saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.profiler.session import Request, profile
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.settings.profile import resolve
from edge_mnv2.settings.store import load, user_folder
from edge_mnv2.zoo.resolve import resolve as find_model
from tests.board import trees

_WHOLE = "mobilenet_v2_1.0_224_int8"


def _settings(model: object, device: str = "generic", **runtime: object):
    overrides = {f"runtime.{key}": (value, "command line") for key, value in {"model": str(model), **runtime}.items()}
    return resolve(device, overrides)


def test_each_stage_is_measured_apart(stub: Path) -> None:
    found = profile(Request(_settings(stub, threads=1), seconds=0.4))
    document = found.document()
    assert set(document["stages_ms"]) == {"capture", "preprocess", "inference", "postprocess"}
    for times in (document["model_ms"], document["end_to_end_ms"], *document["stages_ms"].values()):
        assert 0 < times["p50"] <= times["p95"] <= times["p99"]
    inside = sum(document["stages_ms"][name]["p50"] for name in ("preprocess", "inference"))
    assert document["end_to_end_ms"]["p99"] > inside
    assert document["inferences"] == len(found.measurement.model) >= 3
    assert document["frames"] == found.measurement.burst.frames >= 3
    warm_up = document["warm_up"]
    assert warm_up["frames"] >= 3 and warm_up["load_ms"] > 0 and warm_up["first_ms"] > 0
    assert document["cpu"]["ms_per_frame"] > 0 and document["memory"]["peak_rss_mb"] >= document["memory"]["rss_mb"] / 2
    assert document["sweep"] == [] and document["winner"] is None and document["accelerator"] is None
    assert document["expected"] is None, "a colour model has no published figure"


@pytest.mark.slow
def test_several_models_are_swept(stub: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(stub.read_bytes())
    request = Request(_settings(stub, threads=1, workers=1), [str(stub), str(other)], sweep=True, seconds=0.8)
    document = profile(request).document()
    engines = [row for row in document["sweep"] if row["compares"] == "engines"]
    assert {row["model"] for row in engines} == {"colours.tflite", "other.tflite"}
    assert document["winner"]["model"] in ("colours.tflite", "other.tflite")
    assert any("by speed alone" in note for note in document["notes"])
    with pytest.raises(UsageError, match="--sweep"):
        profile(Request(_settings(stub), [str(stub), str(other)]))
    with pytest.raises(ModelError):
        profile(Request(_settings(stub), [str(stub), "nobody's"], sweep=True, seconds=1))


@pytest.mark.slow
def test_saved_again_and_again_it_extends_the_packaged_one(stub: Path, tmp_path: Path) -> None:
    root = trees.pi_4(tmp_path / "pi").root
    for name in ("here", "here", "there"):
        settings = resolve(None, {"runtime.model": (str(stub), "command line")}, root)
        found = profile(Request(settings, save=name, seconds=0.3, root=root))
        assert found.saved == user_folder() / f"{name}.yaml"
        saved = load(name)
        assert saved.extends is not None and saved.extends.value == "raspberry-pi-4"
        assert saved.saved["figures"]["fps"] > 0
    later = resolve(None, {}, root)
    assert later.profile == "there"
    assert later.runtime.model == str(stub.absolute()) and later.runtime.threads == found.measured.setting.threads


def test_heat_and_load_of_an_npu_are_the_boards_own(stub: Path, tmp_path: Path) -> None:
    settings = resolve(None, {"runtime.model": (str(stub), "command line")})
    for build, heat, busy in ((trees.orange_pi_5, 47.2, [68, 7, 0]), (trees.zero_3w, None, None)):
        root = build(tmp_path / build.__name__).root
        health = profile(Request(settings, seconds=0.2, root=root)).document()["health"]
        assert (health["npu_max_temp_c"], health["npu_load"]) == (heat, busy)


@pytest.mark.parametrize("where", ["report", "save"])
def test_files_are_tried_before_anything_is_measured(stub: Path, tmp_path: Path, where: str) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    request = Request(_settings(stub), report=blocked / "out.html", seconds=3600)
    if where == "save":
        user_folder().parent.mkdir(parents=True)
        user_folder().write_text("not a folder")
        request = Request(_settings(stub), save="here", seconds=3600)
    with pytest.raises(UsageError, match=f"--{where}"):
        profile(request)


def _inference_ms() -> float:
    found = find_model(_WHOLE)
    with Classifier.open(found.path) as classifier:
        classifier.warm_up(3)
        return min(classifier.classify(np.zeros((224, 224, 3), np.uint8)).inference_ns for _ in range(5)) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("milliseconds", "board", "verdict", "causes"),
    [
        (14, "pi_4", "as expected", ()),
        (60, "pi_4", "slower", ("governor powersave", "too weak", "threads on")),
        (60, "pi_4_32bit", "slower", ("32-bit",)),
    ],
)
def test_the_verdict_on_a_board_of_this_kind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    milliseconds: int,
    board: str,
    verdict: str,
    causes: tuple[str, ...],
) -> None:
    if _inference_ms() > 12:
        pytest.skip("this machine or its runtime is slower than the simulated board")
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", str(milliseconds))
    tree = getattr(trees, board)(tmp_path)
    if board == "pi_4" and verdict == "slower":
        tree.clock(4, 600_000, "powersave").vcgencmd(throttled="0x50001")
    settings = resolve(None, {"runtime.threads": (1, "command line")}, tmp_path)
    document = profile(Request(settings, seconds=0.8, root=tmp_path)).document()
    expected = document["expected"]
    assert document["settings"]["profile"] == "raspberry-pi-4" and document["settings"]["model"] == _WHOLE
    assert expected["verdict"] == verdict, expected
    assert ("RPi 4" in expected["source"]) and expected["expected_ms"] == (20 if "32" in board else 17)
    told = "; ".join(expected["causes"])
    assert all(cause in told for cause in causes), told
    assert ("slower than other boards of this kind" in expected["text"]) == (verdict == "slower")
    assert any("simulated" in note for note in document["notes"])


@pytest.mark.slow
def test_a_camera_is_asked_for_sizes_and_the_best_is_saved(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mnv2.profiler.sweep.CAMERA_BURST_S", 0.4)
    # A pattern with a rate and no size stands for a camera: it waits for its frames and gives every size.
    request = Request(_settings(stub, threads=1, workers=1), source="test:@30", sweep=True, seconds=0.8, save="here")
    document = profile(request).document()
    sizes = [row for row in document["sweep"] if row["compares"] == "sizes"]
    assert [(row["width"], row["height"]) for row in sizes] == [(640, 480), (1280, 720), (1920, 1080)]
    winner, settings = document["winner"], document["settings"]
    assert (settings["width"], settings["height"]) == (winner["width"], winner["height"])
    assert (winner["width"], winner["height"]) in [(row["width"], row["height"]) for row in sizes]
    camera = resolve("here").camera
    assert (camera.width, camera.height) == (winner["width"], winner["height"])
    stages = document["stages_ms"]
    if stages["inference"]["p50"] < 10:  # a slower runtime has no time to wait
        # With its waiting, a frame would take as long as from one to the next; after a stop of the machine few wait.
        whole = document["end_to_end_ms"]["p50"]
        assert whole < 1000 / 30 and stages["capture"]["p95"] > whole, "waiting is not in end to end"
