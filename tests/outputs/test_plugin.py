"""Sinks of other packages: a real one is installed on the path, with its entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CODE = '''
class Counting:
    """Writes how many results and events came to the file that is its argument."""

    def __init__(self, argument):
        self.path, self.results, self.events = argument, 0, 0
        if argument == "bad":
            raise KeyError("no such conveyor")

    def begin(self, facts, labels):
        self.labels = list(labels)

    def write(self, result):
        self.results += 1
        self.events += len(result.events)

    def announce(self, events):
        self.events += len(events)

    def close(self):
        import json
        with open(self.path, "w") as out:
            json.dump({"results": self.results, "events": self.events, "labels": self.labels}, out)


class Nothing:
    def __init__(self, argument):
        pass


class Failing(Counting):
    def write(self, result):
        raise ZeroDivisionError("conveyor jammed")


class Choosy(Counting):
    asked, unwanted = 0, ()

    def wants(self, result):
        """By their order: a live source drops frames on a busy machine."""
        self.asked += 1
        if self.asked in (4, 5):
            self.unwanted = (*self.unwanted, result.frame.index)
        if self.asked == 4:
            raise SystemExit(3)
        return self.asked != 5

    def write(self, result):
        assert result.frame.index not in self.unwanted
        super().write(result)


class Odd(Counting):
    """Its argument says what happens at the third result, or at the beginning."""

    def __init__(self, argument):
        self.path, _, self.what = argument.partition(":")
        self.results, self.events = 0, 0

    def begin(self, facts, labels):
        self.labels = list(labels)
        if self.what == "begin":
            raise ValueError("belt\\nis off")

    def write(self, result):
        super().write(result)
        if self.results == 3:
            if self.what == "pipe":
                raise BrokenPipeError(32, "Broken pipe")
            if self.what == "exit":
                raise SystemExit(3)
            if self.what == "interrupt":
                raise KeyboardInterrupt
            if self.what == "generator":
                raise GeneratorExit
'''


_CHATTY = """
import sys

print("import")


class Chatty:
    stdout = sys.stdout

    def __init__(self, argument):
        print("init")

    def begin(self, facts, labels):
        print("begin")

    def write(self, result):
        print("write", file=self.stdout)

    def close(self):
        print("close")
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "conveyor_plugin.py").write_text(_CODE)
    (tmp_path / "chatty_plugin.py").write_text(_CHATTY)
    info = tmp_path / "conveyor_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: conveyor-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edge_mnv2.sinks]\ncounting = conveyor_plugin:Counting\nnothing = conveyor_plugin:Nothing\n"
        "failing = conveyor_plugin:Failing\nodd = conveyor_plugin:Odd\nmissing = conveyor_plugin:NotThere\n"
        "chatty = chatty_plugin:Chatty\nchoosy = conveyor_plugin:Choosy\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "conveyor_plugin", raising=False)
    return tmp_path


def test_a_plug_in_gets_everything(run: Callable[..., Any], plugins: Path, stub: Path) -> None:
    out = plugins / "counted.json"
    options = ["--source", "test", "--max-frames", 9, "--appear", "0.01", "--consecutive", 1]
    code, _, err = run("run", "--model", stub, *options, "--sink", f"counting={out}")
    assert code == 0, err
    counted = json.loads(out.read_text())
    assert counted == {"results": 9, "events": 6, "labels": ["red", "green", "blue"]}


def test_what_a_plug_in_raises_in_the_loop_does_not_end_the_run(
    run: Callable[..., Any], plugins: Path, stub: Path
) -> None:
    options = ["--source", "test", "--max-frames", 9, "--json"]
    code, out, err = run("run", "--model", stub, *options, "--sink", f"choosy={plugins / 'x'}")
    summary = json.loads(out)
    assert (code, summary["frames"], summary["ended"]) == (8, 9, "max_frames"), err
    assert summary["write_errors"] >= 1 and err.count("cannot be written") == 1 and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pipe", "exit", "interrupt", "generator", "begin"])
def test_whatever_a_plug_in_raises_is_said_once_and_counted(
    run: Callable[..., Any], plugins: Path, stub: Path, what: str
) -> None:
    """It is asked again a second later, and the run goes on."""
    arguments = ["run", "--model", stub, "--source", "test:64x48@20", "--duration", 2.5, "--json"]
    code, out, err = run(*arguments, "--sink", f"odd={plugins / 'x'}:{what}")
    summary = json.loads(out)
    assert code == 8 and summary["write_errors"] > 0 and summary["ended"] == "duration"
    assert err.count("cannot be written") == 1 and "Traceback" not in err
    assert json.loads((plugins / "x").read_text())["results"] > 4
    assert all(
        line.startswith(("edge-mnv2", "odd")) or "works again" in line for line in err.splitlines() if "belt" in line
    )


def test_a_plug_in_that_fails_does_not_end_the_run(run: Callable[..., Any], plugins: Path, stub: Path) -> None:
    arguments = ["run", "--model", stub, "--source", "test", "--max-frames", 9, "--json"]
    code, out, err = run(*arguments, "--sink", f"failing={plugins / 'x'}", "--sink", f"counting={plugins / 'y'}")
    assert code == 8 and json.loads(out)["frames"] == 9 and err.count("conveyor jammed") == 1
    assert json.loads((plugins / "y").read_text())["results"] == 9


@pytest.mark.parametrize("options", [["--json"], ["--log", "-"]], ids=["summary", "lines"])
def test_what_a_plug_in_prints_does_not_stand_between_results(plugins: Path, stub: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "edge_mnv2", "run", "--model", stub, "--source", "test", "--max-frames", "9"]
    path = os.pathsep.join([str(plugins), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, "--sink", "chatty", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    if "--json" in options:
        assert json.loads(done.stdout)["frames"] == 9
    else:
        frames = [json.loads(line)["frame"] for line in done.stdout.splitlines()]
        # A live source drops frames on a busy machine.
        assert len(frames) == 9 and frames == sorted(set(frames))
    for said in ("import", "init", "begin", "close"):
        assert done.stderr.splitlines().count(said) == 1
    assert done.stderr.splitlines().count("write") == 9


@pytest.mark.parametrize(
    ("sink", "named"),
    [
        ("unknown", "counting, failing"),
        ("counting=bad", "no such conveyor"),
        ("nothing", "write"),
        ("missing", "NotThere"),
    ],
)
def test_plug_ins_that_cannot_be_had(run: Callable[..., Any], plugins: Path, stub: Path, sink: str, named: str) -> None:
    code, out, err = run("run", "--model", stub, "--source", "test", "--max-frames", 1, "--sink", sink)
    assert code == 2 and out == "" and named in err and len(err.splitlines()) == 1
