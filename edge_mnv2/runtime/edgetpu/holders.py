"""Which processes have a device file open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.board.sysroot import Sysroot

_SHOWN = 60


@dataclass(frozen=True)
class Holder:
    """A process that has the device open; `command` is how it was started, shortened."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def command_of(pid: int, system: Optional[Sysroot] = None) -> str:
    """How process `pid` was started, without the program's folder; "unknown" where it cannot be read."""
    system = system or Sysroot()
    arguments = (system.read_bytes(f"proc/{pid}/cmdline") or b"").split(b"\0")
    words = [word.decode(errors="replace") for word in arguments if word]
    if not words:
        return system.read(f"proc/{pid}/comm") or "unknown"
    shown = " ".join([words[0].rsplit("/", 1)[-1], *words[1:]])
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


def find(node: str, system: Sysroot, *, but: Iterable[int] = ()) -> list[Holder]:
    """Processes, other than those of `but`, that have `node` open. Other users' processes are seen by root only."""
    ignored = {str(pid) for pid in but}
    pids = [name for name in system.names("proc") if name.isdigit() and name not in ignored]
    return [Holder(int(pid), command_of(int(pid), system)) for pid in pids if _has_open(pid, node, system)]


def _has_open(pid: str, node: str, system: Sysroot) -> bool:
    folder = system.path / "proc" / pid / "fd"
    try:
        return any(str(link.readlink()) == node for link in folder.iterdir())
    except OSError:
        return False
