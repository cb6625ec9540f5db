"""Pictures that a run keeps for a person: by which model's eyes they are compared."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.outputs.collect import CollectSink
from edge_mnv2.outputs.sink import DRAIN_S, Isolated
from edge_mnv2.runtime.classifier import Prediction
from tests.outputs.results import result
from tests.outputs.test_rotation import small_disk, unmount


def test_a_model_that_takes_over_while_the_embedder_opens_gets_its_own(tmp_path: Path) -> None:
    sink = CollectSink(str(tmp_path))
    used: list[str] = []

    def embedder(name: str, meanwhile: bool = False) -> object:
        def embed(pixels: np.ndarray) -> np.ndarray:
            used.append(name)
            return np.random.default_rng(len(used)).standard_normal(8).astype(np.float32)

        if meanwhile:
            sink.use("b", lambda: embedder("b"))
        return embed

    sink.use("a", lambda: embedder("a", meanwhile=True))
    for number in range(3):
        unsure = result(number, ranked=(Prediction("cup", 1, 0.3), Prediction("lynx", 2, 0.29)))
        sink.next_at = 0.0
        assert sink.wants(unsure)
        sink.write(unsure)
    assert used == ["a", "b", "b"]


def test_the_embedding_that_an_answer_brings_needs_no_second_network(tmp_path: Path) -> None:
    sink, random = CollectSink(str(tmp_path)), np.random.default_rng(0)
    sink.use("a", lambda: pytest.fail("a second network"))
    seen = random.standard_normal((2, 40)).astype(np.float32)
    # Two scenes, and the second one once more.
    for number, embedding in enumerate((seen[0], seen[1], seen[1] * 1.01)):
        unsure = result(number, ranked=(Prediction("cup", 1, 0.3),), embedding=embedding)
        sink.next_at = 0.0
        assert sink.wants(unsure)
        sink.write(unsure)
    looks = [item.look for item in sink.collection.items()]
    assert len(looks) == 2 and all(look is not None for look in looks)


def test_a_picture_is_of_the_model_that_was_unsure_of_it(tmp_path: Path) -> None:
    sink = CollectSink(str(tmp_path))
    unsure = result(0, ranked=(Prediction("cup", 1, 0.3), Prediction("lynx", 2, 0.29)))
    sink.use("a", lambda: None)
    assert sink.wants(unsure)
    sink.use("b", lambda: None)
    sink.write(unsure)
    assert [item.model for item in sink.collection.items()] == ["a"]


@pytest.mark.slow
def test_a_run_that_ends_while_the_embedder_opens_loses_no_picture(tmp_path: Path) -> None:
    sink = CollectSink(str(tmp_path))

    def slowly() -> object:
        time.sleep(DRAIN_S + 1)
        return lambda pixels: np.ones(8, np.float32)

    sink.use("a", slowly)
    output = Isolated(sink)
    output.write(result(0, ranked=(Prediction("cup", 1, 0.3), Prediction("lynx", 2, 0.29))))
    output.close()
    assert output.errors == 0 and len(sink.collection.items()) == 1


@pytest.mark.slow
def test_a_signal_does_not_wait_for_the_embedder(
    run: Callable[..., tuple[int, str, str]], stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop takes five seconds at most; a picture for which there is no time is none that an output has lost."""
    opening, ended = threading.Event(), threading.Event()

    def slowly(_model: str) -> None:
        opening.set()
        ended.wait(60)

    def stop() -> None:
        if opening.wait(60):
            os.kill(os.getpid(), signal.SIGTERM)

    # As with a runtime whose answers bring no embedding.
    monkeypatch.setattr("edge_mnv2.runtime.interpreter.with_pool_output", lambda _path: None)
    monkeypatch.setattr("edge_mnv2.app.board_models.embedder_of", slowly)
    monkeypatch.setattr(CollectSink, "patience_s", 40.0)
    threading.Thread(target=stop, daemon=True).start()
    began = time.monotonic()
    code, out, _ = run("run", "--model", stub, "--source", "test:64x48@30", "--collect", tmp_path / "c", "--json")
    ended.set()
    summary = json.loads(out)
    assert time.monotonic() - began < 30
    assert (code, summary["ended"], summary["write_errors"], summary["collected"]) == (0, "signal", 0, 0)


def collected(sink: CollectSink, number: int, scene: int) -> list[str]:
    """What is collected after a result of that scene: labels, oldest first."""
    embedding = np.random.default_rng(scene).standard_normal(40).astype(np.float32)
    unsure = result(number, ranked=(Prediction(f"cup {scene}", 1, 0.3),), embedding=embedding)
    sink.next_at = 0.0
    assert sink.wants(unsure)
    sink.write(unsure)
    return [item.top[0]["label"] for item in sink.collection.items()]


@pytest.mark.parametrize("gone", ["", "pictures", "index.jsonl", ".lock"])
def test_a_folder_that_is_removed_is_made_anew(gone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "new" / "c"
    sink = CollectSink(str(folder))
    assert collected(sink, 0, 0) == ["cup 0"]
    if (folder / gone).is_file():
        (folder / gone).unlink()
    else:
        shutil.rmtree(folder / gone)
    index_gone = gone in ("", "index.jsonl")
    assert len(sink.collection.items()) == (0 if index_gone else 1)
    if not gone:
        folder.parent.rmdir()
    # Where nothing is left, the same scene is new again.
    scene = 0 if index_gone else 1
    assert collected(sink, 1, scene)[-1] == f"cup {scene}"
    assert collected(sink, 2, 2)[-1] == "cup 2"
    assert caplog.text.count("is made anew") == 1 and str(folder) in caplog.text
    assert "cup 2" in [one["label"] for item in CollectSink(str(folder)).collection.items() for one in item.top]


def test_what_cannot_be_made_anew_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    sink = CollectSink(str(folder))
    shutil.rmtree(folder)
    folder.write_text("somebody's file")
    with pytest.raises(OSError, match="c"):
        collected(sink, 0, 0)
    folder.unlink()
    assert collected(sink, 1, 0) == ["cup 0"]


@pytest.mark.parametrize("inside", ["", "c"])
def test_nothing_is_put_where_a_disk_was(inside: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def plug_in() -> None:
        subprocess.run(["mount", "--bind", disk, place], check=True)

    with small_disk(tmp_path / "disk") as disk:
        plug_in()
        try:
            sink = CollectSink(str(place / inside))
            assert collected(sink, 0, 0) == ["cup 0"]
        finally:
            unmount(place)
        with pytest.raises(OSError, match=f"the disk of {place} is not there"):
            collected(sink, 1, 1)
        assert list(place.iterdir()) == []
        plug_in()
        try:
            assert collected(sink, 2, 2) == ["cup 0", "cup 2"]
        finally:
            unmount(place)
    assert "made anew" not in caplog.text
