"""How the board is doing: temperature, clock, throttling, power, memory. What is absent is None."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

from edge_mnv2.board.memory import MemoryReader
from edge_mnv2.board.power import PowerMode, PowerRails, Rail, total_watts
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.board.temperature import SocTemperature
from edge_mnv2.board.throttling import WORDS, Throttling
from edge_mnv2.board.tools import BoardTool

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


class HealthMonitor:
    """Samples the board in a thread of its own, so that no frame waits for a sensor. A context manager.

    `listener` is called in that thread with each sample. No other method waits for a sensor.
    """

    def __init__(
        self,
        health: Optional[Health] = None,
        interval_s: float = 2.0,
        listener: Optional[Callable[[HealthSample], None]] = None,
    ) -> None:
        self._health = health or Health()
        self._interval_s = interval_s
        self._listener = listener
        self._sample = HealthSample()
        self._max_temp_c: Optional[float] = None
        self._throttled: Optional[frozenset[str]] = None
        self._ended = threading.Event()
        self._first = threading.Event()
        self._thread: Optional[threading.Thread] = None

    @property
    def sample(self) -> HealthSample:
        """The newest sample; one without any value before the first."""
        return self._sample

    def latest(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(temperature, words of throttling) of the newest sample."""
        sample = self._sample
        return sample.temp_c, None if sample.throttled is None else tuple(sample.throttled)

    def worst(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(highest temperature, every word of throttling) since the start."""
        seen = self._throttled
        return self._max_temp_c, None if seen is None else tuple(word for word in WORDS if word in seen)

    def wait(self, timeout_s: float) -> HealthSample:
        """The first sample, waiting up to `timeout_s` seconds for it."""
        self._first.wait(timeout_s)
        return self._sample

    def start(self) -> HealthMonitor:
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the thread. Safe to call twice; takes as long as one sample at most."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def __enter__(self) -> HealthMonitor:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._take(self._health.sample())
            self._first.set()
            self._ended.wait(self._interval_s)

    def _take(self, sample: HealthSample) -> None:
        self._sample = sample
        if sample.temp_c is not None:
            self._max_temp_c = sample.temp_c if self._max_temp_c is None else max(self._max_temp_c, sample.temp_c)
        if sample.throttled is not None:
            self._throttled = (self._throttled or frozenset()) | frozenset(sample.throttled)
        if self._listener is not None:
            try:
                self._listener(sample)
            except Exception as error:
                log.debug("health listener: %s: %s", type(error).__name__, error)
