"""What pyproject.toml declares, read without a TOML parser (Python 3.9 and 3.10 have none)."""

from __future__ import annotations

import re
from pathlib import Path


def extras() -> set[str]:
    """The names of the optional dependencies."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    return set(re.findall(r"^([a-z-]+) = ", section, re.M))
