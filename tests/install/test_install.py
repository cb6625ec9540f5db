"""install.sh at work: real environments, real pip, a project and packages small enough to be quick."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.install.machine import Machine, make_project, make_wheel


@pytest.fixture
def machine(tmp_path: Path, pip: Path) -> Machine:
    return Machine(tmp_path / "machine", pip=pip)


def call(machine: Machine, *arguments: str) -> str:
    return subprocess.run(
        [str(machine.command), *arguments], env=machine.environment(), capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
def test_install_upgrade_roll_back_and_remove(machine: Machine, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "alpha")
    make_wheel(wheels, "omega")
    offers = {"PIP_FIND_LINKS": str(wheels)}
    asks = {"requires": ["alpha", "omega; extra == 'web'"], "extras": ["web"]}

    # What a power cut left of an earlier attempt.
    (machine.prefix / "venvs/7/lib").mkdir(parents=True)
    (machine.prefix / ".work.cut").mkdir()
    with open(machine.prefix / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    script = make_project(tmp_path / "clone", "1.0", **asks)
    done = machine.install("--extras", "web", script=script, environment=offers)
    assert done.returncode == 0, done.stderr
    assert "Installed edge-mnv2 1.0 with web" in done.stdout
    assert "is not on PATH" in done.stdout
    assert call(machine, "run") == "edge-mnv2 1.0: run\n"
    first = machine.venvs()
    assert len(first) == 1
    assert not list(machine.prefix.glob(".work*"))
    assert not list(machine.prefix.glob("current/lib/python3*/site-packages/pip/**/__pycache__"))

    # An upgrade keeps the extras.
    make_project(tmp_path / "clone", "2.0", **asks)
    done = machine.install(script=script, environment=offers)
    assert done.returncode == 0, done.stderr
    assert "Installed edge-mnv2 2.0 with web" in done.stdout
    second = machine.venvs()
    assert len(second) == 1
    assert second != first
    assert list(machine.prefix.glob("current/lib/python3*/site-packages/omega"))

    # A version whose doctor finds faults changes nothing.
    make_project(tmp_path / "clone", "3.0", doctor=5, **asks)
    done = machine.install(script=script, environment=offers)
    assert done.returncode == 5
    assert "2.0 stays in use" in done.stderr
    assert call(machine, "run") == "edge-mnv2 2.0: run\n"
    assert machine.venvs() == second

    # Neither does one that lacks a package, or is asked for an extra that there is not.
    make_project(tmp_path / "clone", "4.0", requires=["no-such-package-anywhere"])
    done = machine.install("--extras", "none", script=script, environment=offers)
    assert done.returncode == 1
    assert "no-such-package-anywhere" in done.stderr
    done = machine.install("--extras", "sound", script=script, environment=offers)
    assert done.returncode == 2
    assert "no extra sound" in done.stderr
    assert machine.venvs() == second

    (machine.home / ".cache/edge-mnv2").mkdir(parents=True)
    before = machine.tree()
    assert machine.install("--uninstall", "--dry-run").returncode == 0
    assert machine.tree() == before
    done = machine.install("--uninstall")
    assert done.returncode == 0
    assert str(machine.home / ".cache/edge-mnv2") in done.stdout
    assert not machine.prefix.exists()
    assert not machine.command.is_symlink()
    assert (machine.home / ".cache/edge-mnv2").is_dir()
    done = machine.install("--uninstall")
    assert "nothing to remove" in done.stdout


@pytest.mark.slow
def test_first_install_with_faults_stays_for_repair(machine: Machine, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "edge-mnv2", doctor=1)
    done = machine.install("--wheelhouse", str(wheels))
    assert done.returncode == 1
    assert "doctor found faults" in done.stdout
    # A later version with the same faults is no step back.
    make_wheel(wheels, "edge-mnv2", "2.0", doctor=1)
    assert machine.install("--wheelhouse", str(wheels)).returncode == 1
    assert call(machine, "run") == "edge-mnv2 2.0: run\n"


@pytest.mark.slow
def test_interrupted(machine: Machine, tmp_path: Path) -> None:
    script = make_project(tmp_path / "clone")
    assert machine.install(script=script).returncode == 0
    before = machine.venvs()
    make_project(tmp_path / "clone", "2.0", slow=60)
    process = subprocess.Popen(
        ["sh", str(script)],
        env=machine.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "2.0: doctor" in line:
            break
    # A second one meanwhile does not interfere.
    other = machine.install(script=script)
    assert other.returncode == 1
    assert "another install.sh is at work" in other.stderr
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "nothing was changed" in stderr
    assert machine.venvs() == before
    assert call(machine, "run") == "edge-mnv2 1.0: run\n"


@pytest.mark.slow
def test_odd_places_and_pip_settings(machine: Machine, tmp_path: Path) -> None:
    """Blanks in paths; `user = true` and `target` in pip's settings, which forbid or divert what we do."""
    script = make_project(tmp_path / "my clone's folder")
    prefix, bin = tmp_path / "a prefix/x", tmp_path / "b in"
    settings = {"PIP_USER": "1", "PIP_TARGET": str(tmp_path / "elsewhere"), "PYTHONPATH": "/nowhere"}
    done = machine.install("--prefix", str(prefix), f"--bin={bin}", script=script, environment=settings)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "elsewhere").exists()
    command = [str(bin / "edge-mnv2"), "run"]
    assert subprocess.run(command, env=machine.environment(), capture_output=True, text=True).stdout
    done = machine.install("--uninstall", "--prefix", str(prefix), "--bin", str(bin))
    assert done.returncode == 0
    assert not prefix.exists()


@pytest.mark.slow
def test_packages_of_the_user_do_not_come_before_those_of_the_system(machine: Machine, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "edge-mnv2")
    done = machine.install("--system-packages", "yes", "--wheelhouse", str(tmp_path / "wheels"))
    assert done.returncode == 0, done.stderr
    minor = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    theirs = machine.home / ".local/lib" / minor / "site-packages/numpy"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("raise SystemExit('the numpy under ~/.local')")
    python = machine.prefix / "current/bin/python"
    code = "import sys; print([each for each in sys.path if '.local/lib' in each])"
    done = subprocess.run([str(python), "-c", code], env=machine.environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_what_the_system_has_is_not_installed_again(tmp_path: Path, pip: Path) -> None:
    system = {"numpy": "1.24.2", "cv2": "4.6.0"}
    machine = Machine(tmp_path / "pi", model="Raspberry Pi 4 Model B", system=system, pip=pip)
    wheels = tmp_path / "wheels"
    for version in ("1.24.2", "1.26.4", "2.4.0"):
        make_wheel(wheels, "numpy", version)
    make_wheel(wheels, "opencv-python-headless")
    script = make_project(tmp_path / "clone", requires=["numpy>=1.23", "opencv-python-headless>=4.8"])
    done = machine.install(script=script, environment={"PIP_FIND_LINKS": str(wheels)})
    assert done.returncode == 0, done.stderr
    assert "OpenCV 4.6.0, numpy 1.24.2" in done.stdout
    site = next(machine.prefix.glob("current/lib/python3*/site-packages"))
    assert not list(site.glob("opencv*"))
    assert [each.name for each in site.glob("numpy-*")] in ([], ["numpy-1.26.4.dist-info"])


@pytest.mark.slow
def test_service_and_environment_still_in_use(machine: Machine, tmp_path: Path) -> None:
    script = make_project(tmp_path / "clone")
    done = machine.install("--service", "--", "--camera", "/dev/video 0", script=script)
    assert done.returncode == 0, done.stderr
    assert "edge-mnv2 1.0: service install --camera /dev/video 0" in done.stdout
    theirs = machine.home / ".config/systemd/user/edge-mnv2.service"
    unit = machine.root / "etc/systemd/system/edge-mnv2.service"
    for each, way in ((theirs, "first: "), (unit, "first: sudo ")):
        each.parent.mkdir(parents=True)
        each.write_text(f"[Service]\nExecStart={machine.command} run\n")
        done = machine.install("--uninstall")
        assert done.returncode == 1
        assert f"{way}{machine.command} service remove" in done.stderr
    assert machine.command.exists()
    # A process that has mapped a library of the old environment.
    library = next((machine.prefix / "venvs/1").glob("lib/python3*")) / "library.so"
    shutil.copy(sys.executable, library)
    with subprocess.Popen([str(library), "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as running:
        time.sleep(0.3)
        make_project(tmp_path / "clone", "2.0")
        done = machine.install(script=script)
        assert running.stdin is not None
        running.stdin.close()
    assert done.returncode == 0
    assert "sudo systemctl restart edge-mnv2" in done.stdout
    if running.returncode == 0 or library.exists():
        assert f"process {running.pid}" in done.stdout
        assert machine.venvs() == ["1", "2"]


@pytest.mark.slow
def test_unreachable_index(machine: Machine, tmp_path: Path) -> None:
    environment = {
        "PIP_NO_INDEX": "0",
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "1",
        "PIP_TIMEOUT": "2",
        "NO_PROXY": "127.0.0.1",
    }
    script = make_project(tmp_path / "clone", requires=["alpha"])
    done = machine.install(script=script, environment=environment)
    assert done.returncode == 7
    assert "could not be reached" in done.stderr
    assert "--make-wheelhouse" in done.stderr
    assert not machine.venvs()
