"""Find the library and a device that is free, lock it, and open models on it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, TypeVar, Union

from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.delegate import DelegateSpec, parse
from edge_mnv2.runtime.edgetpu import DeviceHeld, DeviceRefused, checks, discovery, library
from edge_mnv2.runtime.edgetpu.choice import present, share_text
from edge_mnv2.runtime.edgetpu.contact import Target, TpuInterpreter, probe
from edge_mnv2.runtime.edgetpu.discovery import Accelerator, command_of, holders_of
from edge_mnv2.runtime.edgetpu.library import Library
from edge_mnv2.runtime.edgetpu.supervisor import SupervisedInterpreter
from edge_mnv2.runtime.interpreter import Interpreter, open_interpreter

_Contact = TypeVar("_Contact")
_TRIALS = 5
_PASSING_S = 0.2
"""A program that only lists devices has them open for less."""


_LOCK_FOLDER = "EDGE_MNV2_LOCK_DIR"


class DeviceLock:
    """The lock on the device at `port` (`Accelerator.port`, or another word that means one device).

    The file stays behind, only the kernel's lock on it counts: it ends with the process, whatever ends that. `folder`
    is `EDGE_MNV2_LOCK_DIR`, else `/run/lock`, else the folder for temporary files.
    """

    def __init__(self, port: str, folder: Optional[Path] = None) -> None:
        self.port = port
        self.path = (folder or _lock_folder()) / f"edge-mnv2-{re.sub(r'[^A-Za-z0-9._-]', '_', port)}.lock"
        self._descriptor: Optional[int] = None

    def acquire(self, device: str) -> bool:
        """Take it (False: it is ours already), or raise DeviceHeld with the holder's pid.

        `device` names the device in the message.
        """
        if self._descriptor is not None:
            return False
        descriptor = _open_lock(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = _written_pid(descriptor)
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise AcceleratorError(f"{self.path} cannot be locked: {error.strerror}") from error
            holder = f"process {pid} ({command_of(pid)})" if pid else "another process"
            raise DeviceHeld(f"{device} is used by {holder}", pid) from None
        with contextlib.suppress(OSError):  # a file of another user may be read-only for us: it locks all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> DeviceLock:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class Shared(DeviceLock):
    """No lock at all, for what several processes may use at once."""

    def acquire(self, device: str) -> bool:  # noqa: ARG002 - as the lock has it
        return False


def _lock_folder() -> Path:
    if named := os.environ.get(_LOCK_FOLDER):
        return Path(named).expanduser()
    common = Path("/run/lock")
    return common if os.access(common, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _open_lock(path: Path) -> int:
    """A descriptor on the lock file; every user can lock it, whoever made it. Raises AcceleratorError."""
    failure: Optional[OSError] = None
    # Opened before it is made: in a sticky folder the kernel refuses O_CREAT on a file of another user.
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            failure = error
            continue
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o666)
        return descriptor
    assert failure is not None
    raise AcceleratorError(
        f"the lock file {path} cannot be opened: {failure.strerror}", hint=f"name a writable folder in {_LOCK_FOLDER}"
    ) from failure


def _written_pid(descriptor: int) -> Optional[int]:
    try:
        pid = int(os.pread(descriptor, 32, 0).split()[0])
        os.kill(pid, 0)
    except PermissionError:
        return pid
    except (OSError, ValueError, IndexError):
        return None
    return pid


@dataclass(frozen=True)
class Device:
    """One device that can be asked for: as the kernel shows it, or (`accelerator` None) by the library's word alone."""

    target: Target
    lock: DeviceLock
    accelerator: Optional[Accelerator] = None


def open_supervised(
    spec: DelegateSpec,
    compiled: Path,
    cpu: Optional[Path],
    *,
    runtime: str = "auto",
    threads: int = 1,
    count: int = 1,
    root: Union[Path, str] = "/",
    input_size: object = None,  # noqa: ARG001 - a compiled model's size is fixed
) -> list[SupervisedInterpreter]:
    """`compiled` on up to `count` devices, each under supervision, with `cpu` as the model to go on with.

    A device that another process uses is waited for, on the CPU, where there is a `cpu` model; DeviceHeld is raised
    where there is none. Raises AcceleratorError where no device can be used.
    """
    driver = find_library(root) if spec.library is None else usable(library.external(spec.library))
    opened: list[SupervisedInterpreter] = []
    held: list[tuple[Device, DeviceHeld]] = []
    refused: list[AcceleratorError] = []
    try:
        for device in _devices(spec, driver, compiled, runtime, threads, root, count):
            if len(opened) == count:
                break
            try:
                tpu = _open(device, root, TpuInterpreter)
            except DeviceHeld as error:
                held.append((device, error))
            except AcceleratorError as error:
                refused.append(error)
            else:
                opened.append(supervised(device, tpu, cpu, runtime, threads, root))
        if not opened and held and cpu is not None and not refused:
            waited_for, busy = held[0]
            opened.append(supervised(waited_for, None, cpu, runtime, threads, root))
            opened[0].notes.append(f"{busy.message}; the CPU is used until it is free")
    except BaseException:
        for interpreter in opened:
            interpreter.close()
        raise
    if not opened:
        raise (refused or [error for _, error in held])[0]
    return opened


def try_device(compiled: Optional[Path], root: Union[Path, str] = "/") -> str:
    """Contact with the first device, and a few inferences where there is a `compiled` model; what came of it, in words.

    Raises AcceleratorError with what is wrong, DeviceHeld where another process uses the device.
    """
    device = next(_devices(parse("edgetpu"), find_library(root), compiled, "auto", 1, root, 1))
    with device.lock:
        return _open(device, root, _measured if compiled is not None else _opened)


def _opened(target: Target) -> str:
    version = probe(target)["version"]
    return f"{target.name} opens{f' ({version})' if version else ''}"


def _measured(target: Target) -> str:
    tpu = TpuInterpreter(target)
    took = []
    try:
        for _ in range(_TRIALS):
            began = time.monotonic()
            tpu.invoke()
            took.append(time.monotonic() - began)
    finally:
        tpu.close()
    return f"{target.name} answers: one inference in {sorted(took)[_TRIALS // 2] * 1e3:.1f} ms ({tpu.runtime})"


def find_library(root: Union[Path, str] = "/") -> Library:
    """The library that can be loaded. Raises AcceleratorError."""
    driver = library.find(root)
    if driver is None:
        raise AcceleratorError("libedgetpu.so.1, the Edge TPU library, is not installed", hint=checks.INSTALL)
    return usable(driver)


def usable(driver: Library) -> Library:
    """`driver`, where nothing is wrong with the file. Raises AcceleratorError."""
    if driver.problem:
        raise AcceleratorError(driver.problem, hint=driver.fix)
    return driver


def _devices(
    spec: DelegateSpec,
    driver: Library,
    compiled: Optional[Path],
    runtime: str,
    threads: int,
    root: Union[Path, str],
    count: int,
) -> Iterator[Device]:
    """Devices that `spec` allows, in the order in which they are to be tried."""
    base = Target(driver, "edgetpu", model=str(compiled) if compiled else None, runtime=runtime, threads=threads)
    if driver.external:
        # What it runs on is its own business, and may be shared.
        named = replace(base, name=f"external:{Path(driver.path).name}", options=spec.options, engine="external")
        yield from (Device(named, Shared("external")) for _ in range(count))
        return
    attached = discovery.find(root, held=False)
    if not attached:
        yield from _unlisted(spec, base, count)
        return
    allowed = [each for each in attached if spec.kind in (None, each.kind)]
    if spec.index is not None:
        allowed = allowed[spec.index : spec.index + 1]
    if not allowed:
        names = ", ".join(f"{each.name} ({each.id})" for each in attached)
        raise AcceleratorError(f"there is no {spec}", hint=f"attached: {names}")
    for accelerator in allowed:
        target = replace(
            base,
            name=f"edgetpu:{accelerator.name}",
            option=accelerator.name,
            paths=tuple(path for path in (accelerator.path, accelerator.node) if path),
        )
        yield Device(target, DeviceLock(accelerator.port), accelerator)


def _unlisted(spec: DelegateSpec, base: Target, count: int) -> Iterator[Device]:
    """What the library may know of though `/sys` shows nothing: the one that was asked for, or the first `count`."""
    for position in range(count if spec.index is None else 1):
        index = position if spec.index is None else spec.index
        name = ":".join(part for part in ("edgetpu", spec.kind, str(index)) if part)
        option = spec.option if position == 0 else f"{spec.kind or ''}:{index}"
        yield Device(replace(base, name=name, option=option), DeviceLock(f"edgetpu-{index}"))


def _open(device: Device, root: Union[Path, str], contact: Callable[[Target], _Contact]) -> _Contact:
    """Lock, look, contact. A lock that was taken here is given back where the device does not open."""
    taken_here = device.lock.acquire(device.target.name)
    try:
        if device.accelerator is not None:
            _look(device, root)
        return contact(device.target)
    except BaseException as error:
        if taken_here:
            device.lock.release()
        if isinstance(error, DeviceRefused) and device.accelerator is None and not error.reason:
            raise AcceleratorError(
                f"no Edge TPU is attached ({device.target.library.title} finds none)", hint=checks.PLUG_IN
            ) from error
        raise


def _look(device: Device, root: Union[Path, str]) -> None:
    """Raise what can be told without touching the device: a library's own failure says less, or ends in a crash."""
    accelerator = next((each for each in discovery.find(root) if each.port == device.lock.port), None)
    if accelerator is None:
        raise AcceleratorError(f"{device.target.name} is not attached", hint=checks.PLUG_IN)
    if accelerator.holders:
        time.sleep(_PASSING_S)
        others = holders_of(accelerator.node or "", Sysroot(root), but=(os.getpid(),))
        if others:
            raise DeviceHeld(f"{device.target.name} is used by {others[0]}", others[0].pid)
    obstacle = checks.obstacle(accelerator, root)
    if obstacle is not None:
        raise AcceleratorError(obstacle.detail, hint=obstacle.fix)


def supervised(
    device: Device,
    tpu: Optional[TpuInterpreter],
    cpu: Optional[Path],
    runtime: str,
    threads: int,
    root: Union[Path, str],
    contact: Callable[[Target], TpuInterpreter] = TpuInterpreter,
) -> SupervisedInterpreter:
    """`tpu` on `device`, or None while it is held, with its CPU model; `contact` opens it anew after a loss."""
    twin: Optional[Interpreter] = None
    try:
        twin = open_interpreter(cpu, runtime=runtime, threads=threads) if cpu is not None else None
        interpreter = SupervisedInterpreter(
            device.target.name,
            tpu,
            twin,
            open_tpu=lambda: _open(device, root, contact),
            attached=_attached(device, root),
            put_down=device.lock.release,
        )
        if tpu is not None and not device.target.library.external:
            interpreter.notes.append(share_text(tpu.cpu_operators, None if twin is None else twin.operator_count()))
        return interpreter
    except BaseException:
        for one in (tpu, twin):
            if one is not None:
                one.close()
        device.lock.release()
        raise


def _attached(device: Device, root: Union[Path, str]) -> Callable[[], Optional[bool]]:
    if device.accelerator is None:
        return lambda: None
    port = device.lock.port
    return lambda: port in present(root)
