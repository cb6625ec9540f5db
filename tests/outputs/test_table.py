"""An output is declared once, in its row: help, variable, environment file, unit and documentation follow from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.outputs import table
from edge_mnv2.settings.option import Value
from tests.pyproject import extras

Run = Callable[..., "tuple[int, str, str]"]

CONVEYOR = '''
"""A conveyor belt: one file of somebody's package."""

import json
from pathlib import Path

from edge_mnv2.outputs.table import Output, OutputValues
from edge_mnv2.settings.kinds import Text, Whole
from edge_mnv2.settings.option import Option, always

OUTPUT = Output(
    "conveyor",
    "conveyor_output",
    (
        Option("conveyor", Text("an address", metavar="HOST"), "Stop the conveyor belt.", panel="Outputs"),
        Option("conveyor-key", Text(metavar="KEY"), "Its secret.", panel="Outputs", secret=always),
        Option("conveyor-lane", Whole(1, 9), "Which lane.", default=3, panel="Outputs"),
        Option("conveyor-notes", Text("a path", metavar="FILE"), "Write down.", panel="Outputs", path="file"),
    ),
    "a conveyor belt",
    "--conveyor HOST",
    network=True,
    groups=("dialout",),
    devices=("/dev/ttyUSB0",),
)


class Conveyor:
    name = "conveyor"

    def __init__(self, values):
        self.values, self.results = values, 0

    def write(self, result):
        self.results += 1

    def close(self):
        keys = ("conveyor", "conveyor-key", "conveyor-lane")
        Path(self.values["conveyor-notes"]).write_text(json.dumps([self.values[key] for key in keys] + [self.results]))


def open_output(values: OutputValues, live):
    return Conveyor(values)
'''


@pytest.fixture(params=["installed package", "row"])
def conveyor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output as an installed package, and as a row of our table: one file, one row, nothing else."""
    (tmp_path / "conveyor_output.py").write_text(CONVEYOR)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "conveyor_output", raising=False)
    if request.param == "row":
        from conveyor_output import OUTPUT

        monkeypatch.setattr(table, "TABLE", (*table.TABLE, OUTPUT))
    else:
        information = tmp_path / "conveyor-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: conveyor\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(
            f"[console_scripts]\nbelt = x:y\n\n[{table.GROUP}]\n# ours\nconveyor = conveyor_output:OUTPUT\n"
        )
    return tmp_path


def test_help_and_variable_and_run(run: Run, conveyor: Path, stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("run", "--help")
    assert code == 0 and "--conveyor HOST" in out and "Which lane (default 3)." in out
    notes = conveyor / "notes.json"
    options = ["--model", stub, "--source", "test", "--max-frames", 3, "--conveyor-notes", notes]
    monkeypatch.setenv("EDGE_MNV2_CONVEYOR", "belt.local")
    monkeypatch.setenv("EDGE_MNV2_CONVEYOR_KEY", "open sesame")
    code, _, err = run("run", *options)
    assert code == 0, err
    assert notes.read_text() == '["belt.local", "open sesame", 3, 3]'
    monkeypatch.setenv("EDGE_MNV2_CONVEYOR_LANE", "10")
    code, _, err = run("run", *options)
    assert code == 2 and "EDGE_MNV2_CONVEYOR_LANE: '10' is not a whole number from 1 to 9" in err
    monkeypatch.delenv("EDGE_MNV2_CONVEYOR")
    code, _, err = run("run", "--source", "test", "--conveyor-lane", "2")
    assert code == 2 and "--conveyor-lane needs --conveyor" in err


def test_the_service_knows_it(run: Run, conveyor: Path, isolated: Path) -> None:
    words = ["--source", "test", "--conveyor", "belt.local", "--conveyor-key", "sesame", "--conveyor-notes", "/srv/b/n"]
    code, out, err = run("service", "install", "--dry-run", *words)
    assert code == 0 and "sesame" not in out + err
    assert f"EDGE_MNV2_CONVEYOR_KEY=... is in {isolated}/.config/edge-mnv2/environment" in err
    if os.geteuid() == 0:
        assert "After=network-online.target" in out and "DeviceAllow=/dev/ttyUSB0 rw" in out
        assert re.search(r"^ReadWritePaths=.*-/srv/b$", out, re.M)
        assert re.search(r"^SupplementaryGroups=.*\bdialout\b", out, re.M)
    folder = isolated / ".config/edge-mnv2"
    folder.mkdir(parents=True)
    (folder / "environment").write_text("EDGE_MNV2_CONVEYOR=belt.local\nEDGE_MNV2_CONVEYOR_NOTES=/srv/c/n\n")
    code, out, _ = run("service", "install", "--dry-run", "--source", "test")
    assert code == 0 and (os.geteuid() != 0 or "/srv/c" in out)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise OSError('no belt')", "OSError: no belt"),
        ("OUTPUT = 5", "is no Output"),
        (CONVEYOR.replace('Option("conveyor"', 'Option("mqtt"'), "--mqtt is an option already"),
    ],
)
def test_a_package_that_cannot_be_used_ends_no_run(
    run: Run, tmp_path: Path, stub: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    name = f"broken_{len(module)}"
    (tmp_path / f"{name}.py").write_text(f"print('to stdout')\n{module}\n")
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info/entry_points.txt").write_text(f"[{table.GROUP}]\nbroken = {name}:OUTPUT\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, out, err = run("run", "--model", stub, "--source", "test", "--max-frames", 1, "--json")
    assert code == 0 and out.startswith("{") and said in err and err.count("left out") == 1


def test_no_metadata_is_imported_to_look_for_packages() -> None:
    program = (
        "import sys; from edge_mnv2.outputs.table import rows; rows(); "
        "print({'importlib.metadata', 'numpy', 'email', 'zipfile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_option_without_its_output_is_a_mistake() -> None:
    from edge_mnv2.errors import UsageError

    for name, switch in (
        ("log-every", "--log"),
        ("min-free", "--log or --record or --snapshots"),
        ("web-open", "--web"),
    ):
        values = table.OutputValues({name: Value(1, "command line")})
        with pytest.raises(UsageError, match=f"--{name} needs {switch}"):
            values.check()
        table.OutputValues({name: Value(1, "environment")}).check()
        table.OutputValues({name: Value(1, "command line"), switch.split()[0][2:]: Value("x")}).check()


def test_extras_are_those_of_the_project() -> None:
    for row in table.TABLE:
        assert not row.extra or row.extra in extras(), row.name


def test_documentation_has_every_row() -> None:
    text = (Path(__file__).parents[2] / "docs/outputs.md").read_text()
    for row in table.TABLE:
        extra = f"`{row.extra}`" if row.extra else ""
        assert f"| {row.purpose} | `{row.example}` | {extra} |".replace("  |", " |") in text, row.name


def test_values_of_a_program(tmp_path: Path) -> None:
    values: Any = table.OutputValues({"log": Value(str(tmp_path / "x.jsonl"), "command line")}, every_frame=True)
    assert [row.name for row in values.outputs] == ["log"] and not values.pictures and values["mqtt"] is None
    assert table.OutputValues().outputs == []
