"""An accelerator is its own files and its rows: without them everything else works as if it had never been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mnv2.board import accelerators
from edge_mnv2.board.accelerators import Accelerator

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
