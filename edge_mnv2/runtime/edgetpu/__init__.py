"""The Coral Edge TPU: what can be told at a quick look. Every start pays for this file, so it imports little."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.sysroot import Sysroot

NAME = "edgetpu"
LIBRARY_VARIABLE = "EDGE_MNV2_EDGETPU_LIB"
"""The environment variable that names libedgetpu."""

USB_BEFORE_FIRMWARE = ("1a6e", "089a")
USB_READY = ("18d1", "9302")

_USB = "sys/bus/usb/devices"


def present(root: Union[Path, str] = "/") -> list[str]:
    """`port`s of what is attached, without rights and holders."""
    system = Sysroot(root)
    return system.names("sys/class/apex") + [f"usb-{Path(device).name}" for device in usb_devices(system)]


def usb_devices(system: Sysroot) -> list[str]:
    """Folders of sticks below the root, by bus and port."""
    folders = [f"{_USB}/{name}" for name in system.names(_USB) if re.fullmatch(r"\d+-\d+(\.\d+)*", name)]
    sticks = [folder for folder in folders if usb_id(system, folder) in (USB_BEFORE_FIRMWARE, USB_READY)]
    return sorted(sticks, key=lambda folder: [int(part) for part in re.findall(r"\d+", Path(folder).name)])


def usb_id(system: Sysroot, folder: str) -> tuple[Optional[str], Optional[str]]:
    """(vendor, product) of a USB device as four hexadecimal digits each."""
    return system.read(f"{folder}/idVendor"), system.read(f"{folder}/idProduct")
