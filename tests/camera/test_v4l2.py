from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_mnv2.camera import ioctl, v4l2
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.camera.v4l2_camera import V4l2Camera
from edge_mnv2.errors import SourceError


class Board:
    """A tree of `/sys`, `/dev` and `/proc` in which cameras are plugged in and out; its nodes answer no ioctl."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dev").mkdir()
        (root / "sys/class/video4linux").mkdir(parents=True)

    def plug(
        self,
        number: int,
        name: str = "HD Webcam",
        *,
        port: str = "usb1/1-1",
        usb: tuple[str, str, str] = ("046d", "0825", ""),
        driver: str = "uvcvideo",
        index: int = 0,
    ) -> str:
        device = self.root / "sys/devices" / port
        interface = device / f"{Path(port).name}:1.0"
        entry = interface / "video4linux" / f"video{number}"
        entry.mkdir(parents=True, exist_ok=True)
        for file, text in zip(("idVendor", "idProduct", "serial"), usb):
            if text:
                (device / file).write_text(text + "\n")
        (entry / "name").write_text(name + "\n")
        (entry / "index").write_text(f"{index}\n")
        folder = self.root / "sys/bus/drivers" / driver
        folder.mkdir(parents=True, exist_ok=True)
        for link, target in ((entry / "device", interface), (interface / "driver", folder)):
            if not link.is_symlink():
                link.symlink_to(target)
        (self.root / f"sys/class/video4linux/video{number}").symlink_to(entry)
        (self.root / f"dev/video{number}").write_bytes(b"")
        return str(self.root / f"dev/video{number}")

    def unplug(self, number: int) -> None:
        entry = (self.root / f"sys/class/video4linux/video{number}").resolve()
        (self.root / f"sys/class/video4linux/video{number}").unlink()
        (self.root / f"dev/video{number}").unlink()
        for file in (*entry.iterdir(),):
            file.unlink()
        entry.rmdir()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_list_by_index_with_names_and_links(board: Board) -> None:
    board.plug(10, "Ten")
    board.plug(2, "Two", port="usb1/1-2")
    board.plug(3, "Two", port="usb1/1-2", index=1)
    links = board.root / "dev/v4l/by-id"
    links.mkdir(parents=True)
    (links / "usb-Two_123-video-index0").symlink_to("../../video2")
    cameras = v4l2.list_cameras(board.root)
    assert [(camera.name, Path(camera.path).name, camera.driver) for camera in cameras] == [
        ("Two", "video2", "uvcvideo"),
        ("Ten", "video10", "uvcvideo"),
    ]
    assert str(cameras[0].by_id).endswith("usb-Two_123-video-index0") and cameras[1].by_id is None
    assert cameras[0].problem and cameras[0].as_dict()["formats"] == []
    assert v4l2.first_camera(board.root) == cameras[0].path


def test_identical_cameras_are_told_apart_by_their_place(board: Board) -> None:
    for number, port in ((0, "usb1/1-1"), (2, "usb1/1-2")):
        board.plug(number, "Cheap Cam", port=port, usb=("1b3f", "2247", "01.00.00"))
    board.plug(4, "Other", port="usb1/1-3")
    for kind, name, number in (
        ("by-id", "usb-Cheap_Cam_01.00.00-video-index0", 2),
        ("by-id", "usb-Other-video-index0", 4),
        ("by-path", "pci-0-usb-0:1:1.0-video-index0", 0),
        ("by-path", "pci-0-usb-0:2:1.0-video-index0", 2),
    ):
        (board.root / "dev/v4l" / kind).mkdir(parents=True, exist_ok=True)
        (board.root / "dev/v4l" / kind / name).symlink_to(f"../../video{number}")
    first, second, other = v4l2.list_cameras(board.root)
    assert first.source.endswith("usb-0:1:1.0-video-index0") and second.source.endswith("usb-0:2:1.0-video-index0")
    assert other.source.endswith("by-id/usb-Other-video-index0")
    assert [camera.as_dict()["source"] for camera in (first, second, other)] == [
        camera.source for camera in (first, second, other)
    ]


def test_without_cameras(board: Board) -> None:
    assert v4l2.list_cameras(board.root) == [] and v4l2.first_camera(board.root) is None
    assert v4l2.list_cameras(board.root / "nowhere") == []
    with pytest.raises(SourceError, match=r"no camera .*video0.*csi"):
        V4l2Camera(0, CameraSettings(), board.root).open()


def test_a_csi_sensor_asked_for_by_number_gets_the_hint(board: Board) -> None:
    board.plug(0, "unicam-image", port="soc/fe801000.csi", usb=("", "", ""), driver="unicam")
    assert v4l2.first_camera(board.root) == "csi"
    with pytest.raises(SourceError, match=r"CSI camera.*use --camera csi"):
        V4l2Camera(0, CameraSettings(), board.root).open()
    board.plug(5, "USB", port="usb1/1-3")
    assert str(v4l2.first_camera(board.root)).endswith("video5")


def test_a_raspberry_pi_with_a_ribbon_camera_shows_that_camera_alone(board: Board) -> None:
    none = ("", "", "")
    board.plug(0, "unicam-image", port="soc/fe801000.csi", usb=none, driver="unicam")
    board.plug(1, "unicam-image2", port="soc/fe801000.csi", usb=none, driver="unicam")
    for number, driver in ((10, "bcm2835-codec"), (13, "bcm2835-isp"), (19, "rpivid"), (20, "pispbe")):
        board.plug(number, driver, port=f"soc/{driver}", usb=none, driver=driver)
    assert [Path(camera.path).name for camera in v4l2.list_cameras(board.root)] == ["video0"]
    assert v4l2.first_camera(board.root) == "csi"


def test_a_missing_number_names_what_is_there(board: Board) -> None:
    board.plug(4, "HD Webcam")
    with pytest.raises(SourceError, match=r"video9.*found: .*video4 \(HD Webcam\)"):
        V4l2Camera(9, CameraSettings(), board.root).open()


@pytest.mark.parametrize("serial", ["", "A1"])
def test_a_camera_is_found_again_by_what_it_is(board: Board, serial: str) -> None:
    kind = ("046d", "0825", serial)
    path = board.plug(0, usb=kind)
    wanted = v4l2.identity(path, board.root)
    assert wanted is not None and v4l2.find_again(wanted, board.root) == path
    board.unplug(0)
    assert v4l2.find_again(wanted, board.root) is None
    board.plug(0, "Other", port="usb1/1-4", usb=("1111", "2222", ""))
    assert v4l2.find_again(wanted, board.root) is None, "another camera has taken the number"
    assert str(v4l2.find_again(wanted, board.root) or board.plug(1, usb=kind)).endswith("video1")
    assert str(v4l2.find_again(wanted, board.root)).endswith("video1"), "the same port"
    board.unplug(1)
    board.plug(7, usb=kind, port="usb2/2-1")
    assert str(v4l2.find_again(wanted, board.root)).endswith("video7"), "another port"


def test_a_twin_is_not_taken_for_the_camera(board: Board) -> None:
    path = board.plug(0)
    board.plug(1, port="usb1/1-2")
    wanted = v4l2.identity(path, board.root)
    assert wanted is not None
    neighbours = v4l2.places(board.root) - {wanted.place}
    board.unplug(0)
    assert v4l2.find_again(wanted, board.root, neighbours) is None
    board.plug(2, port="usb1/1-3")
    assert str(v4l2.find_again(wanted, board.root, neighbours)).endswith("video2")
    board.plug(3, port="usb1/1-4")
    assert v4l2.find_again(wanted, board.root, neighbours) is None, "two that could be it"


def test_holders_are_named(tmp_path: Path) -> None:
    # No camera is needed: any node whose path looks like one is looked for by its device number.
    node = tmp_path / "video0"
    try:
        os.mknod(node, 0o600 | 0o020000, os.makedev(1, 3))
        node.open("rb").close()
    except OSError:
        pytest.skip("device nodes cannot be made or opened here")
    code = f"import time; f = open({str(node)!r}, 'rb'); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
        found = v4l2.holders(str(node))
        said = v4l2.why_closed(str(node))
        holder.kill()
    assert [pid for pid, _ in found] == [holder.pid] and "python" in found[0][1]
    assert said is not None and f"pid {holder.pid}" in said[0]
    assert v4l2.holders(str(node)) == []


def test_questions_to_what_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", Path("/dev/null")):
        said = v4l2.why_closed(str(path))
        assert said is not None and str(path) in said[0]
    assert "not there" in str(v4l2.why_closed(str(tmp_path / "nothing")))
    with ioctl.opened("/dev/null") as descriptor:
        assert list(ioctl.formats(descriptor)) == [] and not ioctl.busy(descriptor)
        with pytest.raises(OSError):
            ioctl.capability(descriptor)


def test_numbers_of_the_requests() -> None:
    # As `linux/videodev2.h` has them on every architecture that these boards are.
    assert (ioctl._QUERYCAP, ioctl._ENUM_FMT, ioctl._REQBUFS) == (0x80685600, 0xC0405602, 0xC0145608)
    assert (ioctl._ENUM_FRAMESIZES, ioctl._ENUM_FRAMEINTERVALS) == (0xC02C564A, 0xC034564B)
    assert (ioctl._QUERYCTRL, ioctl._S_CTRL) == (0xC0445624, 0xC008561C)


@pytest.mark.parametrize("code", [b"MJPG", b"YUYV", b"Y16 ", b"GREY"])
def test_fourcc_both_ways(code: bytes) -> None:
    big = bytes((*code[:3], code[3] | 0x80))
    assert ioctl._code(ioctl._fourcc(code)) == code and ioctl._code(ioctl._fourcc(big)) == big
    assert ioctl._fourcc(big).endswith("-BE") and ioctl._fourcc(code) == code.decode().strip()
