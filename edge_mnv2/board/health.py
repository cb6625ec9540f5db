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

from edge_mnv2.board.cpus import MemoryReader
from edge_mnv2.board.sysroot import BoardTool, Sysroot
from edge_mnv2.board.throttling import PowerMode, PowerRails, Rail, Throttling, ordered, total_watts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HealthSample:
    """One look at the board. `taken_at` is monotonic nanoseconds.

    `temp_c` is the SoC's, degrees Celsius; `cpu_mhz` the fastest core's clock; `throttled` and `throttled_since_boot`
    are words of `throttling.WORDS`, empty where all is well, None where the board cannot tell. `power_w` is what the
    whole board draws where a rail stands for it. Memory is MiB, `memory_pressure` percent of the last ten seconds.
    `npu_load` is percent of each core of an NPU whose driver tells (`NPU_LOADS`), which may be root alone.
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
    npu_temp_c: Optional[float] = None
    npu_load: Optional[list[int]] = None

    @property
    def heat(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(temperature, words of throttling), as the frame loop asks for them."""
        return self.temp_c, None if self.throttled is None else tuple(self.throttled)

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
        self._npu_zone = _npu_zone(self._tree)

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
            npu_temp_c=_celsius(self._tree.read_int(self._npu_zone)) if self._npu_zone else None,
            npu_load=_npu_load(self._tree),
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


NPU_LOADS = ("sys/kernel/debug/rknpu/load",)
"""Files of NPU drivers with percents, one a core: `NPU load:  Core0:  0%, Core1:  7%,`, or `NPU load:  7%` of the only
one. The frequency driver's own figure, below devfreq, says 100 at all times."""


def _npu_load(tree: Sysroot) -> Optional[list[int]]:
    texts = filter(None, (tree.read(path) for path in NPU_LOADS))
    return [int(share) for share in re.findall(r"(\d+) *%", next(texts, ""))] or None


def _npu_zone(tree: Sysroot) -> Optional[str]:
    for zone in tree.names("sys/class/thermal", "thermal_zone"):
        # Not "input".
        if re.search(r"(?<![a-z])npu", (tree.read(f"sys/class/thermal/{zone}/type") or "").lower()):
            return f"sys/class/thermal/{zone}/temp"
    return None


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
        return self._sample.heat

    def worst(self) -> tuple[Optional[float], Optional[tuple[str, ...]]]:
        """(highest temperature, every word of throttling) since the start."""
        seen = self._throttled
        return self._max_temp_c, None if seen is None else tuple(ordered(seen))

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


_CPU_ZONES = (
    r"cpu[-_]?therm(al)?[-_]?0?",  # Raspberry Pi, Jetson, i.MX
    r"(soc|bcm2835)[-_]?therm(al)?",
    r"x86_pkg_temp",
    r".*cpu.*",
    r"tj[-_]therm(al)?|soc.*|.*soc[-_]therm(al)?",
)
_NOT_THE_SOC = r".*(pmic|fan|batt|charg|wifi|iwl|pch|nvme|modem|skin|board|int3400).*"
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "bcm2835_thermal")


class SocTemperature:
    """Reads the first sensor that answers, the one that is most surely the CPU's first."""

    def __init__(self, tree: Sysroot) -> None:
        self._tree = tree
        self._files: list[str] = []

    def read(self) -> Optional[float]:
        """Degrees Celsius, or None where no sensor answers."""
        if not self._files:
            self._files = _sensors(self._tree)
        for file in self._files:
            if (celsius := _celsius(self._tree.read_int(file))) is not None:
                return celsius
        return None


def _sensors(tree: Sysroot) -> list[str]:
    ranked: list[tuple[int, int, str]] = []
    others = []
    for zone in tree.names("sys/class/thermal", "thermal_zone"):
        kind = (tree.read(f"sys/class/thermal/{zone}/type") or "").lower()
        file = f"sys/class/thermal/{zone}/temp"
        for rank, pattern in enumerate(_CPU_ZONES):
            if re.fullmatch(pattern, kind) and not re.fullmatch(_NOT_THE_SOC, kind):
                ranked.append((rank, len(ranked), file))
                break
        else:
            if not re.fullmatch(_NOT_THE_SOC, kind):
                others.append(file)
    chips = []
    for hwmon in tree.names("sys/class/hwmon", "hwmon"):
        if tree.read(f"sys/class/hwmon/{hwmon}/name") in _CPU_CHIPS:
            chips.append(f"sys/class/hwmon/{hwmon}/temp1_input")
    return [file for _, _, file in sorted(ranked)] + chips + others


def _celsius(raw: Optional[int]) -> Optional[float]:
    """Kernel sensors give millidegrees; a few vendors' drivers give degrees. Engines that are off give nonsense."""
    if raw is None:
        return None
    celsius = raw / 1000 if abs(raw) >= 200 else float(raw)
    return round(celsius, 1) if -40 < celsius < 150 and raw != 0 else None
