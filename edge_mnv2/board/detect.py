"""Which board is this: what its device tree, DMI and release files say, and what a process may use of it.

The architecture of a board's programs (its userland) may be 32-bit on a 64-bit kernel, as on many a Raspberry Pi. The
evidence is asked from the surest to the weakest: the ELF header of the programs themselves, the distribution's own
words, the kernel's. A tree that tells nothing gives None.
"""

from __future__ import annotations

import hashlib
import platform
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.cpus import MemoryReader, counted_cpus
from edge_mnv2.board.sysroot import Sysroot

_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64"}
"""`e_machine` of the ELF specification; a 64-bit number with a 32-bit class is an x32 or ILP32 userland."""

_DEBIAN = {
    "amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "armel": "armv6l", "i386": "i686",
    "riscv64": "riscv64", "loong64": "loongarch64",
}  # fmt: skip
_LOADERS = (
    ("lib/ld-linux-aarch64.so.1", "aarch64"),
    ("lib64/ld-linux-x86-64.so.2", "x86_64"),
    ("lib/ld-linux-armhf.so.3", "armv7l"),
    ("lib/ld-musl-aarch64.so.1", "aarch64"),
    ("lib/ld-musl-x86_64.so.1", "x86_64"),
    ("lib/ld-musl-armhf.so.1", "armv7l"),
)
"""64-bit first: a 64-bit system with a foreign 32-bit architecture has both."""

_PROGRAMS = ("bin/sh", "usr/bin/env", "sbin/init", "usr/lib/systemd/systemd", "bin/busybox", "usr/bin/dpkg", "bin/ls")
_FOLDERS = ("bin", "usr/bin", "sbin", "usr/sbin")
_PYTHONS = ("usr/bin/python3", "usr/local/bin/python3", "opt/venv/bin/python3", "usr/bin/python")


def userland_arch(tree: Sysroot) -> Optional[str]:
    """The architecture of the tree's programs in `uname -m`'s words ("aarch64", "armv7l", "x86_64"), or None."""
    arch = _programs(tree) or _distribution(tree) or kernel_arch(tree)
    if arch is None and tree.live:
        arch = platform.machine() or None
    return "armv6l" if arch == "armv7l" and _is_armv6(tree) else arch


def bits(arch: Optional[str]) -> Optional[int]:
    """Pointer width of an architecture named in `uname -m`'s words."""
    if arch is None:
        return None
    return 64 if "64" in arch else 32


def python_bits(tree: Sysroot) -> int:
    """Pointer width of Python: of the tree's own `python3` where it has one, else of the Python that runs this.

    A 32-bit userland has no 64-bit Python, whatever runs this.
    """
    running = struct.calcsize("P") * 8
    if tree.live:
        return running
    for path in _PYTHONS:
        if (header := _elf(tree, path)) is not None:
            return header[1]
    return min(running, bits(userland_arch(tree)) or running)


def kernel_arch(tree: Sysroot) -> Optional[str]:
    """The kernel's architecture as `proc/` and `boot/` show it, or None."""
    if tree.live:
        return platform.machine() or None
    return _kernel_words(tree) or _cpuinfo(tree)


def _elf(tree: Sysroot, path: str) -> Optional[tuple[str, int]]:
    """(architecture, pointer width) of an ELF file."""
    header = tree.read_bytes(path, limit=20)
    if header is None or len(header) < 20 or header[:4] != b"\x7fELF" or header[4] not in (1, 2):
        return None
    machine = struct.unpack_from(">H" if header[5] == 2 else "<H", header, 18)[0]
    width = 64 if header[4] == 2 else 32
    arch = _ELF_MACHINES.get(machine)
    if arch is None or bits(arch) != width:
        arch = f"machine{machine}-{width}"
    return arch, width


def _programs(tree: Sysroot) -> Optional[str]:
    for path in _PROGRAMS:
        if header := _elf(tree, path):
            return header[0]
    for folder in _FOLDERS:
        for name in tree.names(folder)[:200]:
            if header := _elf(tree, f"{folder}/{name}"):
                return header[0]
    for loader, arch in _LOADERS:
        if tree.exists(loader) or tree.exists(f"usr/{loader}"):
            return arch
    return None


def _distribution(tree: Sysroot) -> Optional[str]:
    native = (tree.read("var/lib/dpkg/arch") or "").split()[:1]
    if native and native[0] in _DEBIAN:
        return _DEBIAN[native[0]]
    status = tree.read("var/lib/dpkg/status") or ""
    for match in re.finditer(r"^Architecture: (\S+)$", status, re.MULTILINE):
        if match[1] in _DEBIAN:
            return _DEBIAN[match[1]]
    release = os_release(tree)
    if architecture := release.get("ARCHITECTURE"):
        return {"arm64": "aarch64", "x86-64": "x86_64", "arm": "armv7l", "x86": "i686"}.get(architecture, architecture)
    # Raspberry Pi OS calls itself Raspbian where it is 32-bit, Debian where it is 64-bit.
    if release.get("ID") == "raspbian":
        return "armv7l"
    if match_eabi := re.search(r"EABI: (\w+)", tree.read("etc/nv_tegra_release") or ""):
        return "aarch64" if match_eabi[1] == "aarch64" else "armv7l"
    for config in ("boot/firmware/config.txt", "boot/config.txt"):
        if re.search(r"^\s*arm_64bit\s*=\s*0", tree.read(config) or "", re.MULTILINE):
            return "armv7l"
    return None


def os_release(tree: Sysroot) -> dict[str, str]:
    """Fields of `etc/os-release`, without their quotes."""
    return tree.fields("etc/os-release", "=") or tree.fields("usr/lib/os-release", "=")


def _kernel_words(tree: Sysroot) -> Optional[str]:
    machine = tree.read("proc/sys/kernel/arch")
    if machine:
        return machine
    version = f"{tree.read('proc/version') or ''} {tree.read('proc/sys/kernel/osrelease') or ''}"
    for pattern, arch in (
        # Raspberry Pi OS's kernels: +rpt-rpi-v6, -v7, -v7l (32-bit), -v8, -2712 (64-bit).
        (r"[-+](?:rpi-)?v6\+?(?=[\s-]|$)", "armv6l"),
        (r"[-+](?:rpi-)?v7l?\+?(?=[\s-]|$)", "armv7l"),
        (r"[-+](?:rpi-)?v8(?:-16k)?\+?(?=[\s-]|$)|-2712\b", "aarch64"),
        (r"arm-linux-gnueabi|\barmhf\b|\barmv7l\b", "armv7l"),
        (r"aarch64|\barm64\b|-tegra\b", "aarch64"),
        (r"x86_64|\bamd64\b", "x86_64"),
    ):
        if re.search(pattern, version):
            return arch
    return None


def _cpuinfo(tree: Sysroot) -> Optional[str]:
    fields = tree.fields("proc/cpuinfo")
    features = fields.get("Features", "").split()
    if "CPU architecture" in fields or features:
        # `asimd` is how a 64-bit kernel names NEON; a 32-bit one says `neon`, `vfpv4`, `thumb`.
        return "aarch64" if "asimd" in features else "armv7l"
    flags = fields.get("flags", "").split()
    if flags:
        # `lm` (long mode): a 64-bit CPU; 32-bit systems on one are rare enough.
        return "x86_64" if "lm" in flags else "i686"
    return None


def _is_armv6(tree: Sysroot) -> bool:
    text = tree.read("proc/cpuinfo") or ""
    return "v6l" in text or "ARMv6" in text or "0xb76" in text


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
