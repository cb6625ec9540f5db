"""The board during a measurement: what it draws, how warm it is, whether it throttles, and who else uses its CPUs."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Union

from edge_mnv2.board.health import Health, HealthMonitor, HealthSample

_MOST_READINGS = 10_000
"""Power readings that are held; a soak asks for the newest only."""

_POWER_INTERVAL_S = 0.25
_INTERVAL_S = 1.0


class Watch:
    """Samples the board under `root` in a thread of its own. A context manager; `before` is the sample at its start.

    `listener` is called with each sample, in that thread.
    """

    def __init__(self, root: Union[str, Path] = "/", listener: Optional[Callable[[HealthSample], None]] = None) -> None:
        health = Health(root)
        self.before = health.sample()
        self.measures_power = self.before.power_w is not None
        self._listener = listener
        self.npu_max_temp_c: Optional[float] = None
        """The highest so far; None where no sensor tells, as for the load."""
        self.npu_load: Optional[list[int]] = None
        """The highest so far of each core, percent."""
        self._drawn: deque[tuple[int, float]] = deque(maxlen=_MOST_READINGS)
        interval = _POWER_INTERVAL_S if self.measures_power else _INTERVAL_S
        self._monitor = HealthMonitor(health, interval, self._take)

    @property
    def latest(self) -> HealthSample:
        sample = self._monitor.sample
        return sample if sample.taken_at else self.before

    def newest(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(temperature, words of throttling), as the frame loop asks for them."""
        return self.latest.heat

    def worst(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(highest temperature, every word of throttling) since the start."""
        return self._monitor.worst()

    def watts(self, spans: list[tuple[int, int]]) -> Optional[float]:
        """Mean of what the board drew in these spans of monotonic nanoseconds, W; None without a sensor."""
        drawn = [watts for at, watts in tuple(self._drawn) if any(began <= at <= ended for began, ended in spans)]
        return sum(drawn) / len(drawn) if drawn else None

    def _take(self, sample: HealthSample) -> None:
        if sample.power_w is not None:
            self._drawn.append((sample.taken_at, sample.power_w))
        if sample.npu_temp_c is not None:
            self.npu_max_temp_c = max(sample.npu_temp_c, self.npu_max_temp_c or sample.npu_temp_c)
        if sample.npu_load is not None:
            self.npu_load = [max(pair) for pair in zip(sample.npu_load, self.npu_load or sample.npu_load)]
        if self._listener is not None:
            self._listener(sample)

    def __enter__(self) -> Watch:
        self._monitor.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._monitor.stop()


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
    children: list[str] = []
    # OSError: a thread that has just ended, or a kernel without these files.
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            children += (task / "children").read_text().split()
    return children


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
