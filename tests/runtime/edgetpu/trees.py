"""What a kernel shows of Edge TPUs, as files below a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from edge_mnv2.runtime.edgetpu.discovery import Identity

USER = Identity(1000, frozenset({1000}), "maker")
IN_PLUGDEV = Identity(1000, frozenset({1000, 46}), "maker")
ROOT = Identity(0, frozenset({0}), "root")

BOTH_RULES = """\
# Coral
SUBSYSTEM=="usb", ATTRS{idVendor}=="1a6e", ATTRS{idProduct}=="089a", GROUP="plugdev"
SUBSYSTEM=="usb", ATTRS{idVendor}=="18d1", ATTRS{idProduct}=="9302", \\
  GROUP="plugdev", MODE="0660"
"""


def write(root: Path, path: str, text: str) -> Path:
    """A file below `root`, with its folders."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return target


def stick(
    root: Path,
    port: str = "2-1",
    *,
    ready: bool = True,
    speed: str = "5000",
    number: int = 3,
    mode: Optional[int] = 0o666,
    rules: Optional[str] = BOTH_RULES,
) -> str:
    """A Coral on USB; `mode` of its device file (None: there is none). Its folder in the tree."""
    folder = f"sys/bus/usb/devices/{port}"
    bus = int(port.split("-")[0])
    ids = ("18d1", "9302") if ready else ("1a6e", "089a")
    values = {"idVendor": ids[0], "idProduct": ids[1], "busnum": str(bus), "devnum": str(number)}
    for name, value in {**values, "speed": speed, "bMaxPower": "896mA"}.items():
        write(root, f"{folder}/{name}", f"{value}\n")
    write(root, f"sys/bus/usb/devices/usb{bus}/speed", "5000\n")
    if mode is not None:
        node = write(root, f"dev/bus/usb/{bus:03d}/{number:03d}", "")
        node.chmod(mode)
    if rules is not None:
        write(root, "lib/udev/rules.d/60-libedgetpu1-std.rules", rules)
    write(root, "etc/group", "root:x:0:\nplugdev:x:46:\n")
    return folder


def card(root: Path, name: str = "apex_0", *, status: str = "ALIVE", temp: str = "48500", mode: int = 0o666) -> str:
    """A Coral on PCIe with its driver bound. Its folder in the tree."""
    folder = f"sys/class/apex/{name}"
    for file, value in {"status": status, "temp": temp, "trip_point0_temp": "85000"}.items():
        write(root, f"{folder}/{file}", f"{value}\n")
    pci = f"sys/devices/pci0000:00/0000:0{name[-1]}:00.0"
    write(root, f"{pci}/vendor", "0x1ac1\n")
    write(root, f"{pci}/device", "0x089a\n")
    link(root, f"{folder}/device", f"../../../devices/pci0000:00/{Path(pci).name}")
    link(root, f"sys/bus/pci/devices/{Path(pci).name}", f"../../../devices/pci0000:00/{Path(pci).name}")
    write(root, f"dev/{name}", "").chmod(mode)
    write(root, "usr/lib/udev/rules.d/60-gasket-dkms.rules", 'SUBSYSTEM=="apex", MODE="0660", GROUP="apex"\n')
    return folder


def link(root: Path, path: str, target: str) -> None:
    """A symbolic link below `root`."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target)


def process(root: Path, pid: int, *command: str, opens: str = "") -> None:
    """A process with one file open."""
    write(root, f"proc/{pid}/cmdline", "\0".join(command) + "\0")
    link(root, f"proc/{pid}/fd/7", opens)


def library(root: Path, standin: Path, path: str = "usr/lib/aarch64-linux-gnu/libedgetpu.so.1.0") -> None:
    """The stand-in's file where a package puts libedgetpu, with the package's record."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(standin.read_bytes())
    link(root, path[: -len(".0")], "libedgetpu.so.1.0")


def package(root: Path, name: str, version: str) -> None:
    """A package in the package database, between two others."""
    status = "\n".join(
        f"Package: {each}\nStatus: install ok installed\nVersion: {number}\n"
        for each, number in (("libc6", "2.36"), (name, version), ("zlib1g", "1.2"))
    )
    write(root, "var/lib/dpkg/status", status)
