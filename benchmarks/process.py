"""Commands that answer with one JSON document on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any


def on_cores(cores: Iterable[int], command: list[str]) -> list[str]:
    """`command`, held to these cores."""
    return ["taskset", "-c", ",".join(map(str, sorted(cores))), *command]


def answer(command: list[str]) -> Any:
    """What `command` prints; where it fails, this program ends with its last words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:8])} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)
