"""What `doctor --report FILE` writes for others to read: versions, board, checks, figures; nothing that is a secret.

User, host, home and temporary folders are replaced by words, credentials are left out, and of the board's serial number
there is not even a hash.
"""

from __future__ import annotations

import getpass
import json
import platform
import socket
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.addresses import redact
from edge_mnv2.board.detect import detect
from edge_mnv2.board.health import Health
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.html_report import write_page
from edge_mnv2.runtime.table import rows

_PACKAGES = ("numpy", "opencv-python-headless", "opencv-python", "typer")
_TIMES = 30
_SHORTEST = 3
"""A name of fewer letters would take words apart."""


def write_report(target: Path, checks: Sequence[dict[str, Any]]) -> None:
    """Write the report whole or not at all. Raises UsageError."""
    write_page(target, json.dumps(_without_names(report(checks)), indent=1, ensure_ascii=False) + "\n")


def report(checks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report's fields, names not yet replaced."""
    board = {name: value for name, value in vars(detect()).items() if name != "serial"}
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    versions.update({row.name: version for row in rows() if (version := row.version())})
    return {
        "edge_mnv2": _version("edge-mnv2"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "versions": versions,
        "board": board,
        "health": Health().sample().as_dict(),
        "figures": _figures(),
        "checks": list(checks),
    }


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _figures() -> dict[str, Any]:
    """The default model as `run` opens it, one inference after another."""
    import numpy as np

    from edge_mnv2.runtime.opening import open_classifiers
    from edge_mnv2.settings.profile import resolve

    try:
        with open_classifiers(resolve(), workers=1) as opened:
            classifier = opened.classifiers[0]
            grey = np.full((*classifier.input_size, 3), 128, np.uint8)
            took = [classifier.classify(grey).inference_ns / 1e6 for _ in range(_TIMES)]
            facts = {"model": opened.model, "runtime": opened.runtime, "delegate": opened.delegate}
            return {**facts, "threads": opened.threads, "inference_ms": round(median(took), 2)}
    except EdgeMnv2Error as error:
        return {"error": error.message}


def _without_names(value: Any) -> Any:
    """`value` with every text in it redacted."""
    if isinstance(value, dict):
        return {key: _without_names(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_names(one) for one in value]
    if not isinstance(value, str):
        return value
    text = redact(value)
    for name, word in _names():
        text = text.replace(name, word)
    return text


def _names() -> list[tuple[str, str]]:
    """(text, what stands for it), the longest first."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = ""
    known = [(str(paths.home()), "~"), (tempfile.gettempdir(), "TMP"), (socket.gethostname(), "HOST")]
    known += [(user, "USER")] if user != "root" else []
    return sorted([one for one in known if len(one[0]) >= _SHORTEST], key=lambda one: -len(one[0]))
