"""How this copy was installed, and so how to get what it lacks: hints that work when they are typed. And rows that
installed packages add to our tables, found without `importlib.metadata`.

An entry point names a row of the table that its group stands for:

    [project.entry-points."edge_mnv2.outputs"]
    conveyor = "my_package:OUTPUT"

Every start of `run` asks for them: each package's `entry_points.txt` is looked at once, and only one that names a group
of ours is read. `importlib.metadata` would cost a tenth of a start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, TypeVar
from urllib.parse import unquote, urlsplit

from edge_mnv2.errors import EdgeMnv2Error, UsageError

log = logging.getLogger(__name__)

Row = TypeVar("Row")
_OURS = b"edge_mnv2."


def offered(group: str) -> dict[str, str]:
    """Name → "module:attribute" of every entry point in `group`. The first on `sys.path` counts."""
    return _groups(tuple(sys.path)).get(group, {})


def rows_of_packages(group: str, kind: type[Row]) -> tuple[tuple[str, Row], ...]:
    """(name, row) of every entry point in `group` that names a `kind`.

    A package that cannot be used is said once and left out: it must not end every run.
    """
    return _rows(tuple(offered(group).items()), kind)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=8)
def _rows(points: tuple[tuple[str, str], ...], kind: type[Row]) -> tuple[tuple[str, Row], ...]:
    rows = []
    for name, target in points:
        try:
            # What the package prints would stand between results.
            with contextlib.redirect_stdout(sys.stderr):
                row = load(target)
            if not isinstance(row, kind):
                raise TypeError(f"{target} is no {kind.__name__}")
            check_declaration(row)
        except (Exception, SystemExit) as error:
            log.warning("%s of an installed package is left out: %s: %s", name, type(error).__name__, error)
        else:
            rows.append((name, row))
    return tuple(rows)


def _texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


_DECLARED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "a text"),
    "Optional[str]": (lambda value: value is None or isinstance(value, str), "a text or None"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "tuple[str, ...]": (_texts, 'a tuple of texts, such as ("a", "b")'),
    "tuple[tuple[str, str], ...]": (
        lambda value: isinstance(value, tuple) and all(_texts(pair) and len(pair) == 2 for pair in value),
        'a tuple of pairs of texts, such as (("mine[:N]", "mine(:[0-9])?"),)',
    ),
    "Kind": (lambda value: hasattr(value, "parse"), "a Kind"),
    "tuple[Option, ...]": (
        lambda value: isinstance(value, tuple) and len(value) > 0 and all(map(dataclasses.is_dataclass, value)),
        "a tuple of Options",
    ),
}
"""What a row's field of this annotation holds, and in words."""


def check_declaration(row: Any) -> None:
    """Raises TypeError for a field of the dataclass `row` that holds something else than is declared: whoever reads
    rows trusts them. Lists become tuples."""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if isinstance(value, list) and str(field.type).startswith("tuple"):
            value = tuple(tuple(one) if isinstance(one, list) else one for one in value)
            object.__setattr__(row, field.name, value)
        fits, words = _DECLARED.get(str(field.type), (None, ""))
        if fits is not None and not fits(value):
            raise TypeError(f"{field.name}={value!r} is not {words}")
        for one in value if field.type == "tuple[Option, ...]" else ():
            check_declaration(one)


@contextlib.contextmanager
def blamed(row: Any, ours: Sequence[Any], kind: type[EdgeMnv2Error]) -> Iterator[None]:
    """What code behind `row`, which a package brought (it is none of `ours`), raises inside becomes a `kind` that names
    it. Our errors, and those of our rows, pass."""
    try:
        yield
    except EdgeMnv2Error:
        raise
    except (Exception, SystemExit) as error:
        if row in ours:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise kind(f"{row.name} of an installed package fails: {reason}", hint="ask those who made it") from error


def load(target: str) -> Any:
    """What "module:attribute" names. Raises whatever the package raises."""
    module, _, attribute = target.partition(":")
    value: Any = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        value = getattr(value, part)
    return value


@functools.lru_cache(maxsize=4)
def _groups(path: tuple[str, ...]) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    for folder in path:
        try:
            with os.scandir(folder or ".") as entries:
                packages = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for package in sorted(packages):
            try:
                data = Path(package, "entry_points.txt").read_bytes()
            except OSError:
                continue
            if _OURS in data:
                _read(data.decode("utf-8", "replace"), groups)
    return groups


def _read(text: str, groups: dict[str, dict[str, str]]) -> None:
    """The INI form of the entry points specification: sections, `name = module:attribute [extras]`, comments."""
    group = ""
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            group = line.strip("[] ")
        elif "=" in line and group:
            name, _, target = line.partition("=")
            groups.setdefault(group, {}).setdefault(name.strip(), target.partition("[")[0].strip())


_NAME = "edge-mnv2"
RECORD = "edge-mnv2-install"
"""What install.sh writes into its environment: `extras=`, `version=` and `from=`, one a line."""


def extra_hint(extra: str) -> str:
    """The command that adds the optional part `extra` ("window", "train", ...) to this installation."""
    record = _record()
    if record is not None:
        extras = ",".join(sorted({extra, *filter(None, record.get("extras", "").split(","))}))
        return f"{_script(record)} --extras {extras}"
    checkout = _checkout()
    if checkout is not None:
        return f"{pip()} -e {shlex.quote(f'{checkout}[{extra}]')}"
    packages = _requirements(extra)
    return f"{pip()} {' '.join(map(shlex.quote, packages))}" if packages else f"install the extra {extra}"


def repair_hint() -> str:
    """The command that makes this installation anew."""
    record = _record()
    if record is not None:
        return _script(record)
    return f"{pip()} --force-reinstall {_checkout() or _NAME}"


def pip() -> str:
    """`pip install` for the Python that runs this, whichever pip comes first on PATH."""
    first = shutil.which("pip")
    beside = Path(sys.executable).with_name("pip")
    return "pip install" if first and Path(first) == beside else f"{shlex.quote(sys.executable)} -m pip install"


def _script(record: dict[str, str]) -> str:
    return f"sh {shlex.quote(record['from'])}" if Path(record.get("from", "")).is_file() else "./install.sh"


def _record() -> Optional[dict[str, str]]:
    try:
        lines = Path(sys.prefix, RECORD).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _checkout() -> Optional[Path]:
    """The clone of the project that this is installed from in place (`pip install -e`)."""
    # Every run imports this file, and that module costs a tenth of a start.
    from importlib import metadata

    try:
        url = json.loads(metadata.distribution(_NAME).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        url = {}
    if url.get("dir_info", {}).get("editable"):
        return Path(unquote(urlsplit(url["url"]).path))
    here = Path(__file__).resolve().parent.parent
    return here if (here / "pyproject.toml").is_file() else None


def _requirements(extra: str) -> list[str]:
    """The packages of an extra, as pip takes them, without those for other machines' names."""
    from importlib import metadata

    try:
        texts = metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:
        return []
    marked = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
    return [text.partition(";")[0].strip() for text in texts if marked.search(text.partition(";")[2])]


def need(module: str, extra: str, option: str) -> ModuleType:
    """Import `module`, which `option` needs and `extra` brings ("": any installation). Raises UsageError without."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = getattr(error, "name", None) or module
        hint = extra_hint(extra) if extra else f"{pip()} {missing}"
        raise UsageError(f"{option} needs the package {missing}", hint=hint) from None
