"""Which V4L2 cameras are there, what they offer, who holds one, and where one is found again after it was unplugged."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.camera import ioctl
from edge_mnv2.camera.csi_sensor import SensorMode
from edge_mnv2.camera.frame import View

CSI_DRIVERS = frozenset(("unicam", "rp1-cfe", "bcm2835-unicam", "tegra-video", "vi"))
"""Nodes of these drivers carry a CSI sensor's raw data: libcamera (or Argus) makes pictures of them, V4L2 cannot."""

NOT_CAMERAS = frozenset(("pispbe", "bcm2835-isp", "bcm2835-codec", "rpivid", "rpi-hevc-dec"))
"""Image processors and codecs of the Raspberry Pi: their nodes say that they capture, and film nothing."""

_CLASS = "sys/class/video4linux"


@dataclass(frozen=True)
class Format:
    """A pixel format with its sizes as (width, height, frames per second of each interval)."""

    fourcc: str
    description: str
    sizes: tuple[tuple[int, int, tuple[float, ...]], ...] = ()


@dataclass(frozen=True)
class Identity:
    """What stays when a camera comes back under another index: where it is plugged in, and its USB serial number."""

    name: str
    place: str
    node: str
    usb: Optional[tuple[str, str, str]] = None


@dataclass(frozen=True)
class CameraInfo:
    """One V4L2 camera. `formats` is empty where the device could not be asked; `problem` then says why.

    `source` is the word for `--camera`: the link that leads to this camera alone, or the path. `alone`: no other
    camera has the same name and serial number. `csi`: the node of a CSI sensor, which has to be opened as `csi`;
    where picamera2 knows it, `number` is its number, `path` its name in libcamera, `modes` what its sensor can do,
    and `view` what is seen of it.
    """

    path: str
    name: str
    by_id: Optional[str] = None
    by_path: Optional[str] = None
    driver: str = ""
    bus: str = ""
    formats: tuple[Format, ...] = ()
    csi: bool = False
    problem: Optional[str] = None
    identity: Optional[Identity] = field(default=None, compare=False)
    alone: bool = True
    number: Optional[int] = None
    modes: tuple[SensorMode, ...] = ()
    view: Optional[View] = None

    @property
    def source(self) -> str:
        """The word for `--camera` that means this camera, after a reboot too where there is such a word."""
        if self.csi:
            return f"csi:{self.number}" if self.number else "csi"
        return (self.by_id if self.alone else None) or self.by_path or self.path

    def as_dict(self) -> dict:
        """For JSON output."""
        return {
            "path": self.path,
            "name": self.name,
            "source": self.source,
            "by_id": self.by_id,
            "by_path": self.by_path,
            "driver": self.driver,
            "bus": self.bus,
            "csi": self.csi,
            "number": self.number,
            "view": None if self.view is None else self.view.as_dict(),
            "modes": [{"size": list(mode.size), "fps": mode.fps, "crop": list(mode.crop)} for mode in self.modes],
            "problem": self.problem,
            "formats": [
                {
                    "fourcc": item.fourcc,
                    "description": item.description,
                    "sizes": [{"width": w, "height": h, "fps": [round(r, 3) for r in fps]} for w, h, fps in item.sizes],
                }
                for item in self.formats
            ],
        }


def attached_cameras(root: Union[Path, str] = "/", *, formats: bool = True) -> list[CameraInfo]:
    """Every camera: those of V4L2, and the CSI cameras that picamera2 knows instead of their sensors' nodes."""
    cameras = list_cameras(root, formats=formats)
    if str(root) != "/":
        return cameras
    from edge_mnv2.camera.csi import list_csi

    known = [
        CameraInfo(
            one.id, one.model, driver="libcamera", csi=True, problem=one.problem, number=one.number, modes=one.modes,
            view=one.view,
        )
        for one in list_csi(modes=formats)
    ]  # fmt: skip
    return [*(camera for camera in cameras if not (camera.csi and known)), *known]


def list_cameras(root: Union[Path, str] = "/", *, formats: bool = True) -> list[CameraInfo]:
    """The V4L2 cameras under `root`, by index; a CSI sensor's node included, codecs and metadata nodes left out."""
    root = Path(root)
    cameras: list[CameraInfo] = []
    sensors = set()
    for name in _nodes(root):
        info = _describe(root, name, formats)
        if info is None:
            continue
        if info.csi and info.identity is not None:
            # One sensor has up to eight nodes.
            if info.identity.place in sensors:
                continue
            sensors.add(info.identity.place)
        cameras.append(info)
    kinds = [None if camera.identity is None else (camera.name, camera.identity.usb) for camera in cameras]
    # The link by-id leads to one of several cameras that say the same of themselves: to the one that came last.
    return [replace(camera, alone=kinds.count(kind) < 2) for camera, kind in zip(cameras, kinds)]


def first_camera(root: Union[Path, str] = "/") -> Optional[str]:
    """The SPEC of the first camera that plain V4L2 can open, else of the first CSI camera, else None."""
    cameras = list_cameras(root, formats=False)
    for camera in cameras:
        if not camera.csi:
            return camera.path
    if cameras:
        return "csi"
    others = attached_cameras(root, formats=False)
    return others[0].source if others else None


def describe(path: str, root: Union[Path, str] = "/") -> Optional[CameraInfo]:
    """What `list_cameras` would say about the node (or link) `path`, also where it is no camera (then None)."""
    return _describe(Path(root), _target(path), formats=True)


def identity(path: str, root: Union[Path, str] = "/") -> Optional[Identity]:
    """What to look for when the camera at `path` was unplugged; None where sysfs does not know it."""
    return _identity(Path(root), _target(path))


def places(root: Union[Path, str] = "/") -> frozenset[str]:
    """Where cameras are plugged in now."""
    cameras = (_identity(Path(root), name) for name in _nodes(Path(root)))
    return frozenset(who.place for who in cameras if who is not None)


def find_again(
    wanted: Identity, root: Union[Path, str] = "/", elsewhere: frozenset[str] = frozenset()
) -> Optional[str]:
    """The path of the camera with this identity, whatever its index is now; None where it is not there.

    The same camera in the same place first, then the only one of the same USB type and serial number in another place.
    `elsewhere`: places of other cameras, which may be of the same type and cheaply made, with the same serial number.
    """
    root = Path(root)
    moved = []
    for name in _nodes(root):
        other = _identity(root, name)
        if other is None or (other.name, other.node, other.usb) != (wanted.name, wanted.node, wanted.usb):
            continue
        if other.place == wanted.place:
            return str(root / "dev" / name)
        if other.usb is not None and other.place not in elsewhere:
            moved.append(str(root / "dev" / name))
    return moved[0] if len(moved) == 1 else None


def holders(path: str, root: Union[Path, str] = "/") -> list[tuple[int, str]]:
    """(process id, command name) of each other process that has the device open, as far as we may look."""
    root = Path(root)
    try:
        wanted = Path(path).stat().st_rdev
    except OSError:
        return []
    others = []
    for process in root.glob("proc/[0-9]*"):
        pid = int(process.name)
        if pid != os.getpid() and _holds(process, wanted):
            name = _read(process / "comm") or "unknown"
            others.append((pid, name))
    return sorted(others)


def why_closed(path: str, root: Union[Path, str] = "/") -> Optional[tuple[str, Optional[str]]]:
    """(what is wrong, what to do) with a device that cannot be opened; None where nothing can be found."""
    if not Path(path).exists():
        return f"{path} is not there", None
    try:
        with ioctl.opened(path) as descriptor:
            capability = ioctl.capability(descriptor)
            is_busy = ioctl.busy(descriptor)
    except PermissionError:
        return f"no permission to open {path}", "sudo usermod -aG video $USER, then log in again"
    except OSError as error:
        others = holders(path, root)
        if others:
            return _held(path, others)
        return f"{path} cannot be used as a camera: {error.strerror}", None
    others = holders(path, root)
    if others or is_busy:
        return _held(path, others)
    if not capability.captures:
        return f"{path} ({capability.card}) gives no pictures: it is not a camera", None
    return None


def _held(path: str, others: list[tuple[int, str]]) -> tuple[str, str]:
    if not others:
        return f"{path} is in use by another process", "stop it, or run as root to see which one it is"
    names = ", ".join(f"{name} (pid {pid})" for pid, name in others)
    return f"{path} is in use by {names}", "stop that process, or choose another camera"


def _holds(process: Path, wanted: int) -> bool:
    try:
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                # The link's text is cheaper than a stat, and nothing else in /dev is called so.
                if "/video" in os.readlink(entry) and entry.stat().st_rdev == wanted:  # noqa: PTH115
                    return True
    except OSError:
        pass
    return False


def _nodes(root: Path) -> list[str]:
    """Names such as video0, by index; from sysfs, else from /dev."""
    names = {path.name for path in (root / _CLASS).glob("video*")} or {path.name for path in root.glob("dev/video*")}
    numbered = [(int(match[1]), name) for name in names if (match := re.fullmatch(r"video(\d+)", name))]
    return [name for _, name in sorted(numbered)]


def _describe(root: Path, name: str, formats: bool) -> Optional[CameraInfo]:
    entry, path = root / _CLASS / name, str(root / "dev" / name)
    driver = _link_name(entry / "device" / "driver") or ""
    label = _read(entry / "name") or name
    by_id, by_path = (_link_to(root / "dev/v4l" / kind, name) for kind in ("by-id", "by-path"))
    who = _identity(root, name)
    try:
        with ioctl.opened(path) as descriptor:
            capability = ioctl.capability(descriptor)
            if not capability.captures or capability.driver in NOT_CAMERAS:
                return None
            offered = _formats(descriptor) if formats else ()
        driver = capability.driver or driver
        csi = driver in CSI_DRIVERS
        card = capability.card or label
        return CameraInfo(path, card, by_id, by_path, driver, capability.bus, offered, csi, None, who)
    except FileNotFoundError:
        return None
    except OSError as error:
        if (_read(entry / "index") or "0") != "0" or driver in NOT_CAMERAS:
            return None
        problem = "no permission (group video)" if isinstance(error, PermissionError) else error.strerror
        return CameraInfo(path, label, by_id, by_path, driver, "", (), driver in CSI_DRIVERS, problem, who)


def _formats(descriptor: int) -> tuple[Format, ...]:
    offered = []
    for fourcc, description in ioctl.formats(descriptor):
        sizes = tuple(
            (width, height, tuple(ioctl.rates(descriptor, fourcc, width, height)))
            for width, height in ioctl.sizes(descriptor, fourcc)
        )
        offered.append(Format(fourcc, description, sizes))
    return tuple(offered)


def _identity(root: Path, name: str) -> Optional[Identity]:
    entry = root / _CLASS / name
    if not entry.exists():
        return None
    device = entry / "device"
    place = os.path.realpath(device if device.exists() else entry)
    usb = None
    for folder in (Path(place), Path(place).parent):
        vendor, product = _read(folder / "idVendor"), _read(folder / "idProduct")
        if vendor and product:
            usb = (vendor, product, _read(folder / "serial") or "")
            break
    return Identity(_read(entry / "name") or name, place, _read(entry / "index") or "0", usb)


def _target(link: Union[Path, str]) -> str:
    """The name of what `link` leads to in the end, whether or not that is there."""
    return Path(os.path.realpath(link)).name


def _link_to(folder: Path, name: str) -> Optional[str]:
    with contextlib.suppress(OSError):
        for link in sorted(folder.iterdir()):
            if _target(link) == name:
                return str(link)
    return None


def _link_name(link: Path) -> Optional[str]:
    return _target(link) if link.exists() else None


def _read(file: Path) -> Optional[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
