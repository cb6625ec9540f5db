"""PyTorch is needed for training only, and is said to be missing in one line."""

from __future__ import annotations

import importlib.util
import os

from edge_mnv2.errors import UsageError


def require_torch() -> None:
    """Raises UsageError where PyTorch is not installed or does not start."""
    hint = "training needs PyTorch, on a workstation: pip install 'edge-mnv2[train]'"
    if importlib.util.find_spec("torch") is None:
        raise UsageError("PyTorch is not installed", hint=hint)
    # Threads that wait for one another shall sleep, not spin: beside other work on the same cores, spinning made a step
    # thirty times slower, and sleeping costs nothing that can be measured. It has to be said before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(f"PyTorch does not start ({error})", hint=hint) from error
