"""The command that a service runs: which program, its words made independent of the working folder, what it needs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from edge_mnv2.errors import UsageError

_FILES = ("--log", "--record", "--snapshots")
_MAYBE_FILES = ("--model", "--labels", "--device", "--source", "--camera")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRETS = ("web_token", "mqtt", "webhook")


@dataclass(frozen=True)
class Needs:
    """What the command uses beyond reading files: decides what its sandbox must leave open."""

    written: tuple[Path, ...]
    network: bool
    bound_port: Optional[int]
    window: bool
    gpio: bool
    pipeline: bool
    edgetpu: bool
    temporary: bool
    """Whether it uses files under /tmp, which a private /tmp would hide."""
    secrets: tuple[str, ...]
    """Options on the command line that everyone can read in the unit."""


def program() -> Path:
    """The console script that was started, not what its links lead to: an upgrade moves the links."""
    called = sys.argv[0]
    path_of_called = shutil.which(called) if os.sep not in called else called
    path = Path.cwd() / (path_of_called or called)
    if path.name.startswith("edge-mnv2") and os.access(path, os.X_OK):
        return path
    return Path(sys.executable).parent / "edge-mnv2"


def absolute(words: Sequence[str], folder: Path) -> list[str]:
    """`words` with the paths of files that they name made absolute, as seen from `folder`."""
    done: list[str] = []
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        if option:
            done.append(_absolute(option, word, folder))
            option = ""
        elif equals and name in _FILES + _MAYBE_FILES:
            done.append(f"{name}={_absolute(name, value, folder)}")
        else:
            done.append(word)
            option = word if word in _FILES + _MAYBE_FILES else ""
    return done


def _absolute(option: str, value: str, folder: Path) -> str:
    if value == "-":
        return value
    path = Path(value).expanduser()
    if option in _FILES or (not path.is_absolute() and (folder / path).exists()) or value.startswith("~"):
        return os.path.normpath(folder / path)
    return value


def variables(path: Path) -> dict[str, str]:
    """The `NAME=VALUE` lines of an EnvironmentFile of systemd; none where there is no file. Raises UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
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


def needs(parameters: Mapping[str, Any], on_line: Sequence[str], source: str, own: Sequence[Path]) -> Needs:
    """What `run` with `parameters` needs; `on_line` are those given as words, `own` the tool's own folders."""
    written = [Path(parameters[name]).absolute().parent for name in ("log", "record") if parameters.get(name)]
    if parameters.get("snapshots"):
        written.append(Path(parameters["snapshots"]).absolute())
    port = None
    if parameters.get("web"):
        port = int(str(parameters["web"]).rpartition(":")[2]) if str(parameters["web"])[-1:].isdigit() else None
    remote = source.partition(":")[0] in ("rtsp", "rtsps", "http", "https")
    secret = [
        name
        for name in _SECRETS
        if name in on_line and (name == "web_token" or "@" in urlsplit(str(parameters[name])).netloc)
    ]
    return Needs(
        written=tuple(dict.fromkeys([*own, *written])),
        network=remote or any(parameters.get(name) for name in ("web", "mqtt", "webhook", "sink")),
        bound_port=port,
        window=bool(parameters.get("window")),
        gpio=bool(parameters.get("gpio")),
        pipeline=source.startswith(("gst:", "csi")),
        temporary=any(
            value.startswith(("/tmp/", "/var/tmp/"))
            for value in [str(program()), source, *map(str, own), *map(str, written), *map(str, parameters.values())]
        ),
        edgetpu=parameters.get("delegate") != "none",
        secrets=tuple("--" + name.replace("_", "-") for name in secret),
    )
