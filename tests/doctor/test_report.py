"""`doctor --report`: what a person sends to others says what matters, and nothing that is theirs."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_mnv2 import paths
from edge_mnv2.doctor import checks
from edge_mnv2.errors import Check

Run = Callable[..., "tuple[int, str, str]"]


def test_it_says_versions_board_and_figures(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Check(
        "camera", "warn", f"rtsp://admin:hunter2@cam is silent; see {paths.home()}/x on {socket.gethostname()}"
    )
    monkeypatch.setattr(checks, "run_checks", lambda: iter([secret]))
    file = tmp_path / "report.json"
    code, out, err = run("doctor", "--report", file)
    assert code == 0 and "read it before you send it" in err and "camera" in out
    text = file.read_text()
    content = json.loads(text)
    assert "hunter2" not in text and str(paths.home()) not in text and "serial" not in content["board"]
    assert len(socket.gethostname()) < 3 or socket.gethostname() not in content["checks"][0]["detail"]
    assert content["figures"]["inference_ms"] > 0 and content["versions"]["numpy"] and content["edge_mnv2"]
    assert content["checks"][0]["id"] == "camera" and "npu_load" in content["health"]


def test_it_is_written_whole_or_not_at_all(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "run_checks", lambda: iter([Check("a", "ok", "b")]))
    monkeypatch.setattr(checks, "_figures", dict)
    code, _, err = run("doctor", "--report", tmp_path / "no" / "report.json")
    assert code == 2 and "--report" in err and "cannot be written" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("maxsize", "version", "advised"),
    [(2**63 - 1, (3, 11), True), (2**63 - 1, (3, 9), False), (2**31 - 1, (3, 11), False)],
)
def test_a_faster_runtime_is_advised_only_where_it_is_published(
    maxsize: int, version: tuple[int, int], advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checks.TABLE[0]
    for name, value in (("known", lambda *_: None), ("rivals", lambda *_: []), ("reference", lambda: first)):
        monkeypatch.setattr(checks, name, value)
    monkeypatch.setattr(type(first), "version", lambda _: None)
    monkeypatch.setattr(checks, "sys", SimpleNamespace(maxsize=maxsize, version_info=version))
    assert ["openvino" in check.detail for check in checks._fastest()] == [True] * advised
