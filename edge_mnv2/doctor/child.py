"""Try something in a child process: what kills it must not kill the doctor."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass

_FIXES = {
    "SIGILL": "an installed wheel is built for a newer CPU than this one: install the distribution's package instead "
    "(apt install python3-numpy python3-opencv), or a 64-bit system",
    "SIGSEGV": "two packages do not fit each other: recreate the environment (run install.sh again)",
    "SIGBUS": "the storage or memory failed while a library was read: check the card and `dmesg`",
    "SIGKILL": "the system ended it, most likely for want of memory: close other programs or add swap",
    "SIGABRT": "a library gave up while it was loaded: recreate the environment (run install.sh again)",
}


@dataclass(frozen=True)
class Tried:
    """How a child ended: `output` of a good one, else what went wrong and what to do."""

    ok: bool
    output: str
    fix: str = ""


def run_python(code: str, *arguments: str, timeout: float = 120.0) -> Tried:
    """Run `code` in this Python, in a process of its own."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Tried(False, f"no answer after {timeout:.0f} s", "look at `dmesg` and the load of the machine")
    except OSError as error:
        return Tried(False, f"cannot start {sys.executable}: {error.strerror}", "check the Python installation")
    if done.returncode == 0:
        return Tried(True, done.stdout.strip())
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return Tried(False, f"the process was killed by {name}", _FIXES.get(name, "run it again with --debug"))
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return Tried(False, lines[-1] if lines else f"exit code {done.returncode}", "")
