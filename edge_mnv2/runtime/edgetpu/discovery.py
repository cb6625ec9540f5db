"""Edge TPUs that the kernel shows: Coral sticks on USB and `apex` devices on PCIe. No library is loaded.

Ids: USB 1a6e:089a before and 18d1:9302 after the firmware is loaded, PCIe 1ac1:089a. `/sys/class/apex` and its
attributes are those of the gasket driver.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.runtime.edgetpu import USB_BEFORE_FIRMWARE, USB_READY, usb_devices, usb_id
from edge_mnv2.runtime.supervised.lock import Holder, command_of, holders_of

_RULE_FOLDERS = ("etc/udev/rules.d", "run/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d")


UDEV_RULES = "install the udev rules (./install.sh --edgetpu, or docs/edgetpu.md), then unplug and plug in again"


@dataclass(frozen=True)
class Identity:
    """The user whose rights are judged: numeric ids as the kernel sees them, `name` for messages."""

    uid: int
    gids: frozenset[int]
    name: str

    @classmethod
    def current(cls) -> Identity:
        uid = os.geteuid()
        try:
            import pwd

            name = pwd.getpwuid(uid).pw_name
        except (ImportError, KeyError):
            name = str(uid)
        return cls(uid, frozenset(os.getgroups()) | {os.getegid()}, name)


@dataclass(frozen=True)
class Rights:
    """Rights on one device file. `usable` is None where the file does not exist.

    `root_only`: it is usable because the user is root, and for nobody else. `udev_rules` are the files that give
    rights on this device (for USB: in either of its two states).
    """

    usable: Optional[bool]
    mode: Optional[str] = None
    group: Optional[str] = None
    udev_rules: tuple[str, ...] = ()
    root_only: bool = False
    fix: Optional[str] = None


def judge(node: str, system: Sysroot, identity: Identity, rules: tuple[str, ...], group: str) -> Rights:
    """Rights of `identity` on the device file `node`; `group` is the one that the vendor's udev rule names."""
    try:
        place = system.resolve(node.lstrip("/"))
        status = place.stat() if place is not None else None
    except OSError:
        status = None
    if status is None:
        return Rights(None, udev_rules=rules)
    owner_group = _group_name(system, status.st_gid)
    mode = f"{status.st_mode & 0o7777:04o}"
    usable = _may_use(node, status, system, identity)
    fix = None if usable else _fix(system, identity, rules, group, owner_group, status.st_gid)
    root_only = usable and identity.uid == 0 and status.st_gid == 0 and status.st_mode & 0o006 != 0o006
    return Rights(usable, mode, owner_group, rules, root_only, fix)


def rules_for(system: Sysroot, *conditions: tuple[str, ...]) -> tuple[str, ...]:
    """udev rule files with a line that holds every text of one of `conditions` and gives rights.

    Case, blanks and quotes do not count. A file of the same name in a folder further up the order hides the later
    ones, as udev has it.
    """
    seen: set[str] = set()
    files = []
    for folder in _RULE_FOLDERS:
        for name in system.names(folder):
            if not name.endswith(".rules") or name in seen:
                continue
            seen.add(name)
            lines = (system.read(f"{folder}/{name}") or "").replace("\\\n", " ").lower().splitlines()
            plain = [re.sub(r"[\s\"]", "", line) for line in lines if not line.lstrip().startswith("#")]
            plain = [line for line in plain if any(word in line for word in ("group=", "mode=", "uaccess"))]
            if any(all(text in line for text in condition) for line in plain for condition in conditions):
                files.append(f"/{folder}/{name}")
    return tuple(files)


def _may_use(node: str, status: os.stat_result, system: Sysroot, identity: Identity) -> bool:
    if system.live and identity == Identity.current():
        return os.access(node, os.R_OK | os.W_OK)
    if identity.uid == 0:
        return True
    if status.st_uid == identity.uid:
        return status.st_mode & 0o600 == 0o600
    if status.st_gid in identity.gids:
        return status.st_mode & 0o060 == 0o060
    return status.st_mode & 0o006 == 0o006


def _fix(
    system: Sysroot, identity: Identity, rules: tuple[str, ...], group: str, owner: Optional[str], gid: int
) -> str:
    if not rules:
        return UDEV_RULES
    wanted = owner if owner not in (None, "root") else group
    if gid in identity.gids or (owner in (None, "root") and _is_member(system, group, identity)):
        return f"{rules[0]} is not in effect: sudo udevadm control --reload && sudo udevadm trigger, or plug in again"
    if wanted and _is_member(system, wanted, identity):
        return f"{identity.name} is in group {wanted} since this login: log out and in again"
    return f"sudo usermod -aG {wanted} {identity.name}, then log out and in again"


def _groups(system: Sysroot) -> list[list[str]]:
    lines = (system.read("etc/group") or "").splitlines()
    return [fields for fields in (line.split(":") for line in lines) if len(fields) == 4]


def _group_name(system: Sysroot, gid: int) -> Optional[str]:
    return next((fields[0] for fields in _groups(system) if fields[2] == str(gid)), "root" if gid == 0 else None)


def _is_member(system: Sysroot, group: str, identity: Identity) -> bool:
    return any(fields[0] == group and identity.name in fields[3].split(",") for fields in _groups(system))


PCI_ID = ("1ac1", "089a")

READY = "ready"
NO_FIRMWARE = "firmware not loaded"
NO_DRIVER = "no driver"
DEAD = "not alive"

USB3_MBPS = 5000.0
_SELF_POWERED = 0x40
_PCI = "sys/bus/pci/devices"
_PLAUSIBLE_C = (-40.0, 150.0)
"""The driver shows about -90 degrees where the chip does not answer."""


@dataclass(frozen=True)
class Accelerator:
    """One Edge TPU. Values that the kernel does not tell are None.

    `name` is "usb:N" or "pci:N", counted by physical port, so that it stays when a stick changes its id; `path` is the
    device's folder in `/sys`, `node` its device file. `state` is one of "ready", "firmware not loaded", "no driver",
    "not alive". `speed_mbps` is the link's signalling rate, `hub` the product behind which a stick sits,
    `hub_bus_powered` whether that hub has no supply of its own, `max_power_ma` what the device asks for,
    `over_current` how often its port was cut off, `temp_c` the die and `throttle_c` where its clock is reduced.
    """

    name: str
    kind: str
    id: str
    path: str
    state: str
    node: Optional[str] = None
    speed_mbps: Optional[float] = None
    hub: Optional[str] = None
    hub_bus_powered: Optional[bool] = None
    max_power_ma: Optional[int] = None
    over_current: Optional[int] = None
    temp_c: Optional[float] = None
    throttle_c: Optional[float] = None
    rights: Rights = field(default_factory=lambda: Rights(None))
    holders: tuple[Holder, ...] = ()

    @property
    def port(self) -> str:
        """What stays the same over re-plugging in the same place: "usb-2-1", "apex_0"."""
        return f"usb-{Path(self.path).name}" if self.kind == "usb" else Path(self.node or self.path).name


def find(root: Union[Path, str] = "/", *, identity: Optional[Identity] = None, held: bool = True) -> list[Accelerator]:
    """All Edge TPUs below `root`, PCIe first (as the library prefers them), with rights and (`held`) holders."""
    system = Sysroot(root)
    identity = identity or Identity.current()
    return _pci(system, identity, held) + _usb(system, identity, held)


def usb_rules(system: Sysroot) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """udev rule files that name the stick before, and after, its firmware is loaded."""
    before, after = (
        rules_for(system, (f"{{idvendor}}=={vendor}", f"{{idproduct}}=={product}"))
        for vendor, product in (USB_BEFORE_FIRMWARE, USB_READY)
    )
    return before, after


def _usb(system: Sysroot, identity: Identity, held: bool) -> list[Accelerator]:
    sticks = []
    for position, folder in enumerate(usb_devices(system)):
        vendor, product = usb_id(system, folder)
        bus, number = system.read_int(f"{folder}/busnum"), system.read_int(f"{folder}/devnum")
        node = None if bus is None or number is None else f"/dev/bus/usb/{bus:03d}/{number:03d}"
        before, after = usb_rules(system)
        hub, bus_powered = _hub(system, folder)
        power = _number(system.read(f"{folder}/bMaxPower"))
        sticks.append(
            Accelerator(
                name=f"usb:{position}",
                kind="usb",
                id=f"{vendor}:{product}",
                path=f"/{folder}",
                state=READY if (vendor, product) == USB_READY else NO_FIRMWARE,
                node=node,
                speed_mbps=_number(system.read(f"{folder}/speed")),
                hub=hub,
                hub_bus_powered=bus_powered,
                max_power_ma=None if power is None else int(power),
                over_current=system.read_int(f"{folder}/port/over_current_count"),
                rights=_rights(system, node, identity, tuple(dict.fromkeys(before + after)), "plugdev"),
                holders=tuple(holders_of(node, system)) if held and node else (),
            )
        )
    return sticks


def _hub(system: Sysroot, folder: str) -> tuple[Optional[str], Optional[bool]]:
    """Product and kind of supply of the hub that a stick is plugged into, (None, None) at a port of the board."""
    above, dot, _ = folder.rpartition(".")
    if not dot or not system.exists(f"{above}/idVendor"):
        return None, None
    words = [system.read(f"{above}/manufacturer"), system.read(f"{above}/product")]
    name = " ".join(word for word in words if word) or ":".join(str(part) for part in usb_id(system, above))
    try:
        return name, not int(system.read(f"{above}/bmAttributes") or "", 16) & _SELF_POWERED
    except ValueError:
        return name, None


def _pci(system: Sysroot, identity: Identity, held: bool) -> list[Accelerator]:
    functions = [
        address
        for address in system.names(_PCI)
        if tuple(_hex_id(system.read(f"{_PCI}/{address}/{part}")) for part in ("vendor", "device")) == PCI_ID
    ]
    devices: list[Accelerator] = []
    for device in system.names("sys/class/apex"):
        address = _pci_address(system, f"sys/class/apex/{device}")
        functions = [each for each in functions if each != address]
        devices.append(_apex(system, device, len(devices), identity, held))
    for address in functions:
        devices.append(Accelerator(f"pci:{len(devices)}", "pci", ":".join(PCI_ID), f"/{_PCI}/{address}", NO_DRIVER))
    return devices


def _apex(system: Sysroot, device: str, position: int, identity: Identity, held: bool) -> Accelerator:
    folder, node = f"sys/class/apex/{device}", f"/dev/{device}"
    temperature = _degrees(system.read(f"{folder}/temp"))
    answers = temperature is None or _PLAUSIBLE_C[0] < temperature < _PLAUSIBLE_C[1]
    return Accelerator(
        name=f"pci:{position}",
        kind="pci",
        id=":".join(PCI_ID),
        path=f"/{folder}",
        state=READY if answers and system.read(f"{folder}/status") in (None, "ALIVE") else DEAD,
        node=node,
        temp_c=temperature if answers else None,
        throttle_c=_degrees(system.read(f"{folder}/trip_point0_temp")),
        rights=_rights(system, node, identity, rules_for(system, ("subsystem==apex",)), "apex"),
        holders=_apex_holders(system, folder, node) if held else (),
    )


def _apex_holders(system: Sysroot, folder: str, node: str) -> tuple[Holder, ...]:
    """The driver knows the owner, whoever asks; without its word, the open files that this user may see."""
    owner = system.read_int(f"{folder}/device_owner")
    if owner and system.read(f"{folder}/is_device_owned") == "1":
        return (Holder(owner, command_of(owner, system)),)
    return tuple(holders_of(node, system))


def _rights(system: Sysroot, node: Optional[str], identity: Identity, rules: tuple[str, ...], group: str) -> Rights:
    if node is None:
        return Rights(None, udev_rules=rules)
    return judge(node, system, identity, rules, group)


def _pci_address(system: Sysroot, folder: str) -> Optional[str]:
    link = system.resolve(f"{folder}/device")
    return system.read(f"{folder}/pci_address") or (link.resolve().name if link else None)


def _hex_id(text: Optional[str]) -> str:
    return (text or "").lower().removeprefix("0x")


def _number(text: Optional[str]) -> Optional[float]:
    """The number that `text` begins with: "896mA" is 896.0, "1.5" is 1.5."""
    match = re.match(r"\d+(\.\d+)?", text or "")
    return float(match.group()) if match else None


def _degrees(text: Optional[str]) -> Optional[float]:
    """Degrees Celsius from millidegrees."""
    try:
        return None if text is None else int(text) / 1000
    except ValueError:
        return None
