"""What is wrong with the accelerator, or with the way to it, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import Check
from edge_mnv2.runtime.edgetpu import library
from edge_mnv2.runtime.edgetpu.discovery import (
    DEAD,
    NO_DRIVER,
    NO_FIRMWARE,
    UDEV_RULES,
    USB3_MBPS,
    Accelerator,
    Identity,
    find,
    usb_rules,
)
from edge_mnv2.runtime.edgetpu.library import Library

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


OK, WARN = "ok", "warn"

INSTALL = "./install.sh --edgetpu, or see docs/edgetpu.md for where libedgetpu comes from"
PLUG_IN = "plug it in; if it is: another cable and port, a powered hub, and for PCIe reseat the card"
_CONTAINER_USB = "start the container with --device-cgroup-rule 'c 189:* rmw' -v /dev/bus/usb:/dev/bus/usb"


def checks(
    root: Union[Path, str] = "/",
    *,
    identity: Optional[Identity] = None,
    environment: Optional[Mapping[str, str]] = None,
) -> list[Check]:
    """Every check that needs neither the library nor the device to be touched."""
    system = Sysroot(root)
    accelerators = find(root, identity=identity)
    installed = library.find(root, environment)
    rows = [_presence(system, accelerators, installed)]
    if accelerators or installed:
        rows.append(_library(installed))
    for accelerator in accelerators:
        suffix = "" if len(accelerators) == 1 else f"-{accelerator.name}"
        rows.extend(replace(check, id=check.id + suffix) for check in device_checks(accelerator, root))
    return rows


def device_checks(accelerator: Accelerator, root: Union[Path, str] = "/") -> list[Check]:
    """State, rights, holder, link, power and heat of one accelerator."""
    system = Sysroot(root)
    rows = list(_state(accelerator, system))
    # A copied tree without /dev tells nothing about rights.
    if accelerator.state != NO_DRIVER and (system.live or system.exists("dev") or in_container(system)):
        rows.append(_rights(accelerator, system))
    rows.extend(_holders(accelerator))
    if accelerator.kind == "usb":
        rows.extend(_link(accelerator, system))
        rows.extend(_power(accelerator, system))
    rows.extend(_heat(accelerator))
    return rows


def obstacle(accelerator: Accelerator, root: Union[Path, str] = "/") -> Optional[Check]:
    """What makes contact with the device pointless, None where it can be tried."""
    system = Sysroot(root)
    if accelerator.state in (NO_DRIVER, DEAD):
        return next(iter(_state(accelerator, system)))
    return None if accelerator.rights.usable else _rights(accelerator, system)


def _presence(system: Sysroot, accelerators: list[Accelerator], installed: Optional[Library]) -> Check:
    if accelerators:
        shown = ", ".join(f"{each.name} ({each.id}, {each.state})" for each in accelerators)
        return Check("edgetpu", OK, shown)
    settings = pi5_pcie(system)
    fix = PLUG_IN
    if settings is not None and settings.missing:
        fix += f"; on PCIe add to /boot/firmware/config.txt: {' + '.join(settings.missing)}, and reboot"
    if in_container(system):
        fix += f"; {_CONTAINER_USB}"
    if installed is None and (settings is None or not settings.interrupts):
        return Check("edgetpu", OK, "no Edge TPU attached")
    expected = f"{installed.title} is there" if installed else "config.txt is set up for a Coral on PCIe"
    return Check("edgetpu", WARN, f"no Edge TPU attached, though {expected}", fix)


def _library(installed: Optional[Library]) -> Check:
    if installed is None:
        return Check("edgetpu-library", WARN, "an Edge TPU is attached, but libedgetpu.so.1 is not installed", INSTALL)
    if installed.problem:
        return Check("edgetpu-library", WARN, installed.problem, installed.fix)
    clock = f", {installed.clock} clock" if installed.clock else ""
    return Check("edgetpu-library", OK, f"{installed.title}{clock} ({installed.path}, by {installed.source})")


def _state(accelerator: Accelerator, system: Sysroot) -> Iterator[Check]:
    name = accelerator.name
    if accelerator.state == NO_FIRMWARE:
        before, after = usb_rules(system)
        yield Check(
            "edgetpu-state",
            OK if before and after else WARN,
            f"{name}: firmware not loaded yet; the first inference loads it and the id becomes 18d1:9302",
            "nothing to do: the first `run --delegate edgetpu` loads it"
            if before and after
            else "have udev rules for both ids, 1a6e:089a and 18d1:9302 (docs/edgetpu.md)",
        )
    elif accelerator.state == NO_DRIVER:
        settings = pi5_pcie(system)
        extra = ""
        if settings is not None and settings.missing:
            extra = f"; on this board also add to /boot/firmware/config.txt: {' + '.join(settings.missing)}"
        yield Check(
            "edgetpu-state",
            WARN,
            f"{name}: the card is on PCIe, but no driver has taken it (/dev/apex_0 is missing)",
            f"install gasket-dkms for this kernel and reboot (docs/edgetpu.md){extra}",
        )
    elif accelerator.state == DEAD:
        yield Check(
            "edgetpu-state",
            WARN,
            f"{name}: the driver has the card, but the chip does not answer",
            "power the board off and on; add pcie_aspm=off to the kernel's command line; reseat the card",
        )


def _rights(accelerator: Accelerator, system: Sysroot) -> Check:
    name, node, rights = accelerator.name, accelerator.node, accelerator.rights
    if rights.usable is None:
        fix = "sudo udevadm trigger, or unplug and plug in again"
        if in_container(system) or not system.exists("dev/bus/usb"):
            fix = _CONTAINER_USB if accelerator.kind == "usb" else f"start the container with --device {node}"
        return Check("edgetpu-rights", WARN, f"{name}: its device file {node} is missing", fix)
    if not rights.usable:
        rules = f"udev rule {rights.udev_rules[0]}" if rights.udev_rules else "no udev rule for it"
        detail = f"{name}: no right to open {node} (group {rights.group}, mode {rights.mode}; {rules})"
        return Check("edgetpu-rights", WARN, detail, rights.fix)
    if rights.root_only and not rights.udev_rules and not in_container(system):
        detail = f"{name}: {node} can be opened by root alone (no udev rule for it)"
        return Check("edgetpu-rights", WARN, detail, UDEV_RULES)
    return Check("edgetpu-rights", OK, f"{name}: {node} can be opened")


def _holders(accelerator: Accelerator) -> Iterator[Check]:
    if accelerator.holders:
        held = ", ".join(str(holder) for holder in accelerator.holders)
        yield Check(
            "edgetpu-held",
            WARN,
            f"{accelerator.name} is held by {held}",
            "one process at a time can use it: stop that one, or leave it and run on the CPU",
        )


def _link(accelerator: Accelerator, system: Sysroot) -> Iterator[Check]:
    speed = accelerator.speed_mbps
    if speed is None or speed >= USB3_MBPS:
        return
    detail = f"{accelerator.name} runs at {speed:g} Mb/s (USB {'2' if speed >= 480 else '1'}) instead of 5000"
    if has_usb3(system) is False:
        yield Check("edgetpu-link", OK, f"{detail}: this board has no USB 3", "a board with USB 3 is faster with it")
    else:
        yield Check(
            "edgetpu-link", WARN, detail, "use a USB 3 (blue) port of the board and the cable that came with it"
        )


def _power(accelerator: Accelerator, system: Sysroot) -> Iterator[Check]:
    name = accelerator.name
    if accelerator.over_current:
        yield Check(
            "edgetpu-power",
            WARN,
            f"{name}: its port was cut off for over-current ({accelerator.over_current} times since boot)",
            "use a hub with its own supply",
        )
    elif accelerator.hub_bus_powered:
        yield Check(
            "edgetpu-power",
            WARN,
            f"{name} sits behind {accelerator.hub}, which has no supply of its own; a Coral takes up to 900 mA",
            "use a port of the board, or a hub with its own supply",
        )
    elif under_voltage(system):
        yield Check(
            "edgetpu-power",
            WARN,
            f"the board's supply voltage is too low for it and {name}",
            "use the board's own supply",
        )
    elif usb_limited(system):
        yield Check(
            "edgetpu-power",
            WARN,
            f"{name}: this Pi 5 gives all USB ports 600 mA together; a Coral takes up to 900 mA",
            "use the 5 A supply, or with another good one add usb_max_current_enable=1 to /boot/firmware/config.txt",
        )


def _heat(accelerator: Accelerator) -> Iterator[Check]:
    temperature, limit = accelerator.temp_c, accelerator.throttle_c
    if temperature is not None and limit is not None and temperature >= limit:
        yield Check(
            "edgetpu-heat",
            WARN,
            f"{accelerator.name} is at {temperature:.0f} C and has lowered its clock (limit {limit:.0f} C)",
            "give it a heat sink or moving air",
        )
