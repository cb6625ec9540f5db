"""A delegate's library for `.tflite` models, named on the command line: another accelerator than those in the tables.

What is said here of a delegate's library holds for libedgetpu too, which is one.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from edge_mnv2.board import accelerators
from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.interpreter import first_line, import_runtime, open_interpreter
from edge_mnv2.runtime.table import AnyInterpreter

if TYPE_CHECKING:
    from edge_mnv2.runtime.delegate import DelegateSpec, Plan
    from edge_mnv2.runtime.supervised.supervisor import SupervisedInterpreter

PLUGIN_SYMBOLS = (b"tflite_plugin_create_delegate", b"tflite_plugin_destroy_delegate")
_MACHINES = {3: "x86", 40: "32-bit Arm", 62: "x86-64", 183: "64-bit Arm", 243: "RISC-V"}


def plan(request: Optional[str], _spec: DelegateSpec, fall_back: bool) -> Plan:
    """It runs ordinary models, and the CPU goes on with the same one. Raises ModelError."""
    from edge_mnv2.runtime.delegate import Plan
    from edge_mnv2.zoo.registry import DEFAULT_MODEL
    from edge_mnv2.zoo.resolve import resolve

    model = resolve(request or DEFAULT_MODEL)
    return Plan(model if fall_back else None, model)


def open_supervised(
    spec: DelegateSpec,
    model: Path,
    cpu: Optional[Path],
    *,
    runtime: str = "auto",
    threads: int = 1,
    count: int = 1,
    **_: Any,
) -> list[SupervisedInterpreter]:
    """As `runtime.delegate` says. What the delegate runs on is its own business, and may be shared."""
    from edge_mnv2.runtime.supervised import Package
    from edge_mnv2.runtime.supervised.contact import Target
    from edge_mnv2.runtime.supervised.supervisor import Device, open_on

    assert spec.library is not None
    path = Path(spec.library)
    if not path.is_file():
        raise AcceleratorError(f"{path}: no such library", hint="name the delegate's .so file")
    problem, _remedy = problem_of(path, str(path))
    if problem is not None:
        raise AcceleratorError(problem, hint="name the delegate's own .so file")
    package = Package(path.name, str(path), f"{__name__}:open_in_worker")
    name = f"external:{path.name}"
    target = Target(package, name, "", (), str(model), runtime, threads, spec.options, engine="external")
    return open_on((Device(target) for _number in range(count)), cpu, count)


def problem_of(path: Path, shown: str, kind: str = "TensorFlow Lite") -> tuple[Optional[str], str]:
    """(what is wrong with the file, how to install it instead: "again", "for 64-bit Arm", "" for another library).

    It is not loaded: a library that does not belong to the runtime ends the process that loads it.
    """
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"\x7fELF" or len(data) < 64:
                return f"{shown} is not a shared library", "again"
            own, header = _own_elf_header(), bytes(data[:20])
            if own and (header[4], _machine(header)) != (own[4], _machine(own)):
                theirs, ours = (_MACHINES.get(_machine(each), "another processor") for each in (header, own))
                return f"{shown} is for {theirs}, this Python is for {ours}", f"for {ours}"
            missing = [symbol.decode() for symbol in PLUGIN_SYMBOLS if data.find(b"\0" + symbol + b"\0") < 0]
            if missing:
                return f"{shown} is a library, but no {kind} delegate ({missing[0]} is missing)", ""
    except (OSError, ValueError) as error:
        return f"{shown} cannot be read: {getattr(error, 'strerror', None) or 'it is empty'}", "again"
    return None, ""


def _own_elf_header() -> Optional[bytes]:
    try:
        with open(sys.executable, "rb") as handle:
            header = handle.read(20)
    except OSError:
        return None
    return header if header[:4] == b"\x7fELF" else None


def _machine(header: bytes) -> int:
    return struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)[0]


def load_delegate(library: str, options: Optional[dict[str, str]] = None, runtime: str = "auto") -> Any:
    """The runtime's own delegate object, which is told `options`.

    Raises AcceleratorError, with the native error as its cause: OSError (no such library, or not one), AttributeError
    (a library without the delegate's functions), ValueError (the library refuses; its text is often empty),
    RuntimeError (not CPython).
    """
    module, _ = import_runtime(runtime)
    try:
        # Looked up here first: the runtime's own loader leaves half an object behind whose destructor complains.
        native = ctypes.CDLL(library)
        for symbol in PLUGIN_SYMBOLS:
            getattr(native, symbol.decode())
        return module.load_delegate(library, options or {})
    except (OSError, AttributeError, ValueError, RuntimeError) as error:
        raise AcceleratorError(f"the library {library} gives no delegate: {first_line(error)}") from error


def open_in_worker(order: dict[str, Any], begin: Callable[[str], None]) -> Optional[AnyInterpreter]:
    """As `supervised.Driver.opener`."""
    import_runtime(order["runtime"])
    begin("library")
    return open_delegated(order, begin)


def open_delegated(order: dict[str, Any], begin: Callable[[str], None]) -> Optional[AnyInterpreter]:
    """The model of `order` in the runtime, accelerated by its library."""
    begin("create")
    native = load_delegate(order["library"], order["options"], order["runtime"])
    if order["model"] is None:
        return None
    begin("open")
    interpreter = open_interpreter(
        order["model"],
        runtime=order["runtime"],
        threads=order["threads"],
        delegates=[native],
        delegate_name=order["name"],
        quiet=False,
    )
    own = [one.operator for one in accelerators.rows() if one.operator]
    order["cpu_operators"] = interpreter.operator_count(but=own)
    return interpreter
