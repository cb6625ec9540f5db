"""An accelerator is its own files and its rows: without them everything else works as if it had never been."""

from __future__ import annotations

import json
import os
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


def install(folder: Path, package: str, content: str, monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    """A package with an entry point `mill` that names its `ROW`."""
    (folder / f"{package}.py").write_text(content)
    (folder / f"{package}-1.dist-info").mkdir()
    (folder / f"{package}-1.dist-info/entry_points.txt").write_text(f"[{group}]\nmill = {package}:ROW\n")
    monkeypatch.syspath_prepend(folder)


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
    install(tmp_path, package, content, monkeypatch, accelerators.GROUP)
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    code, _, err = run("classify", tmp_path / "p.png")
    assert code == 0 and "left out" in err and said in err
    assert run("devices", "accelerators")[0] == 0
    assert run("inspect", "mobilenet_v2_1.0_224_int8")[0] == 0
    # What its pattern takes beside its own word is nobody's: no run may go on with the CPU as if it had been asked for.
    with pytest.raises(UsageError, match="no such delegate"):
        parse("miller:1")


_MILL = """from edge_mnv2.board.accelerators import Accelerator
from edge_mnv2.runtime.delegate import Plan
from edge_mnv2.zoo.resolve import resolve
ROW = Accelerator("mill", "{module}", (("mill", "mill"),), title="Mill", automatic=True, visible=True)
DEFAULT = "mobilenet_v2_1.0_224_int8"
def worth_trying(): return True
def attached(root): return None
def diagnose(root): yield "fine"
def plan(request, spec, fall_back): {plan}
def open_supervised(*model, **order): {opening}
"""
_WHOLE = "return Plan(None, resolve(DEFAULT))"


@pytest.mark.parametrize(
    ("package", "plan", "opening", "said"),
    [
        ("mill_without_module", "pass", "pass", "ModuleNotFoundError: No module named 'no_such_mill'"),
        ("mill_raises", "raise RuntimeError('it is\\nstuck')", "pass", "RuntimeError: it is stuck"),
        ("mill_ends", "raise SystemExit(3)", "pass", "SystemExit: 3"),
        ("mill_plans_none", "return None", "pass", "it plans None, which is no Plan of a model"),
        ("mill_plans_text", "return 'cpu'", "pass", "it plans 'cpu', which is no Plan of a model"),
        ("mill_plans_nothing", "return Plan(None)", "pass", "which is no Plan of a model"),
        ("mill_plans_name", "return Plan(None, DEFAULT)", "pass", "which is no Plan of a model"),
        ("mill_jams", _WHOLE, "raise OSError('jammed')", "OSError: jammed"),
        ("mill_opens_none", _WHOLE, "return None", "it opens None, which are no interpreters"),
        ("mill_opens_nothing", _WHOLE, "return []", "it opens [], which are no interpreters"),
        ("mill_opens_text", _WHOLE, "return ['mill:0']", "it opens ['mill:0'], which are no interpreters"),
    ],
)
def test_a_package_that_fails_where_it_is_used(
    package: str, plan: str, opening: str, said: str, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by name it is the error, in one line; with `auto` it is left out, once, and the CPU goes on."""
    module = "no_such_mill" if package == "mill_without_module" else package
    install(tmp_path, package, _MILL.format(module=module, plan=plan, opening=opening), monkeypatch, accelerators.GROUP)
    call = ["run", "--source", "test", "--max-frames", "1", "--json"]
    code, out, err = run(*call, "--delegate", "mill")
    assert code == 5 and not out and "mill of an installed package fails: " in err and said in err
    assert "Traceback" not in err and "unexpected" not in err
    code, out, err = run(*call)
    assert code == 0 and json.loads(out)["frames"] == 1
    assert "mill" not in json.loads(out)["delegate"]
    assert err.count(said) == 1 and " of an installed package " in err


_WORKER = """
from edge_mnv2.runtime.supervised import Package
from edge_mnv2.runtime.supervised.contact import Target
from edge_mnv2.runtime.supervised.supervisor import Device, open_on
def open_supervised(spec, compiled, cpu, *, threads=1, count=1, **_):
    driver = Package("mill 1", "mill 1", __name__ + ":open_in_worker")
    return open_on([Device(Target(driver, "mill", model=str(compiled), threads=threads, engine="mill"))], cpu, count)
def open_in_worker(order, begin):
    begin("open")
    {body}
"""


@pytest.mark.parametrize(
    ("package", "body", "said"),
    [
        ("mill_refuses", "raise RuntimeError('stone\\nbroken')", "mill refuses the model: stone; broken"),
        (
            "mill_opens_no_model",
            "return None",
            "mill_opens_no_model:open_in_worker opens nothing",
        ),
        ("mill_leaves", "raise SystemExit(4)", "mill 1 ended with code 4 while loading the model"),
    ],
)
def test_a_worker_that_fails(
    package: str, body: str, said: str, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = _MILL.format(module=package, plan=_WHOLE, opening="pass") + _WORKER.format(body=body)
    install(tmp_path, package, content, monkeypatch, accelerators.GROUP)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    code, out, err = run("run", "--source", "test", "--max-frames", "1", "--json", "--delegate", "mill")
    assert code == 5 and not out and said in err and "Traceback" not in err


def test_what_it_gives_the_lists_is_no_error_of_theirs(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = _MILL.format(module="mill_lists", plan="pass", opening="pass")
    install(tmp_path, "mill_lists", content, monkeypatch, accelerators.GROUP)
    code, _, err = run("devices", "accelerators", "--json")
    assert code == 0 and "mill of an installed package is left out: TypeError: it gives None" in err
    checks = {check["id"]: check for check in json.loads(run("doctor", "--json")[1])["checks"]}
    assert "'fine', which is no Check" in checks["mill"]["detail"]


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"forms": ["lf"]}, "forms=('lf',) is not a tuple of pairs of texts"),
        ({"forms": "mill"}, "forms='mill' is not a tuple of pairs"),
        ({"forms": (("mill", "mill", "mill"),)}, "is not a tuple of pairs"),
        ({"forms": ()}, "no forms"),
        ({"forms": (("mill[:N]", "mill(:(?P<stone>[0-9]))?"),)}, "has a group stone"),
        ({"devices": "/dev/mill"}, "devices='/dev/mill' is not a tuple of texts"),
        ({"groups": (1,)}, "groups=(1,) is not a tuple of texts"),
        ({"automatic": "no"}, "automatic='no' is not True or False"),
        ({"title": None}, "title=None is not a text"),
        ({"name": 5}, "name=5 is not a text"),
        ({"name": "Mill 2"}, "name='Mill 2' is no word of its own"),
        ({"name": "auto"}, "name='auto' is no word of its own"),
    ],
)
def test_a_row_that_is_declared_wrongly_is_one_line(declared: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        Accelerator(**{"name": "mill", "module": "mill", "forms": (("mill", "mill"),), **declared})
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_lists_for_tuples_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Accelerator("mill", "mill", [["mill[:N]", "mill(:(?P<index>.))?"]], devices=["/dev/mill"])  # type: ignore
    assert row.devices == ("/dev/mill",) and hash(row)
    monkeypatch.setattr("edge_mnv2.board.accelerators.of_packages", lambda: (row,))
    assert parse("mill:3").index == 3
    with pytest.raises(UsageError, match="'x' is no number of a device"):
        parse("mill:x")


_OTHERS = {
    "runtimes": """from edge_mnv2.runtime.table import Runtime
ROW = Runtime("mill", "{module}", "json", ("json",), (".mill",){more})
""",
    "outputs": """from edge_mnv2.outputs.table import Output
from edge_mnv2.settings.kinds import Text
from edge_mnv2.settings.option import Option
ROW = Output("mill", "{module}", (Option({option}),), "a mill", "--mill 1"{more})
""",
}
_OPTION = "'mill', Text(), 'Grind.'"


@pytest.mark.parametrize(
    ("package", "group", "more", "said"),
    [
        ("mill_runtime_wrong", "runtimes", ", devices='/dev/mill'", "devices='/dev/mill' is not a tuple of texts"),
        ("mill_output_wrong", "outputs", ", network=1", "network=1 is not True or False"),
        ("mill_option_wrong", "outputs", "'mill', '', Text()", "kind='' is not a Kind"),
    ],
)
def test_rows_of_the_other_tables_too(
    package: str, group: str, more: str, said: str, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, more = (more, "") if "Text" in more else (_OPTION, more)
    content = _OTHERS[group].format(module=package, option=option, more=more)
    install(tmp_path, package, content, monkeypatch, f"edge_mnv2.{group}")
    code, _, err = run("run", "--source", "test", "--max-frames", "1")
    assert code == 0 and f"mill of an installed package is left out: TypeError: {said}" in err


def test_a_runtime_and_an_output_that_fail_where_they_are_used(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for group, content in _OTHERS.items():
        folder = tmp_path / group
        folder.mkdir()
        package = f"mill_of_{group}"
        body = "def open_model(*a, **k): raise KeyError('stone')\ndef open_output(*a): raise KeyError('stone')\n"
        install(
            folder,
            package,
            content.format(module=package, option=_OPTION, more="") + body,
            monkeypatch,
            f"edge_mnv2.{group}",
        )
    (tmp_path / "a.mill").write_text("stone")
    call = ["run", "--source", "test", "--max-frames", "1"]
    code, _, err = run(*call, "--model", tmp_path / "a.mill")
    assert code == 3, err
    assert "mill of an installed package fails: KeyError: 'stone'" in err
    code, _, err = run(*call, "--mill", "1")
    assert code == 2, err
    assert "mill of an installed package fails: KeyError: 'stone'" in err
