"""`--model NAME@latest` from a team's registry on a real HTTP server, and a message that takes a new version."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.app.workbench import ModelWorkbench
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.zoo import latest
from edge_mnv2.zoo.model_facts import OpenSet
from edge_mnv2.zoo.resolve import resolve
from tests.outputs.test_mqtt import Broker, Listener, readable, until
from tests.outputs.web.conftest import serving
from tests.outputs.web.test_workbench import ask
from tests.stubs import colour_model

FIRST, SECOND = colour_model(), colour_model(height=16, width=16)
NAMES = (["red", "green", "blue"], ["rot", "gruen", "blau"])


class Team:
    """A folder that a real web server serves as a registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.url = re.findall(r"http://\S+?/", self.process.stdout.readline())[0] + "registry.yaml"

    def publish(self, content: bytes, labels: list[str], sha256: str = "", more: str = "") -> None:
        digest = sha256 or hashlib.sha256(content).hexdigest()
        (self.folder / "screws.tflite").write_bytes(content)
        (self.folder / "registry.yaml").write_text(
            f"models:\n  screws:\n    sha256: '{digest}'\n    bytes: {len(content)}\n"
            f"    labels: [{', '.join(labels)}]\n    task: classification\n    licence: ours\n{more}"
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    folder = tmp_path / "registry"
    folder.mkdir()
    made = Team(folder)
    monkeypatch.setenv("EDGE_MNV2_REGISTRY", made.url)
    yield made
    made.close()


def begins_with(run: Any, log: Path) -> tuple[list[str], str]:
    """The labels of the model that a short run takes, and what it says."""
    options = ("--source", "test", "--max-frames", 2, "--log", log)
    code, _, err = run("run", "--model", "screws@latest", *options)
    assert code == 0, err
    return sorted(one["label"] for one in json.loads(log.read_text().splitlines()[-1])["top"]), err


def test_the_curve_of_known_comes_with_a_taught_model(run: Any, team: Team, tmp_path: Path) -> None:
    """It stays with a version that is stepped back to, when the registry has forgotten it."""
    log = tmp_path / "log.jsonl"
    curve = '{"row": 2, "slope": 8.0, "threshold": 0.3, "curve": [[0.9, 0.4], [0.99, 0.1]]}'
    team.publish(FIRST, ["red", "green", "unknown"], more=f"    open_set: {curve}\n")
    begins_with(run, log)
    for known in ("0.9", "0.99"):
        code, _, err = run(
            "run", "--model", "screws@latest", "--known", known, "--source", "test", "--max-frames", 1, "--log", log
        )
        assert code == 0, err
    team.publish(SECOND, NAMES[1])
    begins_with(run, log)
    code, _, err = run("run", "--model", "screws@latest", "--known", "0.9", "--source", "test", "--max-frames", 1)
    assert code == 2 and "--known" in err
    assert run("models", "use", "screws@latest@1")[0] == 0
    assert resolve("screws@latest").open_set == OpenSet(2, 8.0, 0.3, ((0.9, 0.4), (0.99, 0.1)))


def test_each_start_takes_what_the_team_has_published(run: Any, team: Team, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    code, _, err = run("run", "--model", "nuts@latest", "--source", "test", "--max-frames", 1)
    assert code != 0 and "screws" not in err
    code, _, err = run("classify", "--model", "screws@latest", "x.jpg")
    assert code == 3 and "fetches it" in err
    team.publish(FIRST, NAMES[0])
    assert begins_with(run, log)[0] == sorted(NAMES[0])
    team.publish(SECOND, NAMES[1])
    labels, err = begins_with(run, log)
    assert labels == sorted(NAMES[1]) and "a new version" in err
    # A file that is not what the registry says, and one that does not open: what is here goes on, and it is said.
    team.publish(FIRST, NAMES[0], sha256="0" * 64)
    labels, err = begins_with(run, log)
    assert labels == sorted(NAMES[1]) and "not the registry's" in err and "goes on" in err
    team.publish(b"\0\0\0\0TFL3 that is no model" * 9, NAMES[0])
    labels, err = begins_with(run, log)
    assert labels == sorted(NAMES[1]) and "goes on" in err
    # The way back: a version that was left is not taken again by itself, the next one is.
    team.publish(SECOND, NAMES[1])
    code, out, _ = run("models", "versions", "screws@latest", "--json")
    assert code == 0 and [one["current"] for one in json.loads(out)["versions"]] == [False, True]
    assert run("models", "use", "screws@latest@1")[0] == 0
    assert begins_with(run, log)[0] == sorted(NAMES[0])
    # Without the server.
    team.close()
    labels, err = begins_with(run, log)
    assert labels == sorted(NAMES[0])


def test_names_lead_nowhere_else() -> None:
    for wrong in ("../x@latest", "a/b@latest", "@latest", ".x@latest", "x", "x@latest@1", "", None):
        assert latest.name_of(wrong) is None
    assert latest.name_of("screws-2026@latest") == "screws-2026"


@pytest.mark.slow
def test_a_message_takes_a_new_version_and_goes_back(
    team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    users = tmp_path / "users"
    program = ["mosquitto_passwd", "-b", "-c", str(users), "board", "secret"]
    subprocess.run(program, check=True, capture_output=True)
    readable(tmp_path)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {users}")
    broker.start()
    team.publish(FIRST, NAMES[0])
    mqtt = f"mqtt://board:secret@127.0.0.1:{broker.port}/lab/cam?discovery=no"
    options = ("--source", "test:320x240@30", "--mqtt", mqtt, "--gpio", "17=red", "--web", 0)
    try:
        with serving("screws@latest", *options) as run:
            listener = Listener(broker.port, "lab/cam/+", user="board", password="secret")
            # From then on it hears orders.
            until(lambda: listener.of("lab/cam/status"))

            def order(text: str) -> dict[str, Any]:
                seen = len(listener.of("lab/cam/model"))
                listener.publish("lab/cam/set/model", text)
                until(lambda: len(listener.of("lab/cam/model")) > seen)
                return dict(listener.of("lab/cam/model")[-1])

            assert "in use" in order("screws@latest")["why"]
            team.publish(SECOND, NAMES[1])
            refused = order("screws@latest")
            assert not refused["taken"] and refused["why"] == "--gpio: class 'red' is not a class of the model"
            forced = order('{"model": "screws@latest", "force": true}')
            assert forced == {"asked": "screws@latest", "taken": True, "model": "screws.tflite"}
            until(lambda: any(one["label"] in NAMES[1] for one in listener.of("lab/cam/state")[-1:]))
            versions = ask(run, "/api/workbench", token=None)[1]["versions"]
            assert [one["current"] for one in versions] == [False, True]
            assert order("version:1")["taken"]
            until(lambda: any(one["label"] in NAMES[0] for one in listener.of("lab/cam/state")[-1:]))
            # Damaged on its way, unknown, nonsense: the run goes on with what it has.
            team.publish(FIRST + b"x", NAMES[0], sha256="1" * 64)
            assert "not the registry's" in order("screws@latest")["why"]
            for text in ("nuts@latest", "/etc/passwd", "../x@latest", "", "{", "x" * 2000, '{"model": 5}'):
                assert order(text)["taken"] is False
            out, said = run.stop()
            listener.close()
    finally:
        broker.kill()
    assert json.loads(out)["swaps"] >= 2 and json.loads(out)["write_errors"] == 0
    assert "asked for the model 'screws@latest', which is taken" in said
    assert "which is not taken: --gpio: class 'red' is not a class of the model" in said
    assert "secret" not in said


@pytest.mark.slow
def test_runs_that_start_at_one_time_take_one_version(team: Team, tmp_path: Path) -> None:
    for content, labels in ((FIRST, NAMES[0]), (SECOND, NAMES[1])):
        team.publish(content, labels)
        command = [sys.executable, "-m", "edge_mnv2", "run", "--model", "screws@latest", "--source", "test"]
        logs = [tmp_path / f"{number}.jsonl" for number in range(3)]
        runs = [
            subprocess.Popen([*command, "--max-frames", "1", "--log", str(log)], stderr=subprocess.PIPE, text=True)
            for log in logs
        ]
        said = [one.communicate()[1] for one in runs]
        assert [one.returncode for one in runs] == [0, 0, 0], said
        assert sum("a new version" in text for text in said) == 1, said
        assert not any("goes on" in text for text in said), said
        last = [json.loads(log.read_text().splitlines()[-1])["top"] for log in logs]
        assert all(sorted(one["label"] for one in top) == sorted(labels) for top in last)


def test_a_former_version_keeps_what_the_registry_said_of_it(run: Any, team: Team, tmp_path: Path) -> None:
    log, background = tmp_path / "log.jsonl", "    background: last\n"
    for content, labels in ((FIRST, NAMES[0][:2]), (SECOND, NAMES[1][:2])):
        team.publish(content, labels, more=background)
        assert begins_with(run, log)[0] == sorted([*labels, "background"])
    assert run("models", "use", "screws@latest@1")[0] == 0
    labels, err = begins_with(run, log)
    assert labels == sorted([*NAMES[0][:2], "background"]) and "not the registry's screws" not in err


def test_review_alone_tries_a_new_version_too(team: Team) -> None:
    bench = ModelWorkbench(None, None)
    team.publish(FIRST, NAMES[0])
    assert bench.swap("screws@latest", force=False)["taken"]
    team.publish(b"\0\0\0\0TFL3 that is no model" * 9, NAMES[0])
    with pytest.raises(EdgeMnv2Error):
        bench.swap("screws@latest", force=False)
    assert latest.home_of("screws").read_bytes() == FIRST
