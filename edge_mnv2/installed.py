"""How this copy was installed, and so how to get what it lacks: hints that work when they are typed."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Optional
from urllib.parse import unquote, urlsplit

from edge_mnv2.errors import UsageError

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
