"""libedgetpu: where it is, what it was built for, what is wrong with it; learned without loading it.

A library that does not belong to the runtime ends the process that loads it, so everything here is read from the file
and from the package database.
"""

from __future__ import annotations

import mmap
import os
import re
import signal
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.edgetpu import LIBRARY_VARIABLE, AcceleratorLost, DeviceRefused

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
    """Another delegate than libedgetpu, named on the command line."""

    @property
    def by_hand(self) -> bool:
        """Whether a variable led to it: then it is asked for devices that `/sys` does not show."""
        return self.source in (VARIABLE, "LD_LIBRARY_PATH")

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
    for path, shown, source in _candidates(system, environment):
        return _with_package(_examined(path, shown, source), system)
    return None


def external(path: str) -> Library:
    """The library of an external delegate, looked at like libedgetpu."""
    if not Path(path).is_file():
        return Library(path, "--delegate", problem=f"{path}: no such library", fix="name the delegate's .so file")
    examined = _examined(Path(path), path, "--delegate")
    problem = examined.problem.replace("Edge TPU", "TensorFlow Lite") if examined.problem else None
    return replace(examined, external=True, problem=problem, fix=problem and "name the delegate's own .so file")


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


_DOING = {
    "start": "starting",
    "runtime": "loading the runtime",
    "library": "loading the library",
    "create": "opening the device",
    "open": "loading the model",
    "invoke": "running the model for the first time",
    "use": "running the model",
}
_CAUSES = {error.__name__: error for error in (OSError, AttributeError, ValueError, RuntimeError, ImportError)}
_CRASHES = ("SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE")

_RUNTIME_ADDS = re.compile(
    r"Encountered unresolved custom op: edgetpu-custom-op\.?|See instructions: \S+"
    r"|Node number \d+ \([^)]*\) failed to \w+\.?"
)

FIT = f"install a libedgetpu built for TensorFlow 2.17 or newer ({COMMUNITY_BUILDS}, see docs/edgetpu.md)"
RESEAT = "plug it in again, into a USB 3 port with its own short cable or behind a powered hub"


@dataclass(frozen=True)
class Ending:
    """How a worker came to its end.

    `stage` is what it was doing ("use" once it had worked). Either it reported an error (`kind`, `text`), or it was
    ended by a signal or with exit code `code`, or did not answer for `waited_s`. `native` are the last lines that
    native code wrote.
    """

    stage: str
    kind: Optional[str] = None
    text: str = ""
    code: Optional[int] = None
    waited_s: Optional[float] = None
    native: Sequence[str] = ()

    @property
    def signal_name(self) -> Optional[str]:
        if self.code is None or self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"


def explain(ending: Ending, library: Library, runtime: str, device: str) -> AcceleratorError:
    """The error for `ending`, with the native one as its cause. `runtime` is "package version"."""
    error = _error(ending, library, runtime, device)
    if library.external:
        text = error.message.replace("opens no Edge TPU", "refuses").replace("Edge TPU", "accelerator")
        kind = AcceleratorLost if isinstance(error, AcceleratorLost) else AcceleratorError
        error = kind(text, hint="does it belong to this version of the runtime, and to this board?")
    if ending.kind is not None:
        error.__cause__ = _CAUSES.get(ending.kind, RuntimeError)(ending.text)
    return error


def _error(ending: Ending, library: Library, runtime: str, device: str) -> AcceleratorError:
    newer = re.search(
        r"requires runtime (?:version )?\(?(\d+)\)?", " ".join((ending.text, *ending.native)), re.IGNORECASE
    )
    if newer:
        return AcceleratorError(
            f"the model was compiled for Edge TPU runtime {newer.group(1)}, newer than {library.title}",
            hint="install a newer libedgetpu, or compile the model with --min_runtime_version",
        )
    if ending.kind is not None:
        return _reported(ending, library, runtime, device)
    doing = _DOING.get(ending.stage, ending.stage)
    if ending.waited_s is not None:
        return AcceleratorLost(f"{device} did not answer within {ending.waited_s:g} s while {doing}", hint=RESEAT)
    name = ending.signal_name
    # What worked before and then crashed fits the runtime: there the device or its cable gave the reason.
    unfit = ending.stage != "use" and name != "SIGABRT"
    if name in _CRASHES:
        return AcceleratorLost(
            f"{library.title} crashed ({name}) under {runtime} while {doing}", hint=FIT if unfit else RESEAT
        )
    fatal = _last_words(ending.native)
    ended = "gave up" if name == "SIGABRT" else f"was ended by {name}" if name else f"ended with code {ending.code}"
    return AcceleratorLost(
        f"{library.title} {ended} while {doing}{f' ({fatal})' if fatal else ''}", hint=FIT if unfit else RESEAT
    )


def _reported(ending: Ending, library: Library, runtime: str, device: str) -> AcceleratorError:
    words = _plain(ending.text)
    if ending.stage == "library" or (ending.stage == "create" and ending.kind in ("OSError", "AttributeError")):
        return _unloadable(ending, library, words)
    if ending.kind == "ImportError" or ending.stage == "runtime":
        return AcceleratorError(f"the worker process has no interpreter: {words}")
    if ending.stage == "create":
        said = words.replace(f"Failed to load delegate from {library.path}", "").strip(" .:;")
        return DeviceRefused(
            f"{library.title} opens no Edge TPU ({device})" + (f": {said}" if said else ""),
            hint="is it attached, free, and yours to open? `edge-mnv2 doctor` tells",
            reason=said,
        )
    if "Unsupported data type in custom op handler" in words:
        return AcceleratorError(f"{library.title} does not fit {runtime}: {words}", hint=FIT)
    if ending.stage == "open":
        return AcceleratorError(
            f"{device} refuses the model: {words}", hint="compile it again with edgetpu_compiler, or update libedgetpu"
        )
    return AcceleratorLost(f"{device} fails when the model runs: {words}", hint=RESEAT)


def _unloadable(ending: Ending, library: Library, words: str) -> AcceleratorError:
    if ending.kind == "AttributeError":
        return AcceleratorError(
            f"{library.path} is a library, but no Edge TPU delegate: {words}",
            hint=f"install libedgetpu, or set {VARIABLE} to the right file",
        )
    needed = re.match(r"(\S+): cannot open shared object file", words)
    if needed and needed.group(1).rsplit("/", 1)[-1] != library.path.rsplit("/", 1)[-1]:
        package = "libusb-1.0-0" if needed.group(1).startswith("libusb-1.0") else None
        hint = f"sudo apt install {package}" if package else f"install what provides {needed.group(1)}"
        return AcceleratorError(f"{library.title} needs {needed.group(1)}, which is missing", hint=hint)
    return AcceleratorError(f"{library.path} cannot be loaded: {words}", hint="install libedgetpu again")


def _plain(text: str) -> str:
    """The first lines, without what the runtime adds to every failure of a custom operator."""
    own_words = _RUNTIME_ADDS.sub("", text)
    lines = [line.strip() for line in (own_words if own_words.strip() else text).splitlines() if line.strip()]
    return "; ".join(lines[:3]).rstrip(". ") or "no reason given"


def _last_words(native: Sequence[str]) -> str:
    """The library's fatal line ("F driver/usb/usb_driver.cc:1148] ..."), else its last one."""
    fatal = [line for line in native if re.match(r"F(?:\d{4})? ", line)]
    lines = fatal or [line for line in native if line.strip()]
    return lines[-1].strip()[:200] if lines else ""
