"""The systemd of this machine, through its own programs; a unit is put in place, asked how it does, taken away."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.paths import atomic_write
from edge_mnv2.service.command import Account

_FACTS = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "StatusText", "MainPID", "NRestarts", "Result",
    "ExecMainStatus", "ActiveEnterTimestamp", "FragmentPath",
)  # fmt: skip


@dataclass(frozen=True)
class Manager:
    """The system's manager, or (`system` False) that of the current user."""

    system: bool
    root: Path = Path("/")
    home: Optional[Path] = None
    """Whose manager it is, where that is not the current user's."""

    @property
    def scope(self) -> str:
        return "system" if self.system else "user"

    def unit_path(self, name: str) -> Path:
        if self.system:
            return self.root / "etc/systemd/system" / f"{name}.service"
        base = os.environ.get("XDG_CONFIG_HOME", "")
        if self.home is None and base.startswith("/"):
            return Path(base) / "systemd/user" / f"{name}.service"
        config = (self.home or Path.home()) / ".config"
        return config / "systemd/user" / f"{name}.service"

    @property
    def running(self) -> bool:
        """Whether there is a manager to talk to: not in a container or a chroot."""
        if self.system:
            return (self.root / "run/systemd/system").is_dir()
        return Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent", "systemd/private").exists()

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`systemctl WORDS`. Raises EdgeMnv2Error where it fails and `check` is set."""
        done = _run(["systemctl", *self._for_user(), *words])
        if check and done.returncode:
            complaint = done.stderr.strip().splitlines()
            raise EdgeMnv2Error(f"systemctl {' '.join(words)} failed", hint=complaint[0] if complaint else None)
        return done

    def facts(self, name: str) -> dict[str, str]:
        """What systemd knows about the service, by systemd's own names."""
        done = self.call("show", f"{name}.service", f"--property={','.join(_FACTS)}", check=False)
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def journal(self, name: str, words: Sequence[str]) -> list[str]:
        """The words of a journalctl command that shows the service's log."""
        need("journalctl")
        return ["journalctl", *self._for_user(), "-u" if self.system else "--user-unit", f"{name}.service", *words]

    def last_error(self, name: str) -> Optional[str]:
        """The newest error that the service's command has ended with, by its journal."""
        done = _run(self.journal(name, ["--lines=20", "--output=cat", "--no-pager", "--quiet"]))
        mark = "edge-mnv2: error: "
        said = [line[len(mark) :] for line in done.stdout.splitlines() if line.startswith(mark)]
        return said[-1] if said else None

    def _for_user(self) -> list[str]:
        return [] if self.system else ["--user"]


def need(program: str) -> None:
    """Raises EdgeMnv2Error where this machine lacks a program of systemd."""
    if shutil.which(program) is None:
        raise EdgeMnv2Error(
            f"there is no {program} here: this system does not run systemd",
            hint="`edge-mnv2 service install --dry-run ...` prints the unit for one that does",
        )


def version() -> int:
    """The version of systemd here, 0 where there is none."""
    if shutil.which("systemctl") is None:
        return 0
    match = re.match(r"systemd (\d+)", _run(["systemctl", "--version"]).stdout)
    return int(match.group(1)) if match else 0


def faults(name: str, text: str, *, system: bool) -> Optional[list[str]]:
    """What `systemd-analyze verify` finds wrong in a unit; None where it cannot be asked."""
    done = _analyze(name, text, ["verify", "--man=no", *([] if system else ["--user"])])
    if done is None:
        return None
    # Units of this machine that it loads on the way are not ours to judge.
    return [line for line in (done.stderr + done.stdout).splitlines() if f"{name}.service" in line]


def exposure(name: str, text: str) -> Optional[str]:
    """The verdict of `systemd-analyze security`, such as "2.3 OK" of 10 (0 is best); None where it cannot be asked."""
    done = _analyze(name, text, ["security", "--offline=true", "--no-pager"])
    match = re.search(r"exposure level for \S+: (\d+\.\d+ \w+)", done.stdout) if done is not None else None
    return match.group(1) if match else None


def _analyze(name: str, text: str, words: Sequence[str]) -> Optional[subprocess.CompletedProcess[str]]:
    if shutil.which("systemd-analyze") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}.service")
        path.write_text(text, encoding="utf-8")
        return _run(["systemd-analyze", *words, str(path)])


def _run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    need(words[0])
    environment = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "SYSTEMD_COLORS": "0",
        "SYSTEMD_PAGER": "",
        "SYSTEMD_LOG_LEVEL": "warning",
    }
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, env=environment
    )


log = logging.getLogger(__name__)


def install(manager: Manager, name: str, text: str, *, log_hint: str) -> Optional[str]:
    """Write the unit, start it at every boot and now; what it says when it is ready, None where it only starts at boot.

    Raises UsageError where the file cannot be written, EdgeMnv2Error where systemd refuses or the service does not
    become ready (it is then tried again by systemd; the exit code is that of the command).
    """
    need("systemctl")
    if not manager.system and not manager.running:
        raise EdgeMnv2Error(
            "no systemd of this user is running", hint="log in as that user (not with su), or install it with sudo"
        )
    path = manager.unit_path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "w") as handle:
            handle.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="run it with sudo") from None
    if not manager.running:
        # `enable` makes links and needs no manager: an image is prepared this way.
        manager.call("enable", f"{name}.service")
        return None
    manager.call("daemon-reload")
    manager.call("enable", f"{name}.service")
    log.info("starting; this takes until the first inference")
    done = manager.call("restart", f"{name}.service", check=False)
    facts = manager.facts(name)
    if done.returncode or facts.get("ActiveState") != "active":
        why = manager.last_error(name) or facts.get("Result", "unknown")
        failed = EdgeMnv2Error(
            f"{name} is installed but does not become ready, and systemd goes on trying: {why}", hint=log_hint
        )
        code = facts.get("ExecMainStatus", "0")
        failed.exit_code = int(code) if code.isdigit() and 0 < int(code) < 9 else 1
        raise failed
    return facts.get("StatusText", "")


def refuse_a_second(manager: Manager, name: str, account: Account) -> None:
    """The system's and the user's of one name would take the camera from each other. Raises UsageError."""
    theirs = Manager(system=not manager.system, home=account.home).unit_path(name)
    if theirs.is_file():
        way = f"first, as {account.name}: edge-mnv2 service remove" if manager.system else "run this with sudo"
        raise UsageError(f"{theirs} is there already", hint=way)


def remove(manager: Manager, name: str) -> bool:
    """Stop it, start it no more, delete the unit. False where there is none. Raises UsageError, EdgeMnv2Error."""
    path = manager.unit_path(name)
    if not path.is_file():
        return False
    need("systemctl")
    if manager.running:
        manager.call("disable", "--now", f"{name}.service")
    else:
        manager.call("disable", f"{name}.service", check=False)
    try:
        path.unlink()
    except OSError as error:
        raise UsageError(f"{path} cannot be removed: {error.strerror}", hint="run it with sudo") from None
    if manager.running:
        manager.call("daemon-reload")
        manager.call("reset-failed", f"{name}.service", check=False)
    return True


def report(manager: Manager, name: str) -> dict[str, Any]:
    """What systemd knows; what it does not know is None. Raises EdgeMnv2Error without systemd."""
    need("systemctl")
    path = manager.unit_path(name)
    facts = manager.facts(name)
    return {
        "name": name,
        "scope": manager.scope,
        "unit": str(path),
        "installed": path.is_file(),
        "enabled": facts["UnitFileState"] == "enabled" if facts.get("UnitFileState") else None,
        "active": facts["ActiveState"] == "active" if facts.get("ActiveState") else None if path.is_file() else False,
        "state": f"{facts['ActiveState']} ({facts.get('SubState', '')})" if facts.get("ActiveState") else None,
        "since": facts.get("ActiveEnterTimestamp") or None,
        "status": facts.get("StatusText") or None,
        "pid": _number(facts.get("MainPID")) or None,
        "restarts": _number(facts.get("NRestarts")),
        "result": facts.get("Result") or None,
        "exit_code": _number(facts.get("ExecMainStatus")),
    }


def shown(status: dict[str, Any]) -> str:
    """A few lines for a person."""
    if not status["installed"]:
        return f"{status['name']} is not installed (edge-mnv2 service install --camera ...)"
    lines = [f"{status['name']}  {status['state'] or 'unknown: systemd does not answer'}"]
    rows = {
        "since": status["since"] if status["active"] else None,
        "status": status["status"],
        "restarts": status["restarts"],
        "last result": None if status["active"] else f"{status['result']}, exit code {status['exit_code']}",
        "at boot": {True: "yes", False: "no", None: None}[status["enabled"]],
        "unit": status["unit"],
    }
    return "\n".join(lines + [f"  {key:12}{value}" for key, value in rows.items() if value is not None])


def _number(text: Optional[str]) -> Optional[int]:
    return int(text) if text and text.isdigit() else None
