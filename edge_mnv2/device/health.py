"""How the board is doing: temperature, clock, throttling, power, memory. What is absent is None."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2.device.memory import MemoryReader
from edge_mnv2.device.power import PowerMode, PowerRails, Rail, total_watts
from edge_mnv2.device.sysroot import Sysroot
from edge_mnv2.device.temperature import SocTemperature
from edge_mnv2.device.throttling import Throttling
from edge_mnv2.device.tools import BoardTool

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HealthSample:
    """One look at the board. `taken_at` is monotonic nanoseconds.

    `temp_c` is the SoC's, degrees Celsius; `cpu_mhz` the fastest core's clock; `throttled` and `throttled_since_boot`
    are words of `throttling.WORDS`, empty where all is well, None where the board cannot tell. `power_w` is what the
    whole board draws where a rail stands for it. Memory is MiB, `memory_pressure` percent of the last ten seconds.
    """

    taken_at: int = 0
    temp_c: Optional[float] = None
    cpu_mhz: Optional[int] = None
    governor: Optional[str] = None
    throttled: Optional[list[str]] = None
    throttled_since_boot: Optional[list[str]] = None
    rails: Optional[list[Rail]] = None
    power_w: Optional[float] = None
    power_mode: Optional[str] = None
    memory_total_mb: Optional[int] = None
    memory_available_mb: Optional[int] = None
    swap_used_mb: Optional[int] = None
    memory_pressure: Optional[float] = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without `taken_at`."""
        values = dataclasses.asdict(self)
        del values["taken_at"]
        return values


class Health:
    """Samples the board under `root`. Which sensors it has is found out once, here.

    `tool_interval_s`: how often the board's programs (`vcgencmd`) are started at most; between, their last answer
    stands. One sample reads some twenty small files. Use it from one thread at a time.
    """

    def __init__(self, root: Union[str, Path] = "/", *, tool_interval_s: float = 2.0) -> None:
        self._tree = Sysroot(root)
        self._vcgencmd = BoardTool(self._tree, "vcgencmd", keep_s=tool_interval_s)
        self._temperature = SocTemperature(self._tree)
        self._throttling = Throttling(self._tree, self._vcgencmd)
        self._rails = PowerRails(self._tree, self._vcgencmd)
        self._memory = MemoryReader(self._tree)
        self._mode = PowerMode(self._tree)
        self._cpufreq = _cpufreq(self._tree)

    def sample(self) -> HealthSample:
        """Look at the board now."""
        try:
            return self._sample()
        except Exception as error:
            # A sensor that misbehaves must not end a run.
            log.debug("health: %s: %s", type(error).__name__, error)
            return HealthSample(taken_at=time.monotonic_ns())

    def _sample(self) -> HealthSample:
        now, ever = self._throttling.read()
        rails = self._rails.read()
        memory = self._memory.read()
        return HealthSample(
            taken_at=time.monotonic_ns(),
            temp_c=self._temp_c(),
            cpu_mhz=self._cpu_mhz(now),
            governor=self._tree.read(f"{self._cpufreq[0]}/scaling_governor") if self._cpufreq else None,
            throttled=now,
            throttled_since_boot=ever,
            rails=rails,
            power_w=total_watts(rails),
            power_mode=self._mode.read(),
            memory_total_mb=memory.total,
            memory_available_mb=memory.available,
            swap_used_mb=memory.swap_used,
            memory_pressure=memory.pressure,
        )

    def _temp_c(self) -> Optional[float]:
        celsius = self._temperature.read()
        if celsius is None:
            match = re.search(r"temp=(\d+(?:\.\d+)?)", self._vcgencmd.ask("measure_temp") or "")
            celsius = float(match[1]) if match else None
        return celsius

    def _cpu_mhz(self, throttled: Optional[list[str]]) -> Optional[int]:
        clocks = [self._tree.read_int(f"{folder}/scaling_cur_freq") for folder in self._cpufreq]
        known = [clock // 1000 for clock in clocks if clock]
        if throttled and self._vcgencmd.present:
            # cpufreq shows what the kernel asked for; a Pi's firmware goes below it on its own.
            match = re.search(r"frequency\(\d+\)=(\d+)", self._vcgencmd.ask("measure_clock", "arm") or "")
            if match:
                return int(match[1]) // 1_000_000
        return max(known) if known else None


def _cpufreq(tree: Sysroot) -> list[str]:
    """One folder for each group of cores that share a clock."""
    base = "sys/devices/system/cpu"
    policies = [f"{base}/cpufreq/{name}" for name in tree.names(f"{base}/cpufreq", "policy")]
    cores = [f"{base}/{name}/cpufreq" for name in tree.names(base, "cpu") if name[3:].isdigit()]
    return [folder for folder in policies or cores if tree.exists(f"{folder}/scaling_cur_freq")][:16]
