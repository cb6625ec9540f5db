"""What the board draws: rails of a Jetson's INA3221 monitors and of a Pi 5's PMIC, and a Jetson's power mode."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.board.sysroot import BoardTool, Sysroot


@dataclass(frozen=True)
class Rail:
    """One supply rail: volts, amperes, watts; None where not measured."""

    name: str
    volts: Optional[float] = None
    amps: Optional[float] = None
    watts: Optional[float] = None


class PowerRails:
    """Reads the rails that this board measures."""

    def __init__(self, tree: Sysroot, vcgencmd: BoardTool) -> None:
        self._tree = tree
        self._vcgencmd = vcgencmd
        self._channels = _iio_channels(tree) + _hwmon_channels(tree)
        self._has_pmic = vcgencmd.present and not self._channels

    def read(self) -> Optional[list[Rail]]:
        """Every rail, or None where none is measured."""
        rails: dict[str, Rail] = {}
        for name, files in self._channels:
            volts, amps, watts = (self._thousandth(file) for file in files)
            if watts is None and volts is not None and amps is not None:
                watts = volts * amps
            if volts is not None or amps is not None or watts is not None:
                # The same chip shows under the bus and under the class.
                rails.setdefault(name, Rail(name, volts, amps, None if watts is None else round(watts, 3)))
        if not rails and self._has_pmic:
            answer = self._vcgencmd.ask("pmic_read_adc")
            self._has_pmic = answer is not None
            rails = _pmic(answer or "")
        return list(rails.values()) or None

    def _thousandth(self, file: Optional[str]) -> Optional[float]:
        raw = self._tree.read_int(file) if file else None
        return None if raw is None else raw / 1000


def total_watts(rails: Optional[list[Rail]]) -> Optional[float]:
    """What the whole board draws, W: its input rail, else the sum of a Pi 5's PMIC rails, without USB and HATs.

    None where no rail stands for the whole.
    """
    for rail in rails or ():
        # VDD_IN (Xavier NX, Orin Nano), POM_5V_IN (Nano): the supply of the whole module.
        if rail.name.endswith("_IN") and rail.watts is not None:
            return rail.watts
    pmic = [rail.watts for rail in rails or () if rail.name in _PMIC_RAILS and rail.watts is not None]
    return round(sum(pmic), 3) if len(pmic) >= 4 else None


_PMIC_RAILS = {
    "3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS", "0V8_SW", "VDD_CORE", "3V3_DAC", "3V3_ADC",
    "0V8_AON", "HDMI",
}  # fmt: skip

_Files = tuple[Optional[str], Optional[str], Optional[str]]


def _iio_channels(tree: Sysroot) -> list[tuple[str, _Files]]:
    """The `ina3221x` driver of JetPack 4: `rail_name_N`, mV, mA, mW below an IIO device."""
    channels: list[tuple[str, _Files]] = []
    base = "sys/bus/i2c/drivers/ina3221x"
    for chip in tree.names(base):
        for device in tree.names(f"{base}/{chip}", "iio"):
            folder = f"{base}/{chip}/{device}"
            for name_file in tree.names(folder, "rail_name_"):
                rail = tree.read(f"{folder}/{name_file}")
                number = name_file[len("rail_name_") :]
                if rail and rail != "NC":
                    volts, amps, watts = (
                        f"{folder}/in_{what}{number}_input" for what in ("voltage", "current", "power")
                    )
                    channels.append((rail, (volts, amps, watts)))
    return channels


def _hwmon_channels(tree: Sysroot) -> list[tuple[str, _Files]]:
    """The upstream `ina3221` driver of JetPack 5 and later: three channels of mV and mA. `in7` is a sum of shunts."""
    folders = []
    base = "sys/bus/i2c/drivers/ina3221"
    for chip in tree.names(base):
        folders += [f"{base}/{chip}/hwmon/{hwmon}" for hwmon in tree.names(f"{base}/{chip}/hwmon", "hwmon")]
    for hwmon in tree.names("sys/class/hwmon", "hwmon"):
        if tree.read(f"sys/class/hwmon/{hwmon}/name") == "ina3221":
            folders.append(f"sys/class/hwmon/{hwmon}")
    channels: list[tuple[str, _Files]] = []
    for folder in folders:
        for channel in (1, 2, 3):
            rail = tree.read(f"{folder}/in{channel}_label")
            if rail and rail != "NC":
                channels.append((rail, (f"{folder}/in{channel}_input", f"{folder}/curr{channel}_input", None)))
    return channels


def _pmic(answer: str) -> dict[str, Rail]:
    """Rails of `vcgencmd pmic_read_adc`: lines like `VDD_CORE_A current(7)=1.80A` and `VDD_CORE_V volt(15)=0.72V`."""
    values: dict[str, dict[str, float]] = {}
    for match in re.finditer(r"(\S+)_([AV])\s+(?:current|volt)\(\d+\)=(\d+(?:\.\d+)?)", answer):
        values.setdefault(match[1], {})[match[2]] = float(match[3])
    rails = {}
    for name, pair in values.items():
        watts = round(pair["A"] * pair["V"], 3) if len(pair) == 2 else None
        rails[name] = Rail(name, pair.get("V"), pair.get("A"), watts)
    return rails


class PowerMode:
    """A Jetson's power mode by name, such as "MODE_15W_6CORE"."""

    def __init__(self, tree: Sysroot) -> None:
        self._tree = tree
        self._nvpmodel = BoardTool(tree, "nvpmodel", keep_s=60.0)
        self._has_modes = self._nvpmodel.present or tree.exists("etc/nvpmodel.conf")

    def read(self) -> Optional[str]:
        if not self._has_modes:
            return None
        # The two files need neither a process nor root.
        status = re.search(r"pmode:\s*(\d+)", self._tree.read("var/lib/nvpmodel/status") or "")
        if status:
            modes = self._tree.read("etc/nvpmodel.conf") or ""
            name = re.search(rf"POWER_MODEL\s+ID=0*{int(status[1])}\s+NAME=(\S+)", modes)
            if name:
                return name[1]
        answer = re.search(r"NV Power Mode:\s*(\S+)", self._nvpmodel.ask("-q") or "")
        return answer[1] if answer else None
