"""A user without a home directory, and paths that begin with the name of nobody."""

from __future__ import annotations

import json
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2 import paths

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's number without a name."""

    def unknown(_uid: Any) -> Any:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_what_needs_no_home_works(run: Run, stub: Path, data: Path) -> None:
    assert paths.state_dir() == paths.NO_HOME / ".local/state/edge-mnv2"
    code, out, err = run("run", "--model", stub, "--source", "test", "--max-frames", 2, "--json")
    assert code == 0 and json.loads(out)["frames"] == 2, err
    assert run("classify", "--model", stub, data / "images/cat.bmp")[0] == 0
    for arguments in (("models", "list"), ("devices", "list"), ("devices", "detect"), ("inspect", stub)):
        code, _, err = run(*arguments)
        assert code == 0 and "unexpected" not in err, (arguments, err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("classify", "~nobody-of-that-name/x.jpg"),
        ("run", "--source", "~nobody-of-that-name/x.mp4"),
        ("run", "--source", "test", "--model", "~nobody-of-that-name/x.tflite"),
        ("inspect", "~nobody-of-that-name/x.tflite"),
        ("devices", "check", "~nobody-of-that-name/x.yaml"),
    ],
    ids=" ".join,
)
def test_a_home_that_is_none_is_one_sentence(arguments: tuple[str, ...], run: Run) -> None:
    code, out, err = run(*arguments)
    assert code in (2, 3, 4, 6) and out == "" and "unexpected" not in err and len(err.splitlines()) == 1, err


def test_a_folder_that_is_gone_is_one_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for arguments in (("teach", "pictures"), ("service", "install", "--camera", "0")):
        code, out, err = run(*arguments)
        assert (
            (code, out) == (2, "") and "the folder in which this was called is gone" in err and "unexpected" not in err
        )
