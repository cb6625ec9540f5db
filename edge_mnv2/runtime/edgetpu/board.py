"""What around the device keeps it from working: power, PCIe settings of a Pi 5, the walls of a container."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.board.sysroot import Sysroot

_PCIE_BOARDS = re.compile(r"Raspberry Pi (5|500|Compute Module 5)\b")
_MSI_OVERLAYS = ("pineboards-hat-ai", "pciex1-compat-pi5", "coral")


def in_container(system: Sysroot) -> bool:
    """Whether the system looks like that of a container."""
    if any(system.exists(mark) for mark in (".dockerenv", "run/.containerenv", "run/systemd/container")):
        return True
    cgroup = system.read("proc/1/cgroup") or ""
    return any(word in cgroup for word in ("docker", "kubepods", "containerd", "lxc", "libpod"))


def has_usb3(system: Sysroot) -> Optional[bool]:
    """Whether a root hub runs at 5 Gb/s or more; None where no root hub is seen."""
    hubs = [name for name in system.names("sys/bus/usb/devices") if re.fullmatch(r"usb\d+", name)]
    speeds = [system.read_int(f"sys/bus/usb/devices/{hub}/speed") or 0 for hub in hubs]
    return max(speeds) >= 5000 if speeds else None


def under_voltage(system: Sysroot) -> bool:
    """Whether a Raspberry Pi reports too little supply voltage right now."""
    sensors = [f"sys/class/hwmon/{name}" for name in system.names("sys/class/hwmon")]
    alarms = [
        system.read_int(f"{sensor}/in0_lcrit_alarm")
        for sensor in sensors
        if system.read(f"{sensor}/name") == "rpi_volt"
    ]
    return 1 in alarms


def usb_limited(system: Sysroot) -> bool:
    """Whether a Pi 5 allows its USB ports 600 mA together, because its supply did not offer 5 A."""
    allowed = system.read_bytes("proc/device-tree/chosen/power/usb_max_current_enable")
    return allowed is not None and int.from_bytes(allowed, "big") == 0


@dataclass(frozen=True)
class PcieSettings:
    """What a Raspberry Pi 5's configuration says about its PCIe connector, and its kernel about memory pages."""

    connector: bool
    interrupts: bool
    small_pages: bool

    @property
    def missing(self) -> list[str]:
        """Lines that belong in /boot/firmware/config.txt for a Coral on PCIe."""
        lines = [] if self.connector else ["dtparam=pciex1"]
        lines += [] if self.small_pages else ["kernel=kernel8.img"]
        return lines + ([] if self.interrupts else ["dtoverlay=pineboards-hat-ai"])


def pi5_pcie(system: Sysroot) -> Optional[PcieSettings]:
    """PCIe settings where the board is a Raspberry Pi 5 or its relative, else None."""
    model = system.read("proc/device-tree/model") or system.read("sys/firmware/devicetree/base/model") or ""
    if not _PCIE_BOARDS.match(model):
        return None
    config = system.read("boot/firmware/config.txt") or system.read("boot/config.txt") or ""
    lines = [re.sub(r"\s", "", line.split("#")[0]) for line in config.splitlines()]
    # Kernels named after the BCM2712 have 16 KiB pages; the driver maps its registers in steps of 4 KiB.
    kernel = system.read("proc/sys/kernel/osrelease") or ""
    return PcieSettings(
        connector=any(re.match(r"dtparam=(.*,)?pciex1(=on|=1)?(,|$)|dtparam=(.*,)?nvme(,|$)", line) for line in lines)
        or any(line.startswith("dtparam=pciex1_gen=") for line in lines),
        interrupts=any(line.startswith("dtoverlay=") and any(name in line for name in _MSI_OVERLAYS) for line in lines),
        small_pages="2712" not in kernel if kernel else "kernel=kernel8.img" in lines,
    )
