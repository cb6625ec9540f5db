"""A delegate of another accelerator, named on the command line, in a worker process like the Edge TPU's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.delegate import DelegateSpec, parse
from tests.runtime.edgetpu.conftest import standin

__all__ = ["standin"]

Run = Callable[..., "tuple[int, str, str]"]


def test_what_it_may_say() -> None:
    spec = DelegateSpec("external", library="/opt/Vendor/libX.so", options=(("device", "0"), ("cache", "on=1")))
    assert parse("external:/opt/Vendor/libX.so,device=0,cache=on=1") == spec
    assert parse(str(spec)) == spec and spec.required
    for text in ("external:", "external:/x.so,fast", "external:/x.so,=1"):
        with pytest.raises(UsageError, match="external:PATH"):
            parse(text)


def test_it_runs_an_ordinary_model(
    run: Run, standin: Path, stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_LOG", str(tmp_path / "log"))
    options = ["--model", stub, "--delegate", f"external:{standin},device=0,precision=fp16", "--json"]
    code, out, err = run("run", "--source", "test", "--max-frames", 3, *options)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["delegate"] == f"external:{standin.name}" and summary["frames"] == 3
    assert "opened with device=0\nopened with precision=fp16\n" in (tmp_path / "log").read_text()
    assert "Edge TPU" not in err
    Image.new("RGB", (30, 20), (200, 20, 30)).save(tmp_path / "p.png")
    answers = []
    for more in (options, ["--model", stub, "--delegate", "none", "--json"]):
        code, out, err = run("classify", tmp_path / "p.png", *more)
        assert code == 0, err
        answers.append(json.loads(out)["results"][0]["top"])
    assert answers[0] == answers[1] and answers[0][0]["label"] == "red"


@pytest.mark.parametrize(
    ("fault", "says"),
    [("segv", "crashed (SIGSEGV)"), ("refuse", "refuses"), ("exit=3", "ended with code 3")],
)
def test_what_goes_wrong_is_one_line(
    fault: str, says: str, run: Run, standin: Path, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", fault)
    monkeypatch.setattr("edge_mnv2.runtime.supervised.contact.SETTLE_S", 0.0)
    options = ["--source", "test", "--max-frames", 1, "--model", stub, "--delegate", f"external:{standin}"]
    code, _, err = run("run", *options)
    assert code == 5 and says in err and "Edge TPU" not in err and err.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"no library"])
def test_a_file_that_is_no_delegate(content: bytes, run: Run, stub: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    if content is not None:
        path.write_bytes(content)
    code, _, err = run("run", "--source", "test", "--max-frames", 1, "--model", stub, "--delegate", f"external:{path}")
    assert code == 5 and str(path) in err and err.count("\n") == 1
