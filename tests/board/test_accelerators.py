"""An accelerator is its own files and its rows: without them everything else works as if it had never been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edge_mnv2.board import accelerators
from edge_mnv2.board.accelerators import Accelerator
from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.delegate import parse

OWN = {
    "edgetpu": ("edge_mnv2.runtime.edgetpu", "edge_mnv2.builder.edgetpu_compile", "edge_mnv2.tflite.edgetpu_limits"),
    "rknn": ("edge_mnv2.runtime.rknn", "edge_mnv2.builder.rknn_compile"),
    "imx500": ("edge_mnv2.runtime.imx500", "edge_mnv2.builder.imx500_compile", "edge_mnv2.camera.imx500"),
}

WITHOUT = """
import contextlib, io, json, sys

name, own, calls = json.loads(sys.argv[1])


class Gone:
    def find_spec(self, module, path=None, target=None):
        if module.startswith(tuple(own)):
            raise ModuleNotFoundError(f"{module} is gone")


sys.meta_path.insert(0, Gone())
from edge_mnv2.board import accelerators

accelerators.TABLE = tuple(one for one in accelerators.TABLE if one.name != name)
from edge_mnv2.builder import compilers
from edge_mnv2.runtime import table

table.TABLE = tuple(one for one in table.TABLE if one.name != name)
compilers.TARGETS = tuple(one for one in compilers.TARGETS if one.name != name)
compilers.FORMS = ", ".join(one.form for one in compilers.TARGETS)
compilers.QUANTIZATIONS = "; ".join(one.name for one in compilers.TARGETS if one.quantizations)
from edge_mnv2.cli.app import main

answers = []
for words in calls:
    sys.argv = ["edge-mnv2", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    answers.append([code or 0, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_without_it(name: str, data: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_MNV2_MIRROR", str(data))
    monkeypatch.setenv("COLUMNS", "400")
    run = ["run", "--source", "demo", "--max-frames", "1"]
    calls = [
        [*run, "--json"],
        [*run, "--delegate", name],
        ["doctor", "--json"],
        ["devices", "accelerators", "--json"],
        ["devices", "detect", "--json"],
        ["inspect", "mobilenet_v2_1.0_224_int8", "--json"],
        ["models", "list"],
        ["compile", "--help"],
        ["run", "--help"],
    ]
    order = json.dumps([name, OWN[name], calls])
    done = subprocess.run([sys.executable, "-c", WITHOUT, order], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ran, asked, doctor, listed, detected, inspected, models, *helps = json.loads(done.stdout.splitlines()[-1])
    for code, _, err in (ran, doctor, listed, detected, inspected, models, *helps):
        assert code == 0, err
    assert json.loads(ran[1])["frames"] == 1
    assert asked[0] == 2 and "--delegate" in asked[2]
    assert not any(check["id"].startswith(name) for check in json.loads(doctor[1])["checks"])
    assert json.loads(listed[1])["accelerators"] == []
    assert not any(key.startswith(name) for key in json.loads(inspected[1]))
    assert not any(f"{name}[" in text or f"{name}:" in text for _, text, _ in helps)


def test_every_row_is_whole() -> None:
    for row in accelerators.TABLE:
        module = row.load()
        hooks = {"plan", "open_supervised"}
        hooks |= {"worth_trying", "count", "without"} if row.automatic else set()
        hooks |= {"attached", "diagnose"} if row.visible else set()
        assert all(callable(getattr(module, hook)) for hook in hooks), row.name


def test_a_pattern_that_is_none_is_refused_where_the_row_is_made() -> None:
    with pytest.raises(Exception, match=r"unterminated|missing"):
        Accelerator("mine", "mine", (("mine[:N]", "mine(:"),))


_GONE = """from edge_mnv2.board.accelerators import Accelerator
ROW = Accelerator(
    "mill", "{module}", (("mill", ".*"),), title="Mill", automatic=True, visible=True, limits="no_such_limits"
)
def worth_trying(): raise RuntimeError("it is stuck")
def attached(root): raise RuntimeError("it is stuck")
"""


@pytest.mark.parametrize(
    ("package", "content", "said"),
    [
        ("lost_mill", _GONE.format(module="no_such_mill"), "ModuleNotFoundError"),
        ("stuck_mill", _GONE.format(module="stuck_mill"), "it is stuck"),
        ("ending_mill", "raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_package_whose_module_fails_ends_no_run(
    package: str, content: str, said: str, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{package}.py").write_text(content)
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info/entry_points.txt").write_text(f"[{accelerators.GROUP}]\nmill = {package}:ROW\n")
    monkeypatch.syspath_prepend(tmp_path)
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    code, _, err = run("classify", tmp_path / "p.png")
    assert code == 0 and "left out" in err and said in err
    assert run("devices", "accelerators")[0] == 0
    assert run("inspect", "mobilenet_v2_1.0_224_int8")[0] == 0
    # What its pattern takes beside its own word is nobody's: no run may go on with the CPU as if it had been asked for.
    with pytest.raises(UsageError, match="no such delegate"):
        parse("miller:1")
