"""What doctor says about the accelerator, over trees of every fault."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import pytest

from edge_mnv2.runtime.edgetpu import library
from edge_mnv2.runtime.edgetpu.checks import Check, checks
from edge_mnv2.runtime.edgetpu.discovery import Identity
from tests.runtime.edgetpu import trees

PI5 = "Raspberry Pi 5 Model B Rev 1.0\0"


def _wrong(rows: list[Check]) -> list[Check]:
    return [row for row in rows if row.status != "ok"]


def _hub(root: Path) -> None:
    trees.stick(root, "2-1.4")
    trees.write(root, "sys/bus/usb/devices/2-1/idVendor", "2109\n")
    trees.write(root, "sys/bus/usb/devices/2-1/product", "Cheap Hub\n")
    trees.write(root, "sys/bus/usb/devices/2-1/bmAttributes", "a0\n")


def _over_current(root: Path) -> None:
    trees.write(root, f"{trees.stick(root)}/port/over_current_count", "2\n")


def _under_voltage(root: Path) -> None:
    trees.stick(root)
    trees.write(root, "sys/class/hwmon/hwmon0/name", "cpu_thermal\n")
    trees.write(root, "sys/class/hwmon/hwmon1/name", "rpi_volt\n")
    trees.write(root, "sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")


def _small_supply(root: Path) -> None:
    trees.stick(root)
    trees.write(root, "proc/device-tree/chosen/power/usb_max_current_enable", "\0\0\0\0")


def _held(root: Path) -> None:
    trees.stick(root)
    trees.process(root, 99, "frigate.detector", opens="/dev/bus/usb/002/003")


def _bare_card(root: Path) -> None:
    trees.write(root, "proc/device-tree/model", PI5)
    trees.write(root, "proc/sys/kernel/osrelease", "6.6.31+rpt-rpi-2712\n")
    trees.write(root, "boot/firmware/config.txt", "[all]\ndtparam=pciex1\n")
    trees.write(root, "sys/bus/pci/devices/0000:01:00.0/vendor", "0x1ac1\n")
    trees.write(root, "sys/bus/pci/devices/0000:01:00.0/device", "0x089a\n")


def _in_docker(root: Path) -> None:
    trees.stick(root, mode=None)
    trees.write(root, ".dockerenv", "")


def _in_docker_with_card(root: Path) -> None:
    trees.card(root)
    (root / "dev/apex_0").unlink()
    trees.write(root, "proc/1/cgroup", "0::/docker/0123\n")


def _logged_in_before(root: Path) -> None:
    trees.stick(root, mode=0o660)
    _group_of_node(root, 46)
    trees.write(root, "etc/group", "root:x:0:\nplugdev:x:46:pi,maker\n")


def _group_of_node(root: Path, gid: int) -> None:
    try:
        os.chown(root / "dev/bus/usb/002/003", 0, gid)
    except PermissionError:
        pytest.skip("only root can give a file to another user")


def _not_in_group(root: Path) -> None:
    trees.stick(root, mode=0o660)
    _group_of_node(root, 46)


def _rule_not_in_effect(root: Path) -> None:
    trees.stick(root, mode=0o664)
    _group_of_node(root, 0)
    trees.write(root, "etc/group", "root:x:0:\nplugdev:x:46:maker\n")


def _no_rule(root: Path) -> None:
    trees.stick(root, mode=0o664, rules=None)
    _group_of_node(root, 0)


def _rule_for_one_id(root: Path) -> None:
    trees.stick(
        root, ready=False, rules='SUBSYSTEM=="usb", ATTRS{idVendor}=="1a6e", ATTRS{idProduct}=="089a", MODE="0666"\n'
    )


def _masked_rule(root: Path) -> None:
    _no_rule(root)
    trees.write(root, "lib/udev/rules.d/60-libedgetpu1-std.rules", trees.BOTH_RULES)
    trees.link(root, "etc/udev/rules.d/60-libedgetpu1-std.rules", "/dev/null")


@pytest.mark.parametrize(
    ("make", "identity", "id", "detail", "fix"),
    [
        (_no_rule, trees.USER, "edgetpu-rights", "no udev rule for it", "install the udev rules"),
        (_no_rule, trees.ROOT, "edgetpu-rights", "by root alone", "install the udev rules"),
        (_masked_rule, trees.USER, "edgetpu-rights", "no udev rule for it", "install the udev rules"),
        (_not_in_group, trees.USER, "edgetpu-rights", "group plugdev, mode 0660", "usermod -aG plugdev maker"),
        (_logged_in_before, trees.USER, "edgetpu-rights", "no right to open", "log out and in again"),
        (_rule_not_in_effect, trees.USER, "edgetpu-rights", "no right to open", "udevadm control --reload"),
        (_held, trees.USER, "edgetpu-held", "process 99 (frigate.detector)", "stop that one"),
        (_hub, trees.USER, "edgetpu-power", "Cheap Hub", "its own supply"),
        (_over_current, trees.USER, "edgetpu-power", "over-current (2 times", "hub with its own supply"),
        (_under_voltage, trees.USER, "edgetpu-power", "voltage is too low", "own supply"),
        (_small_supply, trees.USER, "edgetpu-power", "600 mA", "usb_max_current_enable=1"),
        (_rule_for_one_id, trees.USER, "edgetpu-state", "firmware not loaded", "both ids"),
        (_bare_card, trees.USER, "edgetpu-state", "no driver", "gasket-dkms"),
        (_bare_card, trees.USER, "edgetpu-state", "/dev/apex_0", "kernel=kernel8.img + dtoverlay=pineboards-hat-ai"),
        (_in_docker, trees.ROOT, "edgetpu-rights", "is missing", "--device-cgroup-rule"),
        (_in_docker_with_card, trees.ROOT, "edgetpu-rights", "is missing", "--device /dev/apex_0"),
        (lambda root: trees.stick(root, speed="480"), trees.USER, "edgetpu-link", "480 Mb/s (USB 2)", "USB 3 (blue)"),
        (lambda root: trees.stick(root, speed="12"), trees.USER, "edgetpu-link", "12 Mb/s (USB 1)", "USB 3 (blue)"),
        (lambda root: trees.card(root, temp="91000"), trees.USER, "edgetpu-heat", "91 C", "heat sink"),
        (lambda root: trees.card(root, status="DEAD"), trees.USER, "edgetpu-state", "does not answer", "pcie_aspm=off"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_fix(
    tmp_path: Path,
    standin: Path,
    make: Callable[[Path], Optional[str]],
    identity: Identity,
    id: str,
    detail: str,
    fix: str,
) -> None:
    trees.library(tmp_path, standin)
    make(tmp_path)
    wrong = _wrong(checks(tmp_path, identity=identity, environment={}))
    assert [row.id for row in wrong] == [id]
    assert detail in wrong[0].detail
    assert fix in str(wrong[0].fix)


def test_a_healthy_stick_has_nothing_wrong(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin)
    trees.package(tmp_path, "libedgetpu1-std", "16.0tf2.19.1-1")
    trees.stick(tmp_path, mode=0o660)
    _group_of_node(tmp_path, 46)
    rows = checks(tmp_path, identity=trees.IN_PLUGDEV, environment={})
    assert _wrong(rows) == []
    assert [row.id for row in rows] == ["edgetpu", "edgetpu-library", "edgetpu-rights"]
    assert "libedgetpu 16.0tf2.19.1-1 built for TensorFlow 2.19.1, standard clock" in rows[1].detail


def test_firmware_not_yet_loaded_is_normal_where_both_ids_have_rights(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin)
    trees.stick(tmp_path, ready=False)
    rows = checks(tmp_path, identity=trees.USER, environment={})
    assert _wrong(rows) == []
    [state] = [row for row in rows if row.id == "edgetpu-state"]
    assert "firmware not loaded" in state.detail and state.fix


def test_a_board_without_usb_3_is_not_blamed(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin)
    trees.stick(tmp_path, "1-1", speed="480")
    trees.write(tmp_path, "sys/bus/usb/devices/usb1/speed", "480\n")
    assert _wrong(checks(tmp_path, identity=trees.USER, environment={})) == []


def test_nothing_at_all_is_nothing_wrong(tmp_path: Path) -> None:
    assert checks(tmp_path, environment={}) == [Check("edgetpu", "ok", "no Edge TPU attached", None)]


def test_library_without_device(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin)
    trees.write(tmp_path, "sys/bus/usb/devices/usb2/speed", "5000\n")
    [row] = _wrong(checks(tmp_path, environment={}))
    assert row.id == "edgetpu"
    assert "no Edge TPU attached" in row.detail
    assert "plug it in" in str(row.fix)


def test_a_pi_5_set_up_for_a_card_that_does_not_show(tmp_path: Path) -> None:
    trees.write(tmp_path, "proc/device-tree/model", PI5)
    trees.write(tmp_path, "boot/firmware/config.txt", "dtparam=pciex1_gen=3\ndtoverlay=pineboards-hat-ai # AI\n")
    [row] = _wrong(checks(tmp_path, environment={}))
    assert "set up for a Coral on PCIe" in row.detail
    assert "kernel=kernel8.img" in str(row.fix) and "dtparam=pciex1 " not in str(row.fix)


def test_device_without_library(tmp_path: Path) -> None:
    trees.stick(tmp_path)
    [row] = _wrong(checks(tmp_path, identity=trees.USER, environment={}))
    assert row.id == "edgetpu-library"
    assert "not installed" in row.detail
    assert "install.sh --edgetpu" in str(row.fix)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "is empty"), (b"not a library" * 10, "not a shared library")], ids=["empty", "text"]
)
def test_a_broken_library(tmp_path: Path, content: bytes, says: str) -> None:
    trees.stick(tmp_path)
    bad = tmp_path / "bad.so"
    bad.write_bytes(content)
    [row] = _wrong(checks(tmp_path, identity=trees.USER, environment={library.VARIABLE: str(bad)}))
    assert row.id == "edgetpu-library"
    assert says in row.detail and row.fix


def test_each_of_two_devices_has_rows_of_its_own(tmp_path: Path, standin: Path) -> None:
    trees.library(tmp_path, standin)
    trees.stick(tmp_path, "2-1", number=3)
    trees.stick(tmp_path, "2-2", number=4, speed="480")
    rows = checks(tmp_path, identity=trees.USER, environment={})
    assert [row.id for row in _wrong(rows)] == ["edgetpu-link-usb:1"]
    assert len({row.id for row in rows}) == len(rows)
