import json
from dataclasses import asdict
from pathlib import Path

import pytest

from edge_mnv2.runtime import edgetpu as choice
from edge_mnv2.runtime.edgetpu import discovery
from edge_mnv2.runtime.supervised.lock import Holder
from tests.runtime.edgetpu import trees


def test_nothing_attached(tmp_path: Path) -> None:
    trees.write(tmp_path, "sys/bus/usb/devices/1-1/idVendor", "046d\n")
    trees.write(tmp_path, "sys/bus/usb/devices/1-1/idProduct", "0825\n")
    assert discovery.find(tmp_path) == []
    assert choice.present(tmp_path) == []
    assert discovery.find(tmp_path / "empty") == []


@pytest.mark.parametrize(
    ("ready", "state", "id"), [(True, "ready", "18d1:9302"), (False, "firmware not loaded", "1a6e:089a")]
)
def test_a_stick_in_both_of_its_states(tmp_path: Path, ready: bool, state: str, id: str) -> None:
    trees.stick(tmp_path, "2-1", ready=ready)
    [found] = discovery.find(tmp_path, identity=trees.USER)
    assert (found.name, found.kind, found.state, found.id) == ("usb:0", "usb", state, id)
    assert found.path == "/sys/bus/usb/devices/2-1"
    assert found.node == "/dev/bus/usb/002/003"
    assert (found.speed_mbps, found.max_power_ma, found.hub) == (5000.0, 896, None)
    assert found.rights.usable
    assert found.port == "usb-2-1"
    json.dumps(asdict(found))


def test_a_stick_keeps_its_name_when_it_changes_its_id(tmp_path: Path) -> None:
    trees.stick(tmp_path, "2-1", ready=False, number=3)
    trees.stick(tmp_path, "2-2", ready=True, number=4)
    before = {each.port: each.name for each in discovery.find(tmp_path)}
    trees.stick(tmp_path, "2-1", ready=True, number=9)
    after = {each.port: each.name for each in discovery.find(tmp_path)}
    assert before == after == {"usb-2-1": "usb:0", "usb-2-2": "usb:1"}


def test_ports_count_as_numbers(tmp_path: Path) -> None:
    for port in ("2-10", "2-9", "1-1.2"):
        trees.stick(tmp_path, port)
    assert [each.port for each in discovery.find(tmp_path)] == ["usb-1-1.2", "usb-2-9", "usb-2-10"]


def test_a_device_tree_of_links_as_the_kernel_has_it(tmp_path: Path) -> None:
    folder = trees.stick(tmp_path, "2-1")
    real = tmp_path / "sys/devices/platform/scb/usb2/2-1"
    real.parent.mkdir(parents=True)
    (tmp_path / folder).rename(real)
    trees.link(tmp_path, folder, "../../../devices/platform/scb/usb2/2-1")
    trees.link(tmp_path, "sys/devices/platform/scb/usb2/2-1/port", "../2-0:1.0/usb2-port1")
    trees.write(tmp_path, "sys/devices/platform/scb/usb2/2-0:1.0/usb2-port1/over_current_count", "3\n")
    trees.write(tmp_path, "sys/bus/usb/devices/2-1:1.0/bInterfaceClass", "ff\n")
    [found] = discovery.find(tmp_path)
    assert found.over_current == 3


@pytest.mark.parametrize(("attributes", "bus_powered"), [("e0", False), ("a0", True), ("", None), ("zz", None)])
def test_a_stick_behind_a_hub(tmp_path: Path, attributes: str, bus_powered: bool) -> None:
    trees.stick(tmp_path, "1-1.3", speed="480")
    for name, value in {
        "idVendor": "05e3",
        "idProduct": "0610",
        "product": "USB2.1 Hub",
        "bmAttributes": attributes,
    }.items():
        trees.write(tmp_path, f"sys/bus/usb/devices/1-1/{name}", f"{value}\n")
    [found] = discovery.find(tmp_path)
    assert (found.hub, found.hub_bus_powered, found.speed_mbps) == ("USB2.1 Hub", bus_powered, 480.0)


def test_cards_come_first_and_are_counted_apart(tmp_path: Path) -> None:
    trees.stick(tmp_path)
    trees.card(tmp_path, "apex_0")
    trees.card(tmp_path, "apex_1", temp="92000")
    found = discovery.find(tmp_path, identity=trees.USER)
    assert [each.name for each in found] == ["pci:0", "pci:1", "usb:0"]
    assert found[0].node == "/dev/apex_0" and found[0].temp_c == 48.5 and found[0].throttle_c == 85.0
    assert found[1].temp_c == 92.0
    assert found[0].rights.udev_rules == ("/usr/lib/udev/rules.d/60-gasket-dkms.rules",)
    assert choice.present(tmp_path) == ["apex_0", "apex_1", "usb-2-1"]


@pytest.mark.parametrize(("status", "temp"), [("DEAD", "45000"), ("ALIVE", "-89700"), ("LAMED", "45000")])
def test_a_card_that_does_not_answer(tmp_path: Path, status: str, temp: str) -> None:
    trees.card(tmp_path, status=status, temp=temp)
    [found] = discovery.find(tmp_path)
    assert found.state == "not alive"


def test_a_card_without_driver(tmp_path: Path) -> None:
    trees.write(tmp_path, "sys/bus/pci/devices/0001:01:00.0/vendor", "0x1ac1\n")
    trees.write(tmp_path, "sys/bus/pci/devices/0001:01:00.0/device", "0x089a\n")
    [found] = discovery.find(tmp_path)
    assert (found.name, found.state, found.node) == ("pci:0", "no driver", None)


def test_who_holds_a_stick(tmp_path: Path) -> None:
    trees.stick(tmp_path)
    trees.process(tmp_path, 812, "/usr/bin/python3", "-m", "frigate", opens="/dev/bus/usb/002/003")
    trees.process(tmp_path, 813, "/usr/bin/lsusb", opens="/dev/bus/usb/002/001")
    [found] = discovery.find(tmp_path)
    assert found.holders == (Holder(812, "python3 -m frigate"),)
    assert discovery.find(tmp_path, held=False)[0].holders == ()


def test_the_driver_tells_who_holds_a_card(tmp_path: Path) -> None:
    folder = trees.card(tmp_path)
    trees.write(tmp_path, f"{folder}/is_device_owned", "1\n")
    trees.write(tmp_path, f"{folder}/device_owner", "4711\n")
    [found] = discovery.find(tmp_path)
    assert found.holders == (Holder(4711, "unknown"),)


@pytest.mark.parametrize("board", ["usb-coral-ready", "coral-dev-board"])
def test_files_of_half_a_board_are_enough(tmp_path: Path, board: str) -> None:
    if board == "coral-dev-board":
        trees.write(tmp_path, "sys/class/apex/apex_0/temp", "49300\n")
    else:
        trees.write(tmp_path, "sys/bus/usb/devices/2-1/idVendor", "18d1\n")
        trees.write(tmp_path, "sys/bus/usb/devices/2-1/idProduct", "9302\n")
    [found] = discovery.find(tmp_path)
    assert found.state == "ready"
    assert found.rights.usable is None
