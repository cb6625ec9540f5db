"""What a service may touch: cameras, accelerators, its own folders, and nothing else. See systemd.exec(5)."""

from __future__ import annotations

import grp
from collections.abc import Sequence

from edge_mnv2.service.command import Needs

_EVERYWHERE = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "SystemCallErrorNumber=EPERM",
    # libudev and libusb hear of devices through netlink.
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
)
_SYSTEM = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "RemoveIPC=yes",
)
_CAMERAS = ("char-video4linux", "char-media", "char-dma_heap", "char-vcio")
_ACCELERATORS = ("char-usb_device", "char-apex")
_PINS = ("char-gpiochip", "/dev/gpiomem")


def groups(needs: Needs) -> list[str]:
    """The groups that own the devices in use, where this machine has them."""
    wanted = ["video"]
    if needs.edgetpu:
        wanted.append("plugdev")
    if needs.window:
        wanted += ["render", "input"]
    if needs.gpio:
        wanted.append("gpio")
    return [name for name in wanted if _exists(name)]


def sandbox(needs: Needs, *, system: bool, folders: Sequence[str]) -> list[str]:
    """The lines of the unit; `folders`, as they stand in one, may be written.

    A user's own manager has no right to most of it.
    """
    if not system:
        return list(_EVERYWHERE)
    # Pipelines and windows reach drivers and sockets of the board's maker that cannot be listed beforehand.
    free = needs.window or needs.pipeline
    lines = [*_EVERYWHERE, *_SYSTEM, f"ReadWritePaths={' '.join(folders)}"]
    if not free and not needs.temporary:
        lines.append("PrivateTmp=yes")
    if not free:
        devices = [*_CAMERAS, *(_ACCELERATORS if needs.edgetpu else ()), *(_PINS if needs.gpio else ())]
        lines += ["DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in devices)]
    bind = "CAP_NET_BIND_SERVICE" if needs.bound_port is not None and needs.bound_port < 1024 else ""
    return [*lines, f"CapabilityBoundingSet={bind}", f"AmbientCapabilities={bind}"]


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True
