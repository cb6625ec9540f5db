"""What a command costs before it does anything: on a small board every import counts."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mnv2.board.detect import Board
from edge_mnv2.settings.store import may_match, packaged_places, read

HEAVY = {"numpy", "cv2", "ai_edge_litert", "tflite_runtime", "yaml", "requests", "PIL", "urllib.request", "tflite"}
ACCELERATORS = {"rknn", "rknnlite", "picamera2", "torch", "onnxruntime", "openvino", "edge_mnv2.runtime.toolkit"}


def imported_by(*arguments: str) -> set[str]:
    """Modules that are loaded when the command has ended."""
    program = (
        "import sys; from edge_mnv2.cli.app import main; sys.argv[0] = 'edge-mnv2'\n"
        "try: main()\nexcept SystemExit: pass\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    )
    # OpenCV sets this one where it has been imported, and then a library for the TPU is looked for.
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment,
    )
    return set(done.stderr.splitlines())


def cpu_seconds(*command: str) -> float:
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.slow
def test_help_costs_little_more_than_typer() -> None:
    rounds = [cpu_seconds("-m", "edge_mnv2", "--help") / cpu_seconds("-c", "import typer") for _ in range(5)]
    assert statistics.median(rounds) <= 3, rounds


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("run", "--help"), ("compile", "--help"), ("devices", "--help")]
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert not (HEAVY | ACCELERATORS) & imported_by(*arguments)


def test_a_run_without_them_imports_no_accelerator() -> None:
    assert not ACCELERATORS & imported_by("-q", "run", "--source", "test", "--max-frames", "1", "--runtime", "litert")


def test_a_command_imports_its_own_module_only() -> None:
    loaded = {name for name in imported_by("-q", "classify", "--help") if name.startswith("edge_mnv2.cli.")}
    assert loaded == {f"edge_mnv2.cli.{name}" for name in ("app", "classify", "command", "options", "terminal")}


def test_help_names_every_command_and_a_wrong_word_is_told(run) -> None:
    _, out, _ = run("--help")
    assert all(name in out for name in ("run", "classify", "doctor", "devices"))
    code, _, err = run("clasify", "x.jpg")
    assert code == 2 and "clasify" in err


@pytest.mark.slow
def test_running_imports_no_network_and_no_tpu_code(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = imported_by("run", "--source", "test", "--max-frames", "2", "--delegate", "auto", "-h")
    loaded |= imported_by("-q", "run", "--source", "test", "--max-frames", "2")
    unwanted = {
        "requests",
        "http.client",
        "urllib.request",
        "ssl",
        "asyncio",
        "importlib.metadata",
        "PIL.Image",
        "tflite",
    }
    unwanted |= {
        f"edge_mnv2.runtime.{name}" for name in ("edgetpu.discovery", "edgetpu.library", "supervised.supervisor")
    }
    # Newer typer calls a command through pydantic, which reads package metadata.
    assert not (unwanted - imported_by("devices", "list")) & loaded


@pytest.mark.parametrize("name", sorted(packaged_places()))
def test_the_quick_look_at_a_packaged_profile_sees_its_patterns(name: str) -> None:
    """Profiles that cannot match are not read; whatever one of them matches must be seen without reading it."""
    place = packaged_places()[name]
    match = read(place).match

    def example(pattern: str) -> str:
        return pattern.replace("*", "x").replace("?", "x")

    for pattern in match.get("model", ()):
        assert may_match(place, Board(model=example(pattern)))
    for pattern in match.get("compatible", ()):
        assert may_match(place, Board(compatible=(example(pattern),)))
    assert not may_match(place, Board(model="Acme Nothing 3000", compatible=("acme,nothing",)))


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "edge_mnv2", "run", "--source", "test", "--max-frames", "1"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("error: the package cv2 is missing: `edge-mnv2 doctor` says how to get it\n")
