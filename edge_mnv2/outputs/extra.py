"""Packages that only some outputs need."""

from __future__ import annotations

import importlib
from types import ModuleType

from edge_mnv2.errors import UsageError


def need(module: str, extra: str, option: str) -> ModuleType:
    """Import `module`, which `option` needs and the extra `extra` brings. Raises UsageError where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = getattr(error, "name", None) or module
        raise UsageError(
            f"{option} needs the package {missing}",
            hint=f"pip install 'edge-mnv2[{extra}]', or install.sh --extras {extra}",
        ) from None
