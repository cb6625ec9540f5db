"""What ARCHITECTURE.md and CONTRIBUTING.md say about the code is so."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from tests.test_imports import FLOORS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
SPINE = re.findall(r"^\| `(edge_mnv2/[\w/]+\.py)` \|", PAGE.partition("## Rooms")[0], re.MULTILINE)


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:edge_mnv2|tests|devices|models|docs|install)/[\w./*-]*)`", text):
        assert list(ROOT.glob(name.rstrip("/"))), f"{page} names {name}"
    for table in re.findall(r"`([A-Z]{4,})`", text):
        assert any(re.search(rf"^{table}\b", file.read_text(), re.MULTILINE) for file in ROOT.glob("edge_mnv2/**/*.py"))


def test_the_floors_are_those_of_the_import_rule() -> None:
    rows = re.findall(r"^\| (\d) \| (.*) \|$", PAGE, re.MULTILINE)
    for number, names in rows:
        named = set(re.findall(r"`(\w+)`", names))
        assert named <= {*FLOORS[int(number) - 1], "edge_mnv2"}, f"floor {number}"


def test_the_spine_is_short() -> None:
    assert len(SPINE) == 5
    for name in SPINE:
        assert len((ROOT / name).read_text().splitlines()) < 300, name
    files = [file for kind in ("py", "js", "css", "html") for file in ROOT.glob(f"edge_mnv2/**/*.{kind}")]
    assert [str(file) for file in files if len(file.read_text().splitlines()) > 350] == []


def test_a_frame_of_the_demo_goes_through_the_five_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    monkeypatch.setenv("EDGE_MNV2_MIRROR", str(data))
    seen: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(ROOT)) and file not in seen:
            seen.append(file)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        code, _, err = run("run", "--source", "demo", "--max-frames", 3, "--log", tmp_path / "log.jsonl")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert code == 0, err
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert {str(ROOT / name) for name in SPINE} <= set(seen)


def test_the_hooks_of_a_commit_are_commands_that_are_here() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} == {"ruff", "ruff-format", "mypy", "shellcheck", "imports"}
    for hook in hooks:
        words = hook["entry"].split()
        for word in words[1:]:
            if word.startswith("tests/"):
                assert (ROOT / word).is_file()


def test_shellcheck_of_the_installer() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(ROOT / "install.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_every_file_is_python_3_9() -> None:
    """The oldest that is supported; ruff and newer parsers, told of it, take what came later all the same."""
    wrong = []
    for path in (
        one for room in ("edge_mnv2", "tests", "benchmarks", "examples") for one in (ROOT / room).rglob("*.py")
    ):
        source = path.read_bytes()
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source, str(path), feature_version=(3, 9))):
            parts: list[ast.expr] = []
            if isinstance(node, ast.Subscript):
                parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
                wrong += [f"{path}:{one.lineno}: *" for one in parts if isinstance(one, ast.Starred)]
            elif isinstance(node, ast.Set):
                parts = node.elts
            elif isinstance(node, ast.SetComp):
                parts = [node.elt]
            for one in parts:
                # Since 3.10 it may stand there without parentheses.
                if isinstance(one, ast.NamedExpr) and lines[one.lineno - 1][: one.col_offset].rstrip()[-1:] != b"(":
                    wrong.append(f"{path}:{one.lineno}: :=")
    assert wrong == []
