"""A small model that a measurement takes little time over, and processes that profile."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def start(*arguments: object, **more: Any) -> subprocess.Popen:
    """`edge-mnv2 profile ...` as a process of its own."""
    command = [sys.executable, "-m", "edge_mnv2", "profile", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
