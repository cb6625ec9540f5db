"""The command that a service runs: which program, its words made independent of the working folder, what it needs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.service.account import Account
from edge_mnv2.settings.option import Option
from edge_mnv2.zoo.latest import name_of

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Needs:
    """What the command uses beyond reading files: decides what its sandbox must leave open."""

    written: tuple[Path, ...]
    network: bool
    bound_port: Optional[int]
    groups: tuple[str, ...]
    """Groups that own the outputs' devices."""
    devices: tuple[str, ...]
    """Those of the outputs and the runtime, as DeviceAllow= has them."""
    desktop: bool
    pipeline: bool
    edgetpu: bool
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
    edgetpu: bool,
) -> Needs:
    """What a run of these `outputs` needs.

    `texts` are all its options' values, `own` the tool's own folders, `devices` those of its runtime.
    """
    written = []
    for row in outputs.outputs:
        for option in row.options:
            if option.path in ("file", "folder") and outputs[option.name]:
                path = Path(outputs[option.name]).absolute()
                written.append(path.parent if option.path == "file" else path)
    texts = list(texts)
    remote = source.partition(":")[0] in ("rtsp", "rtsps", "http", "https")
    ports = [int(getattr(outputs[row.switch.name], "port", 0)) for row in outputs.outputs if row.listens]
    return Needs(
        written=tuple(dict.fromkeys([*own, *written])),
        network=remote or any(row.network for row in outputs.outputs) or any(map(name_of, texts)),
        bound_port=ports[0] if ports else None,
        groups=tuple(dict.fromkeys(group for row in outputs.outputs for group in row.groups)),
        devices=tuple(dict.fromkeys([*devices, *(device for row in outputs.outputs for device in row.devices)])),
        desktop=any(row.desktop for row in outputs.outputs),
        pipeline=source.startswith(("gst:", "csi")),
        edgetpu=edgetpu,
        temporary=any(
            value.startswith(("/tmp/", "/var/tmp/"))
            for value in [str(program()), source, *map(str, own), *map(str, written), *texts]
        ),
    )
