from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable

import pytest

from edge_mnv2.board.detect import detect
from edge_mnv2.settings.store import choose
from tests.board import trees
from tests.board.trees import Tree

BOARDS = [
    # tree, model, profile, arch, OS bits, CPUs, MiB
    (trees.pi_zero_2_w, "Raspberry Pi Zero 2 W Rev 1.0", "raspberry-pi-zero-2-w", "aarch64", 64, 4, 427),
    (trees.pi_3b_plus, "Raspberry Pi 3 Model B Plus Rev 1.3", "raspberry-pi-3", "aarch64", 64, 4, 922),
    (trees.pi_4, "Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4", "aarch64", 64, 4, 3794),
    (trees.pi_4_32bit, "Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4", "armv7l", 32, 4, 3794),
    (trees.pi_5, "Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5", "aarch64", 64, 4, 4038),
    (trees.jetson_nano, "NVIDIA Jetson Nano Developer Kit", "jetson-nano", "aarch64", 64, 4, 3964),
    (trees.jetson_xavier_nx, "NVIDIA Jetson Xavier NX Developer Kit", "jetson-xavier-nx", "aarch64", 64, 6, 6968),
    (
        trees.jetson_orin_nano,
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "jetson-orin-nano",
        "aarch64",
        64,
        6,
        7619,
    ),
    (trees.coral_dev_board, "Freescale i.MX8MQ Phanbell", "coral-dev-board", "aarch64", 64, 4, 980),
    (trees.orange_pi_5, "Orange Pi 5", "orange-pi-5", "aarch64", 64, 8, 7939),
    (trees.rock_5b, "Radxa ROCK 5 Model B", "rock-5b", "aarch64", 64, 8, 15947),
    (trees.zero_3w, "Radxa ZERO 3W", "radxa-zero-3w", "aarch64", 64, 4, 1933),
    (trees.laptop, "LENOVO ThinkPad X1 Carbon Gen 9 (20XWCTO1WW)", "generic", "x86_64", 64, 8, 15745),
    (trees.container, "LENOVO ThinkPad X1 Carbon Gen 9 (20XWCTO1WW)", "generic", "x86_64", 64, 2, 512),
    (trees.pi_container, "Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4", "aarch64", 64, 4, 3794),
]


@pytest.mark.parametrize(
    "build, model, profile, arch, os_bits, cpus, memory", BOARDS, ids=[row[0].__name__ for row in BOARDS]
)
def test_board(
    tmp_path: Path,
    build: Callable[[Path], Tree],
    model: str,
    profile: str,
    arch: str,
    os_bits: int,
    cpus: int,
    memory: int,
) -> None:
    build(tmp_path)
    board = detect(tmp_path)
    assert (board.model, board.arch, board.os_bits) == (model, arch, os_bits)
    assert (board.cpus_usable, board.memory_mb) == (cpus, memory)
    assert choose(board)[0].name == profile
    assert board.python_bits == min(os_bits, struct.calcsize("P") * 8)


def test_vendor_release_and_container(tmp_path: Path) -> None:
    assert detect(trees.jetson_nano(tmp_path / "nano").root).release == "L4T R32.7.1"
    assert detect(trees.coral_dev_board(tmp_path / "coral").root).release == "Mendel 5.3"
    assert detect(trees.pi_4_32bit(tmp_path / "pi").root).os == "Raspbian GNU/Linux 12 (bookworm)"
    assert detect(trees.container(tmp_path / "container").root).container == "docker"
    assert detect(trees.laptop(tmp_path / "laptop").root).container is None


@pytest.mark.parametrize(
    "path, content, kind",
    [
        ("run/.containerenv", "", "podman"),
        ("run/systemd/container", "systemd-nspawn", "systemd-nspawn"),
        ("proc/1/environ", b"PATH=/bin\0container=lxc\0", "lxc"),
        ("proc/1/cgroup", "0::/kubepods/besteffort/pod1/abc", "kubernetes"),
        ("proc/self/cgroup", "4:cpu,cpuacct:/docker/0123abcd\n0::/", "docker"),
        ("proc/sys/kernel/osrelease", "5.15.153.1-microsoft-standard-WSL2", "wsl"),
        ("proc/1/cgroup", "0::/init.scope", None),
    ],
)
def test_container_signs(tmp_path: Path, path: str, content: object, kind: str) -> None:
    Tree(tmp_path).write(path, content)
    assert detect(tmp_path).container == kind


def test_jetson_in_a_container_without_device_tree(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cpus(6).write("etc/nv_tegra_release", "# R35 (release), REVISION: 4.1, EABI: aarch64")
    assert detect(tmp_path).model == "NVIDIA Jetson (L4T R35.4.1)"
    tree.write("sys/devices/soc0/machine", "NVIDIA Jetson Xavier NX Developer Kit")
    board = detect(tmp_path)
    assert board.model == "NVIDIA Jetson Xavier NX Developer Kit"
    assert choose(board)[0].name == "jetson-xavier-nx"


@pytest.mark.parametrize(
    "fields, model",
    [
        ({"sys_vendor": "Dell Inc.", "product_name": "XPS 13 9310"}, "Dell Inc. XPS 13 9310"),
        ({"sys_vendor": "HP", "product_name": "HP EliteBook 840 G8"}, "HP EliteBook 840 G8"),
        (
            {"sys_vendor": "System manufacturer", "product_name": "System Product Name", "board_vendor": "ASUSTeK",
             "board_name": "PRIME B550"},
            "ASUSTeK PRIME B550",
        ),
        ({"sys_vendor": "To Be Filled By O.E.M.", "product_name": "Default string"}, None),
    ],
)  # fmt: skip
def test_dmi(tmp_path: Path, fields: dict, model: str) -> None:
    Tree(tmp_path).write_all("sys/class/dmi/id", fields)
    assert detect(tmp_path).model == model


def test_empty_tree_is_all_unknown(tmp_path: Path) -> None:
    board = detect(tmp_path)
    assert (board.model, board.arch, board.os_bits, board.cpus_usable, board.memory_mb) == (None,) * 5
    assert choose(board)[0].name == "generic"


def test_damaged_tree_does_not_raise(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for path in ("proc/device-tree/model", "proc/cpuinfo", "proc/meminfo", "etc/os-release", "proc/self/cgroup"):
        tree.write(path, b"\xff\xfe\0\0: \x80\n:::\n" * 50)
    tree.write("sys/fs/cgroup/cpu.max", "x y").write("sys/devices/system/cpu/online", "a-b,")
    tree.write("bin/sh", b"\x7fELF\x02")
    (tmp_path / "proc/device-tree/compatible").mkdir()
    detect(tmp_path)


def test_serial_is_hashed_and_tells_boards_apart(tmp_path: Path) -> None:
    one = detect(Tree(tmp_path / "a").device_tree("Board", ["x,y"], serial="10000000abcdef01").root)
    two = detect(Tree(tmp_path / "b").device_tree("Board", ["x,y"], serial="10000000abcdef02").root)
    none = detect(Tree(tmp_path / "c").device_tree("Board", ["x,y"], serial="0000000000000000").root)
    assert one.serial and two.serial and one.serial != two.serial
    assert "abcdef" not in one.serial
    assert none.serial is None


def test_this_machine() -> None:
    board = detect()
    assert board.python_bits == struct.calcsize("P") * 8
    assert board.cpus_usable and board.memory_mb and board.arch
