"""Whether the board holds itself back: a Pi's throttle and under-voltage bits, cooling devices, over-current events.

Words: `under-voltage`, `frequency-capped`, `throttled`, `soft-temperature-limit`, `over-current`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

from edge_mnv2.board.sysroot import BoardTool, Sysroot

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
