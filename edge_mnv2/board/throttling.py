"""Whether the board holds itself back: a Pi's throttle and under-voltage bits, cooling devices, over-current events.
And what it draws: rails of a Jetson's INA3221 monitors and of a Pi 5's PMIC, and a Jetson's power mode.

Words: `under-voltage`, `frequency-capped`, `throttled`, `soft-temperature-limit`, `over-current`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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


WORDS = ("under-voltage", "frequency-capped", "throttled", "soft-temperature-limit", "over-current")

MEANINGS = {
    "under-voltage": "the power supply is too weak: use a stronger one and a short, thick cable",
    "frequency-capped": "the CPU clock is held down",
    "throttled": "the CPU is slowed down by heat or weak power: cool the board, check the supply",
    "soft-temperature-limit": "warm enough for the firmware to lower the clock: cool the board",
    "over-current": "the board draws more than it may: choose a lower power mode or a stronger supply",
}
"""What each word means for a person, and what to do."""

_PI_BITS = {0: "under-voltage", 1: "frequency-capped", 2: "throttled", 3: "soft-temperature-limit"}
"""Bits of `vcgencmd get_throttled` that tell of now; the same 16 bits higher tell of any time since boot
(Raspberry Pi documentation, vcgencmd)."""

_PI_SYSFS = ("sys/devices/platform/soc", "sys/devices/platform", "sys/firmware")


def ordered(words: Iterable[str]) -> list[str]:
    """`words` in the order of `WORDS`, each once."""
    present = set(words)
    return [word for word in WORDS if word in present]


def explain(words: Iterable[str]) -> str:
    """One line for a person: each word with its meaning."""
    return "; ".join(f"{word}: {MEANINGS[word]}" for word in words)


def decode(bits: int) -> tuple[list[str], list[str]]:
    """(now, since boot) for the number that `vcgencmd get_throttled` prints."""
    now = [word for bit, word in _PI_BITS.items() if bits >> bit & 1]
    ever = [word for bit, word in _PI_BITS.items() if bits >> bit & 1 or bits >> (bit + 16) & 1]
    return now, ever


class Throttling:
    """Reads every sign of throttling that this board has."""

    def __init__(self, tree: Sysroot, vcgencmd: BoardTool) -> None:
        self._tree = tree
        self._vcgencmd = vcgencmd
        self._pi_file = _pi_file(tree)
        self._coolers = _cpu_coolers(tree)
        self._counters = _event_counters(tree)
        self._alarms = _current_alarms(tree)
        self._volt_alarm = _volt_alarm(tree)
        self._counted: dict[str, int] = {}

    def read(self) -> tuple[Optional[list[str]], Optional[list[str]]]:
        """(words of now, words of any time since boot); None where the board cannot tell, empty where it is fine."""
        now: set[str] = set()
        ever: set[str] = set()
        known_now = known_ever = False
        bits = self._pi_bits()
        if bits is not None:
            known_now = known_ever = True
            current, past = decode(bits)
            now.update(current)
            ever.update(past)
        for file in self._coolers:
            state = self._tree.read_int(file)
            if state is not None:
                known_now = True
                if state > 0:
                    now.add("throttled")
        for file, word in self._counters:
            count = self._tree.read_int(file)
            if count is None:
                continue
            known_now = known_ever = True
            if count > self._counted.get(file, count):
                now.add(word)
            if count > 0:
                ever.add(word)
            self._counted[file] = count
        for file, word in [(file, "over-current") for file in self._alarms]:
            if self._tree.read_int(file):
                now.add(word)
        # This alarm alone says nothing about heat, so a zero does not mean "not throttled".
        if self._volt_alarm and self._tree.read_int(self._volt_alarm):
            now.add("under-voltage")
        ever |= now
        return (
            ordered(now) if known_now or now else None,
            ordered(ever) if known_ever or ever else None,
        )

    def _pi_bits(self) -> Optional[int]:
        # The program first: the kernel warns in its log when the file is read, and the file only repeats what was
        # last asked of the firmware.
        answer = self._vcgencmd.ask("get_throttled")
        match = re.search(r"throttled=(0x[0-9a-fA-F]+)", answer or "")
        text = match[1] if match else self._tree.read(self._pi_file) if self._pi_file else None
        try:
            return int(text, 16) if text else None
        except ValueError:
            return None


def _pi_file(tree: Sysroot) -> Optional[str]:
    for folder in _PI_SYSFS:
        for name in tree.names(folder):
            if "firmware" in name or "raspberrypi" in name:
                for file in (f"{folder}/{name}/get_throttled", f"{folder}/{name}/get_throttled/get_throttled"):
                    if tree.read(file) is not None:
                        return file
    for soc in tree.names("sys/devices/platform", "soc@"):
        for name in tree.names(f"sys/devices/platform/{soc}"):
            if "firmware" in name and tree.read(f"sys/devices/platform/{soc}/{name}/get_throttled") is not None:
                return f"sys/devices/platform/{soc}/{name}/get_throttled"
    return None


def _cpu_coolers(tree: Sysroot) -> list[str]:
    """State files of the passive cooling devices that slow the CPU; 0 means full speed."""
    files = []
    for device in tree.names("sys/class/thermal", "cooling_device"):
        kind = (tree.read(f"sys/class/thermal/{device}/type") or "").lower()
        if re.search(r"cpu|processor", kind) and "fan" not in kind:
            files.append(f"sys/class/thermal/{device}/cur_state")
    return files


def _event_counters(tree: Sysroot) -> list[tuple[str, str]]:
    """Counters that only grow: (file, the word for what they count)."""
    counters = []
    for hwmon in tree.names("sys/class/hwmon", "hwmon"):
        folder = f"sys/class/hwmon/{hwmon}"
        if tree.read(f"{folder}/name") == "soctherm_oc":
            # Jetson Linux Developer Guide, "Jetson Orin: over-current throttling": 1 = under-voltage.
            words = {1: "under-voltage", 2: "over-current", 3: "over-current"}
            counters += [(f"{folder}/oc{number}_event_cnt", word) for number, word in words.items()]
    for name in ("core_throttle_count", "package_throttle_count"):
        file = f"sys/devices/system/cpu/cpu0/thermal_throttle/{name}"
        if tree.exists(file):
            counters.append((file, "throttled"))
    return counters


def _current_alarms(tree: Sysroot) -> list[str]:
    alarms = []
    for hwmon in tree.names("sys/class/hwmon", "hwmon"):
        folder = f"sys/class/hwmon/{hwmon}"
        if tree.read(f"{folder}/name") == "ina3221":
            alarms += [f"{folder}/{name}" for name in tree.names(folder, "curr") if name.endswith("_crit_alarm")]
    return alarms


def _volt_alarm(tree: Sysroot) -> Optional[str]:
    for hwmon in tree.names("sys/class/hwmon", "hwmon"):
        if tree.read(f"sys/class/hwmon/{hwmon}/name") == "rpi_volt":
            return f"sys/class/hwmon/{hwmon}/in0_lcrit_alarm"
    return None
