"""Whose service it is: the user that it runs as, the folders of that user, what that user may write."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.errors import UsageError

_FOLDERS = ("EDGE_MNV2_CACHE_DIR", "EDGE_MNV2_CONFIG_DIR", "EDGE_MNV2_STATE_DIR", "EDGE_MNV2_MIRROR")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_XDG = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")


@dataclass(frozen=True)
class Account:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    home: Path

    @classmethod
    def named(cls, name: Optional[str]) -> Account:
        """The user `name`; without a name the one who called sudo, else the current one. Raises UsageError."""
        if name is None and os.geteuid() == 0:
            name = os.environ.get("SUDO_USER") or None
        try:
            entry = pwd.getpwnam(name) if name else pwd.getpwuid(os.geteuid())
        except KeyError:
            raise UsageError(f"there is no user {name or os.geteuid()}", hint="`getent passwd` lists them") from None
        home = Path(entry.pw_dir)
        if entry.pw_uid == os.geteuid():
            home = Path(os.environ.get("HOME") or home)
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, home)

    @property
    def is_current(self) -> bool:
        return self.uid == os.geteuid()

    @property
    def groups(self) -> frozenset[str]:
        """The names of the groups that the user belongs to by the system's files."""
        names = set()
        for number in os.getgrouplist(self.name, self.gid):
            with contextlib.suppress(KeyError):
                names.add(grp.getgrgid(number).gr_name)
        return frozenset(names)

    @property
    def lingers(self) -> bool:
        """Whether the user's services start at boot, without a login."""
        return Path("/var/lib/systemd/linger", self.name).exists()

    def environment(self) -> dict[str, str]:
        """What of this process's environment is the user's own and says where the tool's folders are."""
        own = {name: os.environ[name] for name in _FOLDERS if os.environ.get(name)}
        if self.is_current:
            own.update({name: os.environ[name] for name in _XDG if os.environ.get(name, "").startswith("/")})
        return own

    @contextlib.contextmanager
    def stands_in(self, variables: dict[str, str]) -> Iterator[None]:
        """Read settings as the service will: the user's home, and of ours `variables` alone."""
        before = dict(os.environ)
        for name in before:
            if name.startswith("EDGE_MNV2_") or (name in _XDG and not self.is_current):
                del os.environ[name]
        os.environ["HOME"] = str(self.home)
        os.environ.update({**{name: before[name] for name in _FOLDERS if before.get(name)}, **variables})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def own_folders(self) -> list[Path]:
        """Models and what is remembered (call it inside `stands_in`)."""
        return [paths.cache_dir(), paths.state_dir()]

    def make_folder(self, folder: Path) -> None:
        """Make `folder` as the user where it is not there. Raises UsageError where the user cannot write to it."""
        if self._as_user("mkdir", "-p", str(folder)).returncode or self._as_user("test", "-w", str(folder)).returncode:
            raise UsageError(
                f"{folder} cannot be written by {self.name}",
                hint="choose another place, or give that user the right to it",
            )

    def can_run(self, program: Path) -> bool:
        """Whether the user has the right to start `program`, which may lie in the home of another."""
        return self._as_user(str(program), "--version").returncode == 0

    def read(self, path: Path) -> Optional[str]:
        """The text of a file that the user can read, None where there is none.

        Read by the user and not by us: a link in the user's folder must not lead to a file of root's.
        """
        if self._as_user("test", "-e", str(path)).returncode:
            return None
        done = self._as_user("cat", "--", str(path))
        if done.returncode:
            raise UsageError(f"{path} cannot be read by {self.name}")
        try:
            return done.stdout.decode()
        except UnicodeDecodeError:
            raise UsageError(f"{path} is no UTF-8 text") from None

    def write_private(self, path: Path, text: str) -> None:
        """Write a file as the user, who alone can read it. Raises UsageError."""
        script = 'umask 077 && mkdir -p -- "$1" && cat > "$2.part" && mv -f -- "$2.part" "$2"'
        done = self._as_user("sh", "-c", script, "sh", str(path.parent), str(path), content=text.encode())
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["unknown reason"]
            raise UsageError(f"{path} cannot be written by {self.name}: {why[0]}", hint="secrets of a service go there")

    def _as_user(self, *command: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """`command`, run by the user, who gets nothing of our environment but the folders and the language."""
        how: dict[str, Any] = {}
        if not self.is_current:
            groups = os.getgrouplist(self.name, self.gid)
            how = {"user": self.uid, "group": self.gid, "extra_groups": groups}
        environment = {"PATH": _PATH, "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        try:
            return subprocess.run(
                command, check=False, cwd="/", input=content, capture_output=True, env=environment, **how
            )
        except OSError:
            return subprocess.CompletedProcess(command, 127, b"", b"")
