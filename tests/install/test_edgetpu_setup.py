"""`install.sh --edgetpu`: nothing unless asked, root only where needed and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.runtime.edgetpu.discovery import rules_for, usb_rules
from tests.install.machine import Machine, make_wheel

RULES = "etc/udev/rules.d/65-edge-mnv2-coral.rules"


def prepared(
    folder: Path, pip: Path, *, groups: str = "maker video", candidate: str = "16.0", sudo: bool = True
) -> Machine:
    """A machine of the user `maker`; what needs root is done by a sudo that writes down what it was asked."""
    machine = Machine(folder / "machine", pip=pip)
    machine.program("id", f'case "$1" in -u) echo 1000 ;; -un) echo maker ;; -Gn) echo "{groups}" ;; esac')
    policy = f"libedgetpu1-std:\\n  Installed: (none)\\n  Candidate: {candidate}\\n"
    machine.program("apt-cache", f"printf '{policy}'")
    machine.program("dpkg-query", "exit 1")
    did = folder / "as-root"
    machine.program("sudo", f'if [ "$1" = -n ]; then exit {0 if sudo else 1}; fi\necho "$*" >>{did}\n"$@"')
    for name in ("usermod", "groupadd", "apt-get"):
        machine.program(name, "exit 0")
    machine.program("getent", "exit 0")
    return machine


@pytest.mark.slow
def test_nothing_without_being_asked(tmp_path: Path, pip: Path) -> None:
    machine = prepared(tmp_path, pip)
    make_wheel(tmp_path / "wheels", "edge-mnv2")
    assert machine.install("--wheelhouse", str(tmp_path / "wheels")).returncode == 0
    assert not (tmp_path / "as-root").exists()
    assert not (machine.root / RULES).exists()


@pytest.mark.slow
def test_dry_run(tmp_path: Path, pip: Path) -> None:
    machine = prepared(tmp_path, pip)
    before = machine.tree()
    done = machine.install("--edgetpu", "--dry-run")
    assert done.returncode == 0, done.stderr
    for text in ("apt-get install -y libedgetpu1-std", RULES, "1a6e", "18d1", "apex", "usermod -aG plugdev maker"):
        assert text in done.stdout
    assert "sudo" in done.stdout
    assert machine.tree() == before
    assert "libedgetpu1-max" in machine.install("--edgetpu=max", "--dry-run").stdout


@pytest.mark.slow
def test_done_once(tmp_path: Path, pip: Path) -> None:
    machine = prepared(tmp_path, pip)
    make_wheel(tmp_path / "wheels", "edge-mnv2")
    wanted = ["--edgetpu", "--wheelhouse", str(tmp_path / "wheels")]
    done = machine.install(*wanted)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "as-root").read_text()
    assert "apt-get install -y libedgetpu1-std" in asked
    assert "usermod -aG plugdev maker" in asked
    assert "log out and in" in done.stdout
    system = Sysroot(machine.root)
    assert usb_rules(system) == ((f"/{RULES}",), (f"/{RULES}",)) or all(usb_rules(system))
    assert rules_for(system, ("subsystem==apex",))

    # All is there: nothing is asked of root again.
    machine.program("dpkg-query", 'echo "install ok installed"')
    machine.program("id", 'case "$1" in -u) echo 1000 ;; -un) echo maker ;; -Gn) echo "maker plugdev" ;; esac')
    (tmp_path / "as-root").unlink()
    done = machine.install(*wanted)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert not (tmp_path / "as-root").exists()


@pytest.mark.slow
def test_library_not_to_be_had(tmp_path: Path, pip: Path) -> None:
    machine = prepared(tmp_path, pip, candidate="(none)", groups="maker plugdev")
    make_wheel(tmp_path / "wheels", "edge-mnv2")
    done = machine.install("--edgetpu", "--wheelhouse", str(tmp_path / "wheels"))
    assert done.returncode == 1, "the part that could be done was done, the rest is said"
    assert "docs/edgetpu.md" in done.stdout
    assert (machine.root / RULES).is_file()
    assert "apt-get" not in (tmp_path / "as-root").read_text()


@pytest.mark.slow
def test_no_password_to_be_asked_for(tmp_path: Path, pip: Path) -> None:
    machine = prepared(tmp_path, pip, sudo=False)
    make_wheel(tmp_path / "wheels", "edge-mnv2")
    done = machine.install("--edgetpu", "--wheelhouse", str(tmp_path / "wheels"))
    assert done.returncode == 1
    assert "run them yourself" in done.stderr
    assert "sudo usermod -aG plugdev maker" in done.stdout
    assert not (machine.root / RULES).exists()
    assert machine.command.exists()
