"""CPU time that this process takes, and that other programs take from it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class CpuUse:
    """CPU seconds of an interval of `wall_s`: our own (with our child processes) and those of every other program.

    `others_s` is None where `/proc/stat` does not tell.
    """

    wall_s: float
    own_s: float
    others_s: Optional[float]

    @property
    def others(self) -> Optional[float]:
        """How many CPUs other programs kept busy, on average."""
        return None if self.others_s is None or not self.wall_s else self.others_s / self.wall_s


class CpuMeter:
    """Counts from its creation on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._own = own_seconds()
        self._busy = _busy_seconds()

    def read(self) -> CpuUse:
        own = own_seconds() - self._own
        busy = _busy_seconds()
        others = None if busy is None or self._busy is None else max(0.0, busy - self._busy - own)
        return CpuUse(time.monotonic() - self._began, own, others)


def own_seconds() -> float:
    """CPU seconds of this process so far, and of the child processes that it has now (an Edge TPU has its own)."""
    return time.process_time() + sum(map(_process_seconds, _children()))


def _children() -> list[str]:
    found: list[str] = []
    try:
        for task in Path("/proc/self/task").iterdir():
            found += (task / "children").read_text().split()
    except OSError:
        # A thread that has just ended, or a kernel without these files.
        pass
    return found


def _process_seconds(process: str) -> float:
    try:
        # The name in parentheses may hold blanks; utime and stime are the 12th and 13th fields after it.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _busy_seconds() -> Optional[float]:
    """CPU seconds since boot that were not idle: user, nice, system, irq, softirq, steal of `/proc/stat`."""
    try:
        with open("/proc/stat") as handle:
            fields = [int(word) for word in handle.readline().split()[1:9]]
        return sum(fields[n] for n in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
