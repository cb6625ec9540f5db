"""Standard streams that can be counted on, whatever the shell, the service manager or the locale hands over."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO, Optional


def prepare() -> None:
    """Put a stream in the place of each that is closed, and let stdout take every name a file can have.

    What is written to a closed stdout fails as on a full disk; what is written to a closed stderr is dropped.
    """
    sys.stdin = sys.stdin or _null(os.O_RDONLY, "r")
    # It can be opened, but not written to.
    sys.stdout = sys.stdout or _null(os.O_RDONLY, "w")
    sys.stderr = sys.stderr or _null(os.O_WRONLY, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        if isinstance(sys.stdout.buffer, io.RawIOBase):
            # PYTHONUNBUFFERED: what could not be written has to stay for `problem`.
            sys.stdout = io.TextIOWrapper(io.BufferedWriter(sys.stdout.buffer), line_buffering=True)
        # Programs are promised UTF-8, a terminal keeps its own encoding. The escape of a byte that is no text (\udce9)
        # is JSON's own.
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def problem(stdout: IO[str]) -> Optional[OSError]:
    """Why what was printed there cannot be written, None where it has been. After that, what is left is dropped."""
    try:
        stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stdout.fileno())
            os.close(null)
        return error
    return None


def _null(flags: int, mode: str) -> IO[str]:
    descriptor = os.open(os.devnull, flags)
    # Programs that are started find it in the closed one's place.
    os.set_inheritable(descriptor, True)
    return open(descriptor, mode, encoding="utf-8", errors="backslashreplace", closefd=False)
