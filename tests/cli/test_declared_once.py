"""What is declared once is known everywhere: settings, a runtime's row, options on both sides of a command."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_mnv2.cli.app import COMMANDS
from edge_mnv2.runtime import table
from edge_mnv2.settings.schema import OPTIONS
from tests.processes import edge_mnv2

Run = Callable[..., "tuple[int, str, str]"]
PACKAGE = Path(__file__).parents[2] / "edge_mnv2"

ABACUS = '''
"""A runtime of somebody's package: one file. It counts on LiteRT's fingers."""

import dataclasses

from edge_mnv2.cli.app import COMMANDS
from edge_mnv2.runtime import table

ROW = table.Runtime("abacus", "abacus_runtime", "abacus_runtime", ("abacus",), (".tflite",), devices=("/dev/abacus0",))


def open_model(row, path, **how):
    return table.row("litert").open(path, **how)
'''


@pytest.fixture(params=["installed package", "row"])
def abacus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "abacus_runtime.py").write_text(ABACUS)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "abacus_runtime", raising=False)
    if request.param == "row":
        from abacus_runtime import ROW

        monkeypatch.setattr(table, "TABLE", (*table.TABLE, ROW))
    else:
        (folder / "abacus-1.0.dist-info").mkdir()
        (folder / "abacus-1.0.dist-info/entry_points.txt").write_text(f"[{table.GROUP}]\nabacus = abacus_runtime:ROW\n")
    yield tmp_path


def test_a_runtime_is_one_file_and_one_row(
    run: Run, abacus: Path, stub: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run("run", "--help")
    assert code == 0 and re.search(r"--runtime auto\|litert\|.*\|abacus", out)
    options = ["run", "--model", stub, "--source", "test", "--max-frames", 2, "--json"]
    assert run(*options, "--runtime", "abacus")[0] == 0
    code, _, err = run(*options, "--runtime", "abacuss")
    assert code == 2 and "--runtime: 'abacuss' is not one of auto, litert" in err and "abacus" in err
    profile = abacus / "board.yaml"
    profile.write_text("extends: base\nruntime: {backend: abacus}\n")
    assert run(*options, "--device", profile)[0] == 0
    monkeypatch.setenv("EDGE_MNV2_RUNTIME", "abacus")
    assert run(*options)[0] == 0
    monkeypatch.delenv("EDGE_MNV2_RUNTIME")
    folder = isolated / ".config/edge-mnv2"
    folder.mkdir(parents=True)
    (folder / "environment").write_text("EDGE_MNV2_RUNTIME=abacus\n")
    code, out, err = run("service", "install", "--dry-run", "--source", "test", "--model", stub)
    assert code == 0, err
    assert os.geteuid() != 0 or "DeviceAllow=/dev/abacus0 rw" in out


FIVE = {
    # option: (its range as it stands in the declaration, how its default stands there)
    "threads": ("Whole(1, 256", 'threads: Union[int, str] = setting("auto"'),
    "appear": ('0.5, Number(0, 1, above=True), "Score at which', "appear: float = setting(0.5"),
    "top-k": ("Whole(1, 100000)", "top_k: int = setting(5"),
    "resize": ('Choice("crop", "stretch", "letterbox")', 'resize: str = setting(\n        "crop"'),
    "rotate": ("Choice(0, 90, 180, 270)", "rotate: int = setting(0"),
}


@pytest.mark.parametrize("name", FIVE)
def test_default_range_and_help_of_a_setting_stand_once(name: str) -> None:
    sources = {path: re.sub(r"\s+", " ", path.read_text()) for path in PACKAGE.rglob("*.py")}
    for words in (OPTIONS[name].help, *FIVE[name]):
        flat = re.sub(r"\s+", " ", words)
        places = {path.name: text.count(flat) for path, text in sources.items() if flat in text}
        assert places == {"schema.py": 1}, (words, places)
    # No command declares an option of that name anew.
    anew = [path.name for path in sources if f'option("{name}"' in sources[path] and path.name != "train.py"]
    assert anew == [], "train's threads are torch's"


@pytest.mark.parametrize("words", ["-v devices detect", "devices -v detect", "devices detect -v"])
def test_more_is_said_wherever_v_stands(run: Run, words: str) -> None:
    assert run(*words.split())[0] == 0
    assert logging.getLogger().level == logging.DEBUG
    assert run(*words.replace("-v", "-q").split())[0] == 0
    assert logging.getLogger().level == logging.WARNING


def test_debug_after_the_command_shows_the_traceback() -> None:
    done = edge_mnv2("run", "--source", "/nowhere.mp4", "--debug")
    assert "Traceback" in done.stderr and done.returncode == 1


def test_json_before_the_command(run: Run) -> None:
    code, out, _ = run("--json", "devices", "detect")
    assert code == 0 and json.loads(out)["arch"]
    code, out, err = run("--json", "service", "remove", "--dry-run")
    assert code == 2 and "has no --json" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--source", "test", "--source", "demo"], "--source is given twice: test and demo"),
        (["run", "--camera", "0", "--camera", "1"], "--camera is given twice"),
        (["classify", "x.jpg", "--threads", "1", "--threads", "2"], "--threads is given twice"),
        (["run", "--source", "rtsp://a:b@c/1", "--source", "test"], "--source is given twice: two values"),
        (["runn"], "has no command 'runn': did you mean run?"),
        (["devices", "lst"], "has no command 'lst': did you mean list?"),
        (["run", "model.tflite"], "write --model model.tflite"),
        (["run", "clip.mp4"], "write --source clip.mp4"),
        (["doctor", "now"], "unexpected 'now'"),
    ],
)
def test_slips_are_one_line_with_what_to_do(run: Run, words: list[str], said: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "") and said in err and err.count("error: ") == 1


def test_the_same_value_twice_is_no_contradiction(run: Run, stub: Path) -> None:
    assert run("run", "--model", stub, "--source", "test", "--source", "test", "--max-frames", 1)[0] == 0


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_an_example_and_fits_80_columns(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(name, "--help")
    assert code == 0
    if "Commands:" not in out:
        assert f"  edge-mnv2 {name}" in out or f"edge-mnv2 {name}" in out, "no example"
    options = out.split("Examples:")[0]
    long = [line for line in options.splitlines() if len(line) > 80 and "|" not in line]
    assert long == []


def leaves() -> Iterator[tuple[str, ...]]:
    """Every command, those below `devices`, `models` and `service` too."""
    for name, place in COMMANDS.items():
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        below = command.list_commands(None) if hasattr(command, "list_commands") else []
        yield from ((name, each) for each in below) if below else [(name,)]


@pytest.mark.parametrize("words", list(leaves()), ids=" ".join)
def test_each_command_takes_the_general_options_and_shows_an_example(run: Run, words: tuple[str, ...]) -> None:
    for option in ("-v", "--verbose", "-q", "--quiet", "--debug"):
        assert run(*words, option, "--help")[0] == 0, option
    code, out, _ = run(*words, "--help")
    example = out.partition("Examples:")[2]
    assert code == 0 and f"edge-mnv2 {' '.join(words)}" in example
    assert run("--json", *words, "--help")[0] == 0
    code, _, said = run(*words, "--jsom")
    assert code == 2 and said.count("error: ") == 1 and ("--json" in said or "--json" not in out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run: Run, shell: str) -> None:
    code, out, _ = run("--show-completion", shell)
    assert code == 0 and "_EDGE_MNV2_COMPLETE" in out
    code, _, err = run("--show-completion", "tcsh")
    assert code == 2 and "bash" in err


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("edge-mnv2 cla", "classify"),
        ("edge-mnv2 run --resi", "--resize"),
        ("edge-mnv2 run --resize ", "letterbox"),
        ("edge-mnv2 run --runtime ", "litert"),
        ("edge-mnv2 devices sh", "show"),
    ],
)
def test_bash_completes(typed: str, expected: str) -> None:
    words = typed.split(" ")
    environment = {
        **os.environ,
        "_EDGE_MNV2_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    program = "import sys; sys.argv[0] = 'edge-mnv2'; from edge_mnv2.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert expected in done.stdout.split(), done.stdout + done.stderr


def test_defaults_of_train_are_those_of_its_request() -> None:
    """They stand in one place: what the command takes without a word is what the request is made with."""
    from edge_mnv2.cli.options import declared_by
    from edge_mnv2.cli.train import train
    from edge_mnv2.settings.option import Option
    from edge_mnv2.train.training_request import TrainRequest

    source = (PACKAGE / "cli" / "train.py").read_text()
    assert not re.findall(r"default=(?!TrainRequest\.|\"auto\")\S+", source)
    for one in declared_by(train):
        if isinstance(one, Option) and one.default not in (None, "auto"):
            name = one.name.replace("-", "_")
            assert not hasattr(TrainRequest, name) or one.default == getattr(TrainRequest, name), name
