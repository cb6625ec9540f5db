"""Who has a device: the processes that have it open, and a lock that ends with the process that took it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.supervised import DeviceHeld

_LOCK_FOLDER = "EDGE_MNV2_LOCK_DIR"
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


def holders_of(node: str, system: Sysroot, *, but: Iterable[int] = ()) -> list[Holder]:
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


class DeviceLock:
    """The lock on the device at `port`, a word that means this one; `what` it is, for messages.

    The file stays behind, only the kernel's lock on it counts: it ends with the process, whatever ends that. `folder`
    is `EDGE_MNV2_LOCK_DIR`, else `/run/lock`, else the folder for temporary files.
    """

    def __init__(self, port: str, folder: Optional[Path] = None, what: str = "it") -> None:
        self.port, self.what = port, what
        self.path = (folder or _lock_folder()) / f"edge-mnv2-{re.sub(r'[^A-Za-z0-9._-]', '_', port)}.lock"
        self._descriptor: Optional[int] = None

    def acquire(self, device: str) -> bool:
        """Take it (False: it is ours already), or raise DeviceHeld with the holder's pid.

        `device` names the device in the message.
        """
        if self._descriptor is not None:
            return False
        descriptor = _open_lock(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _written_pid(descriptor)
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise AcceleratorError(f"{self.path} cannot be locked: {error.strerror}") from error
            holder = f"process {pid} ({command_of(pid)})" if pid else "another process"
            raise DeviceHeld(f"{device} is used by {holder}", pid, self.what) from None
        with contextlib.suppress(OSError):  # a file of another user may be read-only for us: it locks all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> DeviceLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _lock_folder() -> Path:
    if named := os.environ.get(_LOCK_FOLDER):
        return Path(named).expanduser()
    common = Path("/run/lock")
    return common if os.access(common, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _open_lock(path: Path) -> int:
    """A descriptor on the lock file; every user can lock it, whoever made it. Raises AcceleratorError."""
    failure: Optional[OSError] = None
    # Opened before it is made: in a sticky folder the kernel refuses O_CREAT on a file of another user.
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            failure = error
            continue
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o666)
        return descriptor
    assert failure is not None
    raise AcceleratorError(
        f"the lock file {path} cannot be opened: {failure.strerror}", hint=f"name a writable folder in {_LOCK_FOLDER}"
    ) from failure


def _written_pid(descriptor: int) -> Optional[int]:
    try:
        pid = int(os.pread(descriptor, 32, 0).split()[0])
        os.kill(pid, 0)
    except PermissionError:
        return pid
    except (OSError, ValueError, IndexError):
        return None
    return pid
