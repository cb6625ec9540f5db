"""Which board is this: what its device tree, DMI and release files say, and what a process may use of it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.cpus import counted_cpus
from edge_mnv2.board.memory import MemoryReader
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.board.userland import bits, kernel_arch, os_release, python_bits, userland_arch


@dataclass(frozen=True)
class Board:
    """A board as software sees it; what is unknown is None.

    `model` is the device tree's model, else DMI's vendor and product. `compatible` is the device tree's list, most
    specific first. `arch`, `os_bits` are the userland's, `kernel_bits` the kernel's. `cpus_usable` and `memory_mb`
    (MiB) are what affinity and cgroup leave. `serial` is a hash: it tells boards apart and gives no serial number away.
    """

    model: Optional[str] = None
    compatible: tuple[str, ...] = ()
    serial: Optional[str] = None
    arch: Optional[str] = None
    os_bits: Optional[int] = None
    kernel_bits: Optional[int] = None
    python_bits: Optional[int] = None
    cpus_usable: Optional[int] = None
    memory_mb: Optional[int] = None
    os: Optional[str] = None
    release: Optional[str] = None
    container: Optional[str] = None


def detect(root: Union[str, Path] = "/") -> Board:
    """Describe the board whose files are under `root`. Never raises: what cannot be read is None."""
    tree = Sysroot(root)
    arch = userland_arch(tree)
    return Board(
        model=_model(tree),
        compatible=_compatible(tree),
        serial=_serial(tree),
        arch=arch,
        os_bits=bits(arch),
        kernel_bits=bits(kernel_arch(tree)),
        python_bits=python_bits(tree),
        cpus_usable=counted_cpus(tree),
        memory_mb=MemoryReader(tree).read().total,
        os=_os(tree),
        release=_vendor_release(tree),
        container=_container(tree),
    )


_DEVICE_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")


def _device_tree(tree: Sysroot, name: str) -> Optional[bytes]:
    for base in _DEVICE_TREES:
        if data := tree.read_bytes(f"{base}/{name}"):
            return data
    return None


def _words(data: Optional[bytes]) -> tuple[str, ...]:
    """The NUL-separated strings of a device-tree property."""
    text = (data or b"").decode("utf-8", "replace")
    return tuple(word.strip() for word in text.split("\0") if word.strip())


def _model(tree: Sysroot) -> Optional[str]:
    model = _words(_device_tree(tree, "model"))
    if model:
        return model[0]
    # A container does not see the device tree; /proc/cpuinfo of a Pi and the SoC driver's node it does.
    cpuinfo = tree.fields("proc/cpuinfo")
    return (
        cpuinfo.get("Model")
        or tree.read("sys/devices/soc0/machine")
        or _tegra_model(tree)
        or _dmi(tree)
        or cpuinfo.get("Hardware")
        or cpuinfo.get("model name")
    )


def _compatible(tree: Sysroot) -> tuple[str, ...]:
    return _words(_device_tree(tree, "compatible"))


def _tegra_model(tree: Sysroot) -> Optional[str]:
    release = _tegra_release(tree)
    return f"NVIDIA Jetson ({release})" if release else None


def _tegra_release(tree: Sysroot) -> Optional[str]:
    text = tree.read("etc/nv_tegra_release") or ""
    match = re.search(r"#\s*(R\d+)\b.*?REVISION:\s*([\d.]+)", text)
    return f"L4T {match[1]}.{match[2]}" if match else None


def _vendor_release(tree: Sysroot) -> Optional[str]:
    if tegra := _tegra_release(tree):
        return tegra
    mendel = tree.read("etc/mendel_version")
    return f"Mendel {mendel}" if mendel else None


_DMI_FILLERS = {
    "", "default string", "to be filled by o.e.m.", "to be filled by oem", "system product name", "system version",
    "system manufacturer", "not specified", "not applicable", "unknown", "none", "invalid", "o.e.m.", "oem", "n/a",
    "undefined",
}  # fmt: skip
"""What boards' makers leave in DMI fields that they did not fill in."""


def _dmi(tree: Sysroot) -> Optional[str]:
    def field(name: str) -> Optional[str]:
        text = tree.read(f"sys/class/dmi/id/{name}") or tree.read(f"sys/devices/virtual/dmi/id/{name}")
        return None if text is None or text.lower() in _DMI_FILLERS else " ".join(text.split())

    vendor, product = field("sys_vendor"), field("product_name")
    if product is None:
        vendor, product = field("board_vendor") or vendor, field("board_name")
    elif vendor and vendor.upper() == "LENOVO" and (version := field("product_version")):
        # Lenovo's product name is a type number; the name on the lid is the version.
        product = f"{version} ({product})"
    if product is None:
        return None
    if vendor is None or product.lower().startswith(vendor.lower()):
        return product
    return f"{vendor} {product}"


def _serial(tree: Sysroot) -> Optional[str]:
    """A hash of what is this board's alone: the SoC's serial number, else the installation's machine id."""
    words = _words(_device_tree(tree, "serial-number"))
    own = (
        words[0] if words else tree.fields("proc/cpuinfo").get("Serial") or tree.read("sys/devices/soc0/serial_number")
    )
    own = own or tree.read("etc/machine-id") or tree.read("var/lib/dbus/machine-id")
    if not own or not own.strip("0") or own == "uninitialized":
        return None
    return hashlib.sha256(f"edge-mnv2 {own}".encode()).hexdigest()[:16]


def _os(tree: Sysroot) -> Optional[str]:
    release = os_release(tree)
    return release.get("PRETTY_NAME") or release.get("NAME")


_CGROUP_MARKS = (
    ("kubepods", "kubernetes"), ("libpod", "podman"), ("docker", "docker"), ("containerd", "containerd"),
    ("lxc", "lxc"), ("machine.slice/machine-", "systemd-nspawn"),
)  # fmt: skip


def _container(tree: Sysroot) -> Optional[str]:
    """The kind of container ("docker", "podman", "lxc", ...), or None where this is not seen to be one."""
    if tree.exists("run/.containerenv"):
        return "podman"
    if tree.exists(".dockerenv"):
        return "docker"
    if manager := tree.read("run/systemd/container") or tree.read("run/host/container-manager"):
        return manager
    for variable in (tree.read_bytes("proc/1/environ") or b"").split(b"\0"):
        if variable.startswith(b"container=") and len(variable) > len(b"container="):
            return variable.partition(b"=")[2].decode("ascii", "replace")
    groups = f"{tree.read('proc/1/cgroup') or ''}\n{tree.read('proc/self/cgroup') or ''}"
    for mark, name in _CGROUP_MARKS:
        if mark in groups:
            return name
    if re.search(r"microsoft|wsl", tree.read("proc/sys/kernel/osrelease") or "", re.IGNORECASE):
        return "wsl"
    return None
