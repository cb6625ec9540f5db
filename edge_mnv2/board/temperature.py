"""The SoC's temperature, from the thermal zone or hwmon sensor that stands for the CPU on this board."""

from __future__ import annotations

import re
from typing import Optional

from edge_mnv2.board.sysroot import Sysroot

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
