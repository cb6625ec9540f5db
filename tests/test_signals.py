"""A signal at any moment of a command: no traceback, one document, no half file."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.zoo.server import team_registry

START = "import sys, edge_mnv2.__main__ as m; print('ready', file=sys.stderr, flush=True); m.main()"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMANDS = ("run", "classify", "teach", "build", "pull")


def arguments(command: str, model: Path, data: Path, folder: Path) -> list[str]:
    if command == "run":
        return ["run", "--source", "test", "--model", str(model), "--json", "--log", str(folder / "x.jsonl")]
    if command == "classify":
        return ["classify", "--json", *[str(data / "imagenet-dev")] * 3]
    if command == "teach":
        pictures = iter(sorted((data / "imagenet-dev").glob("*.jpg")))
        for name in ("one", "two"):
            (folder / "lesson" / name).mkdir(parents=True)
            for _ in range(4):
                shutil.copy(next(pictures), folder / "lesson" / name)
        return ["teach", str(folder / "lesson"), "--out", str(folder / "taught.tflite"), "--json"]
    if command == "build":
        return ["build", "--out", str(folder / "built.tflite"), "--json"]
    return ["pull", "--all", "--json"]


def _ended_by(command: str, number: int, delay: float, model: Path, data: Path, folder: Path) -> None:
    words = arguments(command, model, data, folder)
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "EDGE_MNV2_MIRROR": str(data / "models")},
    )
    assert process.stderr is not None and process.stderr.readline() == "ready\n"
    time.sleep(delay)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    what = f"{command} {signal.Signals(number).name} {delay:.2f} s: {process.returncode}\n{out[-300:]}\n{err[-1500:]}"
    assert "Traceback" not in err and "Exception ignored" not in err, what
    document = json.loads(out)
    assert isinstance(document, dict), what
    assert process.returncode == 0 if command == "run" else process.returncode in (130, 0, 4, 7, 8), what
    for path in (*folder.rglob("*"), *Path(os.environ["HOME"]).rglob("*.tflite")):
        assert path.is_dir() or not path.name.endswith(".part") or "cache" in path.parts, what
    for name in ("taught", "built"):
        files = {path.suffix for path in folder.glob(f"{name}.*")}
        assert not files or {".tflite", ".yaml"} <= files or files <= {".tflite", ".json"}, (files, what)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_signals_at_any_moment(command: str, stub: Path, data: Path, tmp_path: Path) -> None:
    chance = random.Random(command)
    for number in SIGNALS:
        folder = tmp_path / str(number)
        folder.mkdir()
        _ended_by(command, number, chance.uniform(0.02, 2.0), stub, data, folder)


# A signal comes in the very moment in which module NAME is looked for.
WHILE_IMPORTING = """
import os, signal, sys
wanted = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Finder())
import edge_mnv2.__main__ as m
m.main()
"""


@pytest.mark.parametrize("module", ["typer", "click.types", "click.parser", "typer.core", "edge_mnv2.cli.command"])
def test_a_signal_while_the_command_line_is_imported(module: str) -> None:
    command = [sys.executable, "-c", WHILE_IMPORTING, module, "run", "--source", "test", "--max-frames", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-1500:]
    assert json.loads(done.stdout)["ended"] == "signal"


def _what_is_done(command: str, data: Path, folder: Path) -> list[str]:
    """A command whose second input fails, which stderr says, and whose others take long."""
    (folder / "bad.jpg").write_bytes(b"this is no picture")
    cat = str(data / "images/cat.bmp")
    if command == "classify":
        return [cat, str(folder / "bad.jpg"), *[cat] * 300]
    if command == "evaluate":
        rows = [f"{file},285\n" for file in (cat, folder / "bad.jpg", *[cat] * 300)]
        (folder / "labels.csv").write_text("".join(["file,class_index\n", *rows]))
        return [str(folder)]
    silent = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: silent.accept()[0].recv(1 << 20), daemon=True).start()
    team_registry(folder, b"never sent", f"http://127.0.0.1:{silent.getsockname()[1]}/slow.tflite", "slow")
    return ["mobilenet_v1_0.25_128_quant", "no-such-model", "slow"]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "number"), list(zip(("classify", "evaluate", "pull"), SIGNALS)))
def test_what_is_done_is_in_the_document(command: str, number: int, data: Path, tmp_path: Path) -> None:
    words = _what_is_done(command, data, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_mnv2", command, "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "EDGE_MNV2_MIRROR": str(data / "models"),
            "EDGE_MNV2_REGISTRY": str(tmp_path / "registry.yaml") if command == "pull" else "",
            "EDGE_MNV2_SIMULATE_INFERENCE_MS": "100",
        },
    )
    assert process.stderr is not None
    said = ""
    while "error: " not in said:
        said += process.stderr.readline()
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in err, err
    document = json.loads(out)
    assert (document["ended"], document["error"]) == ("signal", "interrupted")
    if command == "evaluate":
        assert 1 <= document["images"] < 300 and document["top1"] == 1 and len(document["failed"]) == 1
    else:
        done = document["results"]
        assert done[0].get("file" if command == "classify" else "name") == words[0] and "error" not in done[0]
        assert "error" in done[1] and len(done) < 300


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_sixty_signals(stub: Path, data: Path, tmp_path: Path) -> None:
    for count in range(60):
        folder = tmp_path / str(count)
        folder.mkdir()
        # Not in the very moment in which the handlers are put in place.
        delay = 0.02 + 5 * ((count * 37) % 60) / 60
        _ended_by(COMMANDS[count % 5], SIGNALS[count // 5 % 3], delay, stub, data, folder)


def test_a_signal_meets_a_broken_profile(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no summary then: the run could not have begun."""
    from edge_mnv2.cli import app

    folder = isolated / ".config" / "edge-mnv2" / "devices"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("nonsense: [")
    monkeypatch.setattr("edge_mnv2.cli.app.signals.ignore", lambda: None)
    monkeypatch.setattr(sys, "argv", ["edge-mnv2", "run", "--json"])
    with pytest.raises(SystemExit) as end:
        app.interrupted()
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (6, "") and "mine.yaml" in err and len(err.splitlines()) == 1
