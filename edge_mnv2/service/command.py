"""The command that a service runs: which program, its words made independent of the working folder, what it needs; and
whose it is: the user that it runs as, the folders of that user, what that user may write.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.board import accelerators
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.settings.option import Option
from edge_mnv2.zoo.latest import name_of

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


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Needs:
    """What the command uses beyond reading files: decides what its sandbox must leave open."""

    written: tuple[Path, ...]
    network: bool
    bound_port: Optional[int]
    groups: tuple[str, ...]
    """Groups that own the devices."""
    devices: tuple[str, ...]
    """Those of accelerators, the runtime and the outputs, as DeviceAllow= has them."""
    desktop: bool
    pipeline: bool
    temporary: bool
    """Whether it uses files under /tmp, which a private /tmp would hide."""


def program() -> Path:
    """The console script that was started, not what its links lead to: an upgrade moves the links."""
    called = sys.argv[0]
    path_of_called = shutil.which(called) if os.sep not in called else called
    path = Path.cwd() / (path_of_called or called)
    if path.name.startswith("edge-mnv2") and os.access(path, os.X_OK):
        return path
    return Path(sys.executable).parent / "edge-mnv2"


def absolute(words: Sequence[str], folder: Path, options: Iterable[Option]) -> list[str]:
    """`words` with the paths of files that `options` name made absolute, as seen from `folder`."""
    paths = {f"--{option.name}": option for option in options if option.path}
    done: list[str] = []
    before: Optional[Option] = None
    for word in words:
        name, equals, value = word.partition("=")
        if before is not None:
            done.append(_absolute(before, word, folder))
            before = None
        elif equals and name in paths:
            done.append(f"{name}={_absolute(paths[name], value, folder)}")
        else:
            done.append(word)
            before = paths.get(word)
    return done


def _absolute(option: Option, value: str, folder: Path) -> str:
    if value == "-":
        return value
    path = Path(value).expanduser()
    written = option.path != "read"
    if written or (not path.is_absolute() and (folder / path).exists()) or value.startswith("~"):
        return os.path.normpath(folder / path)
    return value


def without_secrets(words: Sequence[str], options: Iterable[Option]) -> tuple[list[str], dict[str, str]]:
    """`words` without the options whose values other users may not see, and those values by their variables."""
    known = {f"--{option.name}": option for option in options if not option.flag}
    rest: list[str] = []
    secrets: dict[str, str] = {}
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        option = known.get(name)
        follows = [] if option is None or equals else [next(waiting, "")]
        text = value if equals else "".join(follows)
        if option is not None and option.secret(text):
            # A repeated option's variable has its values with blanks between.
            earlier = secrets.get(option.variable)
            secrets[option.variable] = f"{earlier} {text}" if earlier else text
        else:
            rest += [word, *follows]
    return rest, secrets


def variables(path: Path, account: Optional[Account] = None) -> dict[str, str]:
    """The `NAME=VALUE` lines of an EnvironmentFile of systemd; none where there is no file. Raises UsageError."""
    values = {}
    for number, line in enumerate(((account or Account.named(None)).read(path) or "").splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        try:
            value = " ".join(shlex.split(value))
        except ValueError:
            equals = ""
        if not equals or not _NAME.fullmatch(name):
            raise UsageError(f"{path}:{number} is not NAME=VALUE", hint="a value with blanks goes in double quotes")
        values[name] = value
    return values


def keep_secrets(path: Path, secrets: Mapping[str, str], account: Account) -> None:
    """Put `secrets` into the environment file of `account`, who alone can read it; other lines stay."""
    lines = (account.read(path) or "").splitlines()
    rest = [line for line in lines if line.partition("=")[0].strip() not in secrets]
    added = [f"{name}={_in_quotes(value)}" for name, value in secrets.items()]
    account.write_private(path, "\n".join([*rest, *added]) + "\n")


def _in_quotes(value: str) -> str:
    """A value as systemd's EnvironmentFile= and `variables` read it."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def needs(
    outputs: OutputValues,
    texts: Iterable[str],
    source: str,
    own: Sequence[Path],
    *,
    devices: Iterable[str] = (),
    delegate: str = "none",
) -> Needs:
    """What a run of these `outputs` needs.

    `texts` are all its options' values, `own` the tool's own folders, `devices` those of its runtime. `delegate`
    as `--delegate` has it: all but "none" may come to use whatever is plugged in. Raises UsageError for a place that
    `run` would refuse at every boot.
    """
    asked, plugged = accelerators.named(delegate), () if delegate == "none" else accelerators.rows()
    rows = outputs.outputs
    open_devices = [each for row in plugged for each in row.devices]
    groups = [*(each for row in plugged for each in row.groups), *(each for row in rows for each in row.groups)]
    written = []
    for row in outputs.outputs:
        for option in row.options:
            if option.path in ("file", "folder") and outputs[option.name]:
                path = Path(outputs[option.name]).absolute()
                folder = path.parent if option.path == "file" else path
                written.append(folder)
                # What this user may not look into is no obstacle: the service may run as another.
                with contextlib.suppress(PermissionError):
                    if option.path == "file" and path.is_dir():
                        raise UsageError(f"--{option.name} {path} is a folder", hint="name a file in it")
                    if folder.exists() and not folder.is_dir():
                        raise UsageError(f"--{option.name} {path}: {folder} is no folder", hint="name a folder")
    texts = list(texts)
    remote = source.partition(":")[0] in ("rtsp", "rtsps", "http", "https")
    ports = [int(getattr(outputs[row.switch.name], "port", 0)) for row in outputs.outputs if row.listens]
    return Needs(
        written=tuple(dict.fromkeys([*own, *written])),
        network=remote or any(row.network for row in outputs.outputs) or any(map(name_of, texts)),
        bound_port=ports[0] if ports else None,
        groups=tuple(dict.fromkeys(groups)),
        devices=tuple(dict.fromkeys([*open_devices, *devices, *(each for row in rows for each in row.devices)])),
        desktop=any(row.desktop for row in outputs.outputs),
        pipeline=source.startswith(("gst:", "csi")) or (asked is not None and asked.unlisted),
        temporary=any(
            value.startswith(("/tmp/", "/var/tmp/"))
            for value in [str(program()), source, *map(str, own), *map(str, written), *texts]
        ),
    )
