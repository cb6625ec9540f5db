"""The systemd of this machine, through its own programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import EdgeMnv2Error

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
    found = re.match(r"systemd (\d+)", _run(["systemctl", "--version"]).stdout)
    return int(found.group(1)) if found else 0


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
    found = re.search(r"exposure level for \S+: (\d+\.\d+ \w+)", done.stdout) if done is not None else None
    return found.group(1) if found else None


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
