from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from edge_mnv2.board.detect import bits, kernel_arch, python_bits, userland_arch
from edge_mnv2.board.sysroot import Sysroot
from tests.board.trees import ARM32_FEATURES, EM_AARCH64, EM_ARM, EM_X86_64, Tree

EVIDENCE = [
    ("a program in bin", lambda tree: tree.program("bin/ls", EM_ARM, bits=32), "armv7l"),
    ("any program", lambda tree: tree.program("usr/bin/something", EM_AARCH64), "aarch64"),
    ("the loader", lambda tree: tree.write("lib/ld-linux-armhf.so.3", b"no ELF header"), "armv7l"),
    ("a 64-bit loader beside a foreign 32-bit one", lambda tree: tree.write(
        "usr/lib/ld-linux-aarch64.so.1", b"").write("usr/lib/ld-linux-armhf.so.3", b""), "aarch64"),
    ("dpkg's native architecture", lambda tree: tree.write("var/lib/dpkg/arch", "armhf\narm64"), "armv7l"),
    ("dpkg's packages", lambda tree: tree.write(
        "var/lib/dpkg/status", "Package: tzdata\nArchitecture: all\n\nPackage: dpkg\nArchitecture: arm64"), "aarch64"),
    ("Raspbian", lambda tree: tree.cpus(4).write("etc/os-release", "ID=raspbian\nID_LIKE=debian"), "armv7l"),
    ("L4T", lambda tree: tree.write("etc/nv_tegra_release", "# R32 (release), EABI: aarch64"), "aarch64"),
    ("a Pi told to start a 32-bit kernel", lambda tree: tree.write("boot/config.txt", "[all]\narm_64bit=0"), "armv7l"),
    ("a Pi's 32-bit kernel", lambda tree: tree.write("proc/version", "Linux version 5.10.103-v7l+ (dom@b)"), "armv7l"),
    ("a Pi's new 32-bit kernel", lambda tree: tree.write("proc/sys/kernel/osrelease", "6.6.31+rpt-rpi-v7"), "armv7l"),
    ("a Pi's 64-bit kernel", lambda tree: tree.write("proc/version", "Linux version 6.6.31+rpt-rpi-2712"), "aarch64"),
    ("a PC's kernel", lambda tree: tree.write("proc/sys/kernel/arch", "x86_64"), "x86_64"),
    ("a 64-bit cpuinfo", lambda tree: tree.cpus(4), "aarch64"),
    ("a 32-bit cpuinfo", lambda tree: tree.cpus(4, ARM32_FEATURES, architecture=7), "armv7l"),
    ("ARMv6", lambda tree: tree.write("proc/cpuinfo",
        "model name: ARMv6-compatible processor rev 7 (v6l)\nFeatures: half thumb\nCPU architecture: 7"), "armv6l"),
    ("nothing", lambda tree: tree, None),
]  # fmt: skip


@pytest.mark.parametrize("build, arch", [row[1:] for row in EVIDENCE], ids=[row[0] for row in EVIDENCE])
def test_evidence(tmp_path: Path, build: Callable[[Tree], Tree], arch: str) -> None:
    build(Tree(tmp_path))
    assert userland_arch(Sysroot(tmp_path)) == arch


def test_programs_outweigh_kernel(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cpus(4).program("usr/bin/dash", EM_ARM, bits=32)
    (tree.root / "bin").symlink_to("/usr/bin")
    (tree.root / "usr/bin/sh").symlink_to("dash")
    root = Sysroot(tmp_path)
    assert (userland_arch(root), kernel_arch(root)) == ("armv7l", "aarch64")


def test_python_of_the_tree(tmp_path: Path) -> None:
    tree = Tree(tmp_path).program("bin/sh", EM_X86_64)
    assert python_bits(Sysroot(tmp_path)) in (32, 64)
    tree.program("usr/bin/python3.11", EM_ARM, bits=32)
    (tmp_path / "usr/bin/python3").symlink_to("python3.11")
    assert python_bits(Sysroot(tmp_path)) == 32


@pytest.mark.parametrize("arch, width", [("aarch64", 64), ("x86_64", 64), ("armv7l", 32), ("i686", 32), (None, None)])
def test_bits(arch: str, width: int) -> None:
    assert bits(arch) == width
