"""libedgetpu: where it is, what it was built for, what is wrong with it; learned without loading it.

A library that does not belong to the runtime ends the process that loads it, so everything here is read from the file
and from the package database.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Optional, Union

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.runtime import external
from edge_mnv2.runtime.edgetpu import LIBRARY_VARIABLE
from edge_mnv2.runtime.interpreter import import_runtime
from edge_mnv2.runtime.table import AnyInterpreter

VARIABLE = LIBRARY_VARIABLE
NAMES = ("libedgetpu.so.1", "libedgetpu.so.1.0", "libedgetpu.so")

COMMUNITY_BUILDS = "github.com/feranick/libedgetpu"

_TENSORFLOW_OF_COMMIT = {
    "a4dfb8d1": "2.5.0",
    "1b8f5c39": "2.8.4",
    "a5ed5f39": "2.9.3",
    "fdfc6467": "2.10.1",
    "a3e2c692": "2.11.1",
    "8e2b6655": "2.12.1",
    "f841394b": "2.13.1",
    "6887368d": "2.15.0",
    "5bc9d266": "2.16.1",
    "ad6d8cc1": "2.17.0",
    "3c92ac03": "2.17.1",
    "cb64295e": "2.18.1",
    "f4247ebb": "2.19.1",
}
"""TensorFlow release by the first digits of the commit that a library's build label names."""

_STOCK = {"16.0": "2.5.0"}
"""TensorFlow release of Google's own packages, which do not carry it in their version."""

_DATABASE_LIMIT = 64 << 20

_FIT = f"install a libedgetpu built for TensorFlow 2.17 or newer ({COMMUNITY_BUILDS}, see docs/edgetpu.md)"
_HINTS = {
    "newer": "install a newer libedgetpu, or compile the model with --min_runtime_version",
    "device": "plug it in again, into a USB 3 port with its own short cable or behind a powered hub",
    "unfit": _FIT,
    "refused": "is it attached, free, and yours to open? `edge-mnv2 doctor` tells",
    "model": "compile it again with edgetpu_compiler, or update libedgetpu",
    "no delegate": f"install libedgetpu, or set {VARIABLE} to the right file",
    "file": "install libedgetpu again",
}


@dataclass(frozen=True)
class Library:
    """One libedgetpu. `source` says what led to it; `problem` is what keeps it from being loaded, `fix` what to do.

    `version`, `tensorflow` (the release it was built with) and `clock` ("standard", "maximum") are None where neither
    the package database nor the file tells.
    """

    path: str
    source: str
    version: Optional[str] = None
    package: Optional[str] = None
    tensorflow: Optional[str] = None
    clock: Optional[str] = None
    problem: Optional[str] = None
    fix: Optional[str] = None
    external: bool = False
    """Always; in the JSON of `devices accelerators`."""
    opener: ClassVar[str] = f"{__name__}:open_in_worker"
    noun: ClassVar[str] = "Edge TPU"
    refuses: ClassVar[str] = "opens no Edge TPU"
    asked_twice: ClassVar[bool] = True

    @property
    def by_hand(self) -> bool:
        """Whether a variable led to it: then it is asked for devices that `/sys` does not show."""
        return self.source in (VARIABLE, "LD_LIBRARY_PATH")

    @property
    def title(self) -> str:
        """ "libedgetpu 16.0 built for TensorFlow 2.5.0", as far as it is known."""
        name = f"libedgetpu {self.version}" if self.version else Path(self.path).name
        return f"{name} built for TensorFlow {self.tensorflow}" if self.tensorflow else name

    def hint(self, cause: str, name: str = "") -> Optional[str]:
        """As `supervised.Driver` has it."""
        if cause == "needs":
            package = "libusb-1.0-0" if name.startswith("libusb-1.0") else None
            return f"sudo apt install {package}" if package else f"install what provides {name}"
        return _HINTS.get(cause)


def find(root: Union[Path, str] = "/", environment: Optional[Mapping[str, str]] = None) -> Optional[Library]:
    """The library that would be loaded, None where there is none.

    Order: `EDGE_MNV2_EDGETPU_LIB` (a file, or a folder with it), `LD_LIBRARY_PATH`, the loader's cache, the usual
    folders. Paths named by variables are taken as they are, all others are looked up below `root`.
    """
    system = Sysroot(root)
    environment = os.environ if environment is None else environment
    if named := environment.get(VARIABLE):
        return _named(named)
    for path, shown, source in _candidates(system, environment):
        return _with_package(_examined(path, shown, source), system)
    return None


def _named(name: str) -> Library:
    path = Path(name).expanduser()
    if path.is_dir():
        path = next((path / known for known in NAMES if (path / known).exists()), path / NAMES[0])
    if not path.exists():
        return Library(
            str(path), VARIABLE, problem=f"{path} does not exist", fix=f"set {VARIABLE} to libedgetpu.so.1, or unset it"
        )
    return _examined(path, str(path), VARIABLE)


def _candidates(system: Sysroot, environment: Mapping[str, str]) -> Iterator[tuple[Path, str, str]]:
    """(the file, what to call it, what led there) of every libedgetpu that is there, the loader's choice first."""
    for folder in environment.get("LD_LIBRARY_PATH", "").split(":"):
        if folder:
            for name in NAMES:
                path = Path(folder) / name
                if path.exists():
                    yield path, str(path), "LD_LIBRARY_PATH"
    places = [(shown, "ld.so.cache") for name in NAMES for shown in _cached(system) if Path(shown).name == name]
    places += [(f"/{folder}/{name}", "library folder") for folder in _usual_folders(system) for name in NAMES]
    for shown, source in places:
        resolved = system.resolve(shown.lstrip("/"))
        if resolved is not None:
            yield resolved, shown, source


def _cached(system: Sysroot) -> list[str]:
    """Paths of libedgetpu in the loader's cache: NUL-terminated strings in both of its formats."""
    cache = system.read_bytes("etc/ld.so.cache") or b""
    paths = re.findall(rb"(/[^\0]+/libedgetpu\.so[^\0/]*)\0", cache)
    return sorted({path.decode(errors="replace") for path in paths})


def _usual_folders(system: Sysroot) -> list[str]:
    triplets = [name for name in system.names("usr/lib") if name.endswith(("-linux-gnu", "-linux-gnueabihf"))]
    return [*(f"usr/lib/{triplet}" for triplet in triplets), "usr/local/lib", "usr/lib", "lib"]


def _examined(path: Path, shown: str, source: str) -> Library:
    library = Library(shown, source)
    problem, remedy = external.problem_of(path, shown, "Edge TPU")
    if problem is not None:
        fix = f"install libedgetpu {remedy}" if remedy else _HINTS["no delegate"]
        return replace(library, problem=problem, fix=fix)
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        label = re.search(rb"TENSORFLOW_COMMIT=([0-9a-f]{8})", data)
        return replace(library, tensorflow=_TENSORFLOW_OF_COMMIT.get(label.group(1).decode()) if label else None)


def _with_package(library: Library, system: Sysroot) -> Library:
    """Version and clock from the Debian package database, where a package owns the file."""
    if "/local/" in library.path:
        return library
    database = (system.read_bytes("var/lib/dpkg/status", _DATABASE_LIMIT) or b"").decode(errors="replace")
    for name in re.finditer(r"^Package: (libedgetpu1\S*)$", database, re.MULTILINE):
        paragraph = database[name.start() : database.find("\n\n", name.start()) + 1 or None]
        version = re.search(r"^Version: (\S+)", paragraph, re.MULTILINE)
        if version is None or not re.search(r"^Status: .* installed$", paragraph, re.MULTILINE):
            continue
        built_with = re.search(r"tf(\d+\.\d+(?:\.\d+)?)", version.group(1), re.IGNORECASE)
        return replace(
            library,
            package=name.group(1),
            version=version.group(1),
            tensorflow=built_with.group(1) if built_with else library.tensorflow or _STOCK.get(version.group(1)),
            clock={"std": "standard", "max": "maximum"}.get(name.group(1).rsplit("-", 1)[-1]),
        )
    return library


_KINDS = {0: "pci", 1: "usb"}
"""`edgetpu_device_type` of the library's C interface."""


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("path", ctypes.c_char_p))


def library_version(library: str) -> str:
    """What the library says about itself, "" where it says nothing."""
    try:
        function = ctypes.CDLL(library).edgetpu_version
    except (OSError, AttributeError):
        return ""
    function.restype = ctypes.c_char_p
    return (function() or b"").decode(errors="replace")


def option_for(library: str, paths: tuple[str, ...], otherwise: str) -> str:
    """The `device` option that means the device at one of `paths` (its `/sys` folder, its device file).

    The library counts its devices in an order of its own, which changes when a stick loads its firmware, so it is
    asked; `otherwise` where it cannot be asked or does not list the device.
    """
    try:
        native = ctypes.CDLL(library)
        native.edgetpu_list_devices.restype = ctypes.POINTER(_Device)
        native.edgetpu_list_devices.argtypes = (ctypes.POINTER(ctypes.c_size_t),)
        native.edgetpu_free_devices.argtypes = (ctypes.POINTER(_Device),)
        native.edgetpu_free_devices.restype = None
    except (OSError, AttributeError):
        return otherwise
    count = ctypes.c_size_t()
    devices = native.edgetpu_list_devices(ctypes.byref(count))
    if not devices:
        return otherwise
    try:
        seen = {"pci": 0, "usb": 0}
        for position in range(count.value):
            kind = _KINDS.get(devices[position].type)
            if kind is None:
                continue
            if (devices[position].path or b"").decode(errors="replace") in paths:
                return f"{kind}:{seen[kind]}"
            seen[kind] += 1
    finally:
        native.edgetpu_free_devices(devices)
    return otherwise


def open_in_worker(order: dict[str, Any], begin: Callable[[str], None]) -> Optional[AnyInterpreter]:
    """As `supervised.Driver.opener`: the model of a worker's `order` by libedgetpu on the device at its `paths`."""
    import_runtime(order["runtime"])
    begin("library")
    library = order["library"]
    order["version"] = library_version(library)
    order["chosen"] = option_for(library, tuple(order["paths"]), order["option"])
    order["options"] = {"device": order["chosen"]}
    return external.open_delegated(order, begin)
