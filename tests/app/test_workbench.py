"""Teaching from collected pictures beside a run, and taking the new model or a former one."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest

from edge_mnv2.app.board_models import embedder_of, taught_in_place_of
from edge_mnv2.app.workbench import ModelWorkbench
from edge_mnv2.camera.settings import Roi
from edge_mnv2.datasets.collected_picture import projected
from edge_mnv2.datasets.collection import Answer, Collection
from edge_mnv2.errors import EdgeMnv2Error, SourceError, UsageError
from edge_mnv2.pipeline.controls import Controls
from edge_mnv2.runtime import table
from edge_mnv2.runtime.opening import Classifiers, model_spec, open_classifier
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.zoo.model_facts import MovedThreshold
from edge_mnv2.zoo.resolve import resolve
from tests.outputs.web.conftest import Served, serving
from tests.outputs.web.test_workbench import add, ask, photographs
from tests.processes import until
from tests.stubs import colour_model, stub_at

KINDS = ("dog", "bird", "food")
OURS = "mobilenet_v2_1.0_224_int8"


@pytest.fixture
def collected(data: Path, tmp_path: Path) -> Collection:
    """Photographs of three kinds, six of each, answered."""
    collection = Collection(tmp_path / "collected")
    with (data / "imagenet-dev" / "groups.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["group"] in KINDS]
    for kind in KINDS:
        for row in [row for row in rows if row["group"] == kind][:6]:
            jpeg = (data / "imagenet-dev" / row["file"]).read_bytes()
            item = collection.add(jpeg, t="2026-11-29T10:00:00Z", why=["low score"], value=0.5, top=[], model="")
            assert item is not None
            collection.answer([item.id], Answer(kind))
    return collection


class FakeRun:
    """What a workbench needs of a run: a real model that is opened for each switch, and a picture."""

    def __init__(self, frame_ms: Optional[float] = None, usual_ms: float = 1000.0) -> None:
        self.model = "mobilenet_v2_1.0_224_int8"
        self.frame_ms = frame_ms
        self.switched: list[Classifiers] = []
        self.roi: Any = None
        self.controls = Controls()
        self._usual_ms = usual_ms

    def open(self, model: str, options: ModelOptions) -> Classifiers:
        classifier, resolved, notes = open_classifier(model, options)
        return Classifiers([classifier], resolved.name, notes)

    def region(self) -> np.ndarray:
        return np.zeros((240, 320, 3), np.uint8)

    def inference_ms(self) -> float:
        return self._usual_ms

    def objection(self, classifiers: Classifiers) -> str:
        return ""

    def switch(self, classifiers: Classifiers, model: str, forced: bool) -> None:
        self.switched.append(classifiers)

    def set_roi(self, roi: Any) -> None:
        self.roi = roi

    def carry(self, unknown: Optional[MovedThreshold]) -> None:
        self.controls.carry(unknown)


def taught(bench: ModelWorkbench) -> dict[str, Any]:
    bench.teach()
    until(lambda: bench.document()["teaching"]["state"] != "teaching")
    teaching = bench.document()["teaching"]
    assert teaching["state"] == "taught", teaching
    return teaching


def test_a_picture_that_is_tried_is_answered_as_by_the_run_whose_unknown_was_moved(tmp_path: Path) -> None:
    curve = '{"row": 2, "slope": 8.0, "threshold": 0.3, "curve": [[0.9, 0.4], [0.99, 0.1]]}'
    path, run = stub_at(tmp_path, f"[red, green, unknown]\nopen_set: {curve}"), FakeRun()
    _, picture = cv2.imencode(".png", np.full((20, 20, 3), 128, np.uint8))
    run.controls.unknown = model_spec(resolve(str(path))).unknown
    bench = ModelWorkbench(None, str(path), run)
    for known, first in (None, "red"), (0.9, "unknown"), (0.99, "red"):
        run.controls.change(known=known)
        best = bench.classify("grey", picture.tobytes())["top"]
        assert best[0]["label"] == first, (known, best)
    bench.close()


@pytest.mark.slow
def test_answers_become_a_model_that_takes_over_and_can_be_taken_back(
    collected: Collection, run: Callable[..., tuple[int, str, str]]
) -> None:
    command, run = run, FakeRun()
    bench = ModelWorkbench(collected, "mobilenet_v2_1.0_224_int8", run)
    assert bench.document()["can_teach"] and bench.document()["versions"] == []
    teaching = taught(bench)
    assert [row["label"] for row in teaching["report"]["classes"]] == list(KINDS)
    assert teaching["report"]["before"] is None and teaching["report"]["changed"] > 10
    picture = next(path for item in collected.items() if (path := collected.path(item.id))).read_bytes()
    assert bench.classify("one", picture)["top"][0]["label"] not in KINDS
    assert taught_in_place_of(OURS, collected.folder) is None
    assert bench.swap("candidate", False)["taken"]
    assert list(run.switched[-1].classifiers[0].labels)[:3] == list(KINDS)
    home = collected.folder / "taught" / "taught.tflite"
    assert home.is_file() and [row["current"] for row in bench.document()["versions"]] == [True]
    assert bench.classify("one", picture)["top"][0]["label"] in {*KINDS, "unknown"}
    # A second lesson with a new class extends the first.
    fourth = [item.id for item in collected.items()][:3]
    collected.answer(fourth, Answer("hound"))
    report = taught_again(bench, collected)
    assert report["before"] is not None and "hound" in [row["label"] for row in report["classes"]]
    bench.swap("candidate", True)
    assert "hound" in run.switched[-1].classifiers[0].labels
    # The picture to try meets the model in use, whose file has the same name as the one before.
    assert {one["index"] for one in bench.classify("one", picture)["top"]} == set(range(5))
    # The next run over this collection begins with what was taught, unless it asks for another model.
    assert taught_in_place_of(OURS, collected.folder) == str(home) and taught_in_place_of("x", collected.folder) is None
    code, out, err = command("run", "--collect", collected.folder, "--source", "test", "--max-frames", 2, "--json")
    assert code == 0 and json.loads(out)["model"] == "taught.tflite" and "runs in place of" in err
    rows = bench.document()["versions"]
    assert [row["current"] for row in rows] == [False, True]
    assert bench.swap(rows[0]["model"], True)["taken"]
    assert "hound" not in run.switched[-1].classifiers[0].labels
    assert {one["index"] for one in bench.classify("one", picture)["top"]} == set(range(4))
    assert bench.swap("original", True)["taken"] and len(run.switched[-1].classifiers[0].labels) >= 1000
    assert taught_in_place_of(OURS, collected.folder) is None
    assert not any(row["current"] for row in bench.document()["versions"])
    bench.close()
    for classifiers in run.switched:
        classifiers.__exit__()


def taught_again(bench: ModelWorkbench, collected: Collection) -> dict[str, Any]:
    """A picture that was taught as one class cannot be another one: what was answered anew is told, then left out."""
    bench.teach()
    until(lambda: bench.document()["teaching"]["state"] != "teaching")
    failed = bench.document()["teaching"]
    assert failed["state"] == "failed" and "was taught as" in failed["text"]
    data = [item for item in collected.items() if item.answer == Answer("hound")]
    for number, item in enumerate(data):
        path = collected.path(item.id)
        assert path is not None
        jpeg = path.read_bytes() + bytes([number])
        collected.answer([item.id], Answer("dog"))
        new = collected.add(jpeg, t="2026-11-29T10:00:01Z", why=["random"], value=0.5, top=[], model="")
        assert new is not None
        collected.answer([new.id], Answer("hound"))
    return dict(taught(bench)["report"])


@pytest.mark.slow
def test_a_slower_or_worse_model_is_taken_only_when_told_to(collected: Collection) -> None:
    run = FakeRun(usual_ms=0.001)
    bench = ModelWorkbench(collected, "mobilenet_v2_1.0_224_int8", run)
    taught(bench)
    refused = bench.swap("candidate", False)
    assert not refused["taken"] and "ms a picture" in refused["why"] and run.switched == []
    run.frame_ms = 1000.0
    assert bench.swap("candidate", False)["taken"]
    assert bench._teaching.report is not None
    bench._teaching.report = {**bench._teaching.report, "before": 1.0, "after": 0.5}
    assert "less often" in bench.swap("candidate", False)["why"]
    bench.close()
    run.switched[-1].__exit__()


def test_only_models_of_the_list_are_opened(collected: Collection, tmp_path: Path) -> None:
    bench = ModelWorkbench(collected, "mobilenet_v2_1.0_224_int8", FakeRun())
    for name in ("candidate", "version:1", "/etc/passwd", "../x.tflite", "version:x", ""):
        with pytest.raises(UsageError, match="not a model of this board"):
            bench.swap(name, True)


def test_teaching_that_cannot_be_done_says_why_and_can_be_stopped(collected: Collection) -> None:
    bench = ModelWorkbench(collected, "no_such_model", FakeRun())
    bench.teach()
    with pytest.raises(UsageError, match="under way"):
        bench.teach()
    until(lambda: bench.document()["teaching"]["state"] == "failed")
    assert "no_such_model" in bench.document()["teaching"]["text"]
    good = ModelWorkbench(collected, "mobilenet_v2_1.0_224_int8", None)
    good.teach()
    good.cancel()
    until(lambda: good.document()["teaching"]["state"] == "idle")
    assert "as it was" in good.document()["teaching"]["text"]


def test_a_picture_is_tried_as_classify_does(
    collected: Collection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ModelWorkbench(collected, "mobilenet_v2_1.0_224_int8", None)
    result = bench.classify("cat.jpg", (data / "images" / "cat_720p.jpg").read_bytes())
    assert result["file"] == "cat.jpg" and "cat" in result["top"][0]["label"] and result["inference_ms"] > 0
    json.dumps(result)
    # A second network beside a run is open only while somebody tries pictures.
    monkeypatch.setattr("edge_mnv2.app.workbench._IDLE_S", 0.0)
    again = bench.classify("cat.jpg", (data / "images" / "cat_720p.jpg").read_bytes())
    assert again["top"] == result["top"]
    until(lambda: bench._trial == (None, None))
    for sent, said in ((b"no picture", "x is not a picture: it holds text"), (b"", "x is empty")):
        with pytest.raises(SourceError) as caught:
            bench.classify("x", sent)
        assert caught.value.message.startswith(said)
    bench.close()


def test_a_measured_value_is_tried_as_classify_does(data: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    model, picture = Path(__file__).parents[1] / "teach" / "older" / "value.tflite", data / "images" / "cat_720p.jpg"
    code, out, _ = run("classify", "--model", model, picture, "--json")
    bench = ModelWorkbench(None, str(model))
    top = bench.classify("cat.jpg", picture.read_bytes())["top"]
    bench.close()
    assert code == 0 and top == json.loads(out)["results"][0]["top"] and "unit" in top[0]


def test_a_region_is_checked(collected: Collection) -> None:
    run = FakeRun()
    bench = ModelWorkbench(collected, None, run)
    bench.set_roi([0.1, 0.1, 0.5, 0.5])
    assert run.roi == Roi(0.1, 0.1, 0.5, 0.5)
    bench.set_roi(None)
    assert run.roi is None
    for wrong in ([1, 2], "x", [0, 0, 0, 0], {"a": 1}, [0.5, 0, 0.6, 1], [0, 0, 640, 480]):
        with pytest.raises(EdgeMnv2Error, match="roi"):
            bench.set_roi(wrong)


def test_embeddings_know_what_is_alike(data: Path) -> None:
    from edge_mnv2.camera.still import read_still

    embed = embedder_of("mobilenet_v2_1.0_224_int8")
    assert embed is not None
    cat, parrot = (read_still(data / "images" / name) for name in ("cat_720p.jpg", "parrot.jpg"))
    looks = [projected(embed(pixels)) for pixels in (cat, cat[10:, 10:], parrot)]
    assert 1 - looks[0] @ looks[1] < 0.1 < 1 - looks[0] @ looks[2]


@pytest.mark.parametrize("name", ["m.onnx", "m.rknn", "m_edgetpu.tflite"])
def test_a_file_that_shows_no_embedding_is_not_opened_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(table, "open_model", lambda path, **_: opened.append(path))
    (tmp_path / name).write_bytes(b"\x08\x07" * 99)
    assert embedder_of(str(tmp_path / name)) is None and not opened


# Minutes: swaps and kills of a real run.


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
    run = serving(OURS, "--source", "test:320x240@30", "--collect", tmp_path / "collected", "--web", 0)
    with run as served:
        teach(served)
        # How many frames the pattern gives on this machine as it is now, without any swap.
        usual = rate(served, lambda: time.sleep(8))
        assert ask(served, "/api/model", {"model": "candidate", "force": True}, token=None)[1]["taken"]

        def swaps() -> None:
            for _ in range(20):
                for model in ("original", "version:1"):
                    assert ask(served, "/api/model", {"model": model, "force": True}, token=None)[1]["taken"]

        meanwhile = rate(served, swaps)
        summary = json.loads(served.stop()[0])
    assert summary["swaps"] == 41 and summary["write_errors"] == 0
    assert meanwhile >= 0.95 * usual, (meanwhile, usual)


def rate(run: Served, action: Callable[[], None]) -> float:
    """Frames a second that were captured, classified or dropped, while `action` went on."""

    def captured() -> tuple[float, int]:
        state = ask(run, "/api/state", token=None)[1]
        return time.monotonic(), int(state["frames"]) + int(state["dropped"])

    began, before = captured()
    action()
    ended, after = captured()
    return (after - before) / (ended - began)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_killed_at_fifty_moments_the_board_comes_back_with_a_whole_model(data: Path, tmp_path: Path) -> None:
    answered(data, tmp_path / "collected")
    home = tmp_path / "collected" / "taught" / "taught.tflite"
    moments = random.Random(0)
    for turn in range(50):
        model: Any = home if home.is_file() else OURS
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


def test_what_is_taught_does_not_take_the_place_of_a_team_s_model(
    collected: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that came by NAME@latest meanwhile: its versions are listed, and it stays what it is."""
    team = tmp_path / "cup.tflite"
    team.write_bytes(colour_model())
    monkeypatch.setattr("edge_mnv2.app.workbench.latest.fetch", lambda name: None)
    monkeypatch.setattr("edge_mnv2.app.workbench.latest.home_of", lambda name: team)
    bench, own = ModelWorkbench(collected, OURS), collected.folder / "taught" / "taught.tflite"
    candidate = collected.folder / "taught" / "next" / "taught.tflite"
    candidate.parent.mkdir(parents=True)
    candidate.write_bytes(colour_model(height=16, width=16))
    bench._teaching.report = {"before": None, "after": None}
    assert bench.swap("candidate", False)["model"] == "taught.tflite"
    assert taught_in_place_of(OURS, collected.folder) == str(own)
    assert bench.swap("cup@latest", False)["model"] == "cup.tflite"
    # The next run asks for the model that it always did.
    assert taught_in_place_of(OURS, collected.folder) is None
    assert len(bench.document()["versions"]) == 1 and bench.document()["versions"][0]["current"]
    assert bench.swap("candidate", False)["model"] == "taught.tflite" and bench.in_use == str(own)
    assert team.read_bytes() == colour_model() and taught_in_place_of(OURS, collected.folder) == str(own)
    bench.close()


def test_one_newest_model_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is fetched to the same place: what is there is taken before it is another one."""
    steps: list[str] = []

    def fetch(name: str) -> Path:
        steps.append("fetch")
        time.sleep(0.1)
        return stub_at(tmp_path)

    def take(name: str) -> Path:
        steps.append("take")
        return tmp_path / "cup.tflite"

    monkeypatch.setattr("edge_mnv2.app.workbench.latest.fetch", fetch)
    monkeypatch.setattr("edge_mnv2.app.workbench.latest.take", take)
    bench = ModelWorkbench(None, OURS)
    threads = [threading.Thread(target=bench.swap, args=("cup@latest", True)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert steps == ["fetch", "take"] * 3
