"""libedgetpu: where it is, what it was built for, what is wrong with it; learned without loading it.

A library that does not belong to the runtime ends the process that loads it, so everything here is read from the file
and from the package database.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.runtime.edgetpu.presence import LIBRARY_VARIABLE

VARIABLE = LIBRARY_VARIABLE
NAMES = ("libedgetpu.so.1", "libedgetpu.so.1.0", "libedgetpu.so")
PLUGIN_SYMBOLS = (b"tflite_plugin_create_delegate", b"tflite_plugin_destroy_delegate")

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
_MACHINES = {3: "x86", 40: "32-bit Arm", 62: "x86-64", 183: "64-bit Arm", 243: "RISC-V"}


@dataclass(frozen=True)
class Library:
    """One libedgetpu. `found_by` says what led to it; `problem` is what keeps it from being loaded, `fix` what to do.

    `version`, `tensorflow` (the release it was built with) and `clock` ("standard", "maximum") are None where neither
    the package database nor the file tells.
    """

    path: str
    found_by: str
    version: Optional[str] = None
    package: Optional[str] = None
    tensorflow: Optional[str] = None
    clock: Optional[str] = None
    problem: Optional[str] = None
    fix: Optional[str] = None

    @property
    def by_hand(self) -> bool:
        """Whether a variable led to it: then it is asked for devices that `/sys` does not show."""
        return self.found_by in (VARIABLE, "LD_LIBRARY_PATH")

    @property
    def title(self) -> str:
        """ "libedgetpu 16.0 built for TensorFlow 2.5.0", as far as it is known."""
        name = f"libedgetpu {self.version}" if self.version else Path(self.path).name
        return f"{name} built for TensorFlow {self.tensorflow}" if self.tensorflow else name


def find(root: Union[Path, str] = "/", environment: Optional[Mapping[str, str]] = None) -> Optional[Library]:
    """The library that would be loaded, None where there is none.

    Order: `EDGE_MNV2_EDGETPU_LIB` (a file, or a folder with it), `LD_LIBRARY_PATH`, the loader's cache, the usual
    folders. Paths named by variables are taken as they are, all others are looked up below `root`.
    """
    system = Sysroot(root)
    environment = os.environ if environment is None else environment
    if named := environment.get(VARIABLE):
        return _named(named)
    for path, shown, found_by in _candidates(system, environment):
        return _with_package(_examined(path, shown, found_by), system)
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
    for shown, found_by in places:
        found = system.resolve(shown.lstrip("/"))
        if found is not None:
            yield found, shown, found_by


def _cached(system: Sysroot) -> list[str]:
    """Paths of libedgetpu in the loader's cache: NUL-terminated strings in both of its formats."""
    cache = system.read_bytes("etc/ld.so.cache") or b""
    found = re.findall(rb"(/[^\0]+/libedgetpu\.so[^\0/]*)\0", cache)
    return sorted({path.decode(errors="replace") for path in found})


def _usual_folders(system: Sysroot) -> list[str]:
    triplets = [name for name in system.names("usr/lib") if name.endswith(("-linux-gnu", "-linux-gnueabihf"))]
    return [*(f"usr/lib/{triplet}" for triplet in triplets), "usr/local/lib", "usr/lib", "lib"]


def _examined(path: Path, shown: str, found_by: str) -> Library:
    library = Library(shown, found_by)
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_file(library, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is empty"
        return replace(library, problem=f"{shown} cannot be read: {reason}", fix="install libedgetpu again")


def _read_file(library: Library, data: mmap.mmap) -> Library:
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return replace(library, problem=f"{library.path} is not a shared library", fix="install libedgetpu again")
    own = _own_elf_header()
    header = bytes(data[:20])
    if own and (header[4], _machine(header)) != (own[4], _machine(own)):
        theirs, ours = (_MACHINES.get(_machine(each), "another processor") for each in (header, own))
        return replace(
            library,
            problem=f"{library.path} is for {theirs}, this Python is for {ours}",
            fix=f"install libedgetpu for {ours}",
        )
    missing = [symbol.decode() for symbol in PLUGIN_SYMBOLS if data.find(b"\0" + symbol + b"\0") < 0]
    if missing:
        return replace(
            library,
            problem=f"{library.path} is a library, but no Edge TPU delegate ({missing[0]} is missing)",
            fix=f"install libedgetpu, or set {VARIABLE} to the right file",
        )
    label = re.search(rb"TENSORFLOW_COMMIT=([0-9a-f]{8})", data)
    return replace(library, tensorflow=_TENSORFLOW_OF_COMMIT.get(label.group(1).decode()) if label else None)


def _own_elf_header() -> Optional[bytes]:
    try:
        with open(sys.executable, "rb") as handle:
            header = handle.read(20)
    except OSError:
        return None
    return header if header[:4] == b"\x7fELF" else None


def _machine(header: bytes) -> int:
    return struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)[0]


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
