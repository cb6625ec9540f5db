"""Who may open a device file, and what would let this user open it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.board.sysroot import Sysroot

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
    found = []
    for folder in _RULE_FOLDERS:
        for name in system.names(folder):
            if not name.endswith(".rules") or name in seen:
                continue
            seen.add(name)
            lines = (system.read(f"{folder}/{name}") or "").replace("\\\n", " ").lower().splitlines()
            plain = [re.sub(r"[\s\"]", "", line) for line in lines if not line.lstrip().startswith("#")]
            plain = [line for line in plain if any(word in line for word in ("group=", "mode=", "uaccess"))]
            if any(all(text in line for text in condition) for line in plain for condition in conditions):
                found.append(f"/{folder}/{name}")
    return tuple(found)


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
