"""Find the library and a device that is free, lock it, and open models on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

from edge_mnv2.board.accelerators import TABLE
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.delegate import DelegateSpec, parse
from edge_mnv2.runtime.edgetpu import NAME, checks, discovery, library, present
from edge_mnv2.runtime.edgetpu.discovery import Accelerator
from edge_mnv2.runtime.edgetpu.library import Library
from edge_mnv2.runtime.supervised import DeviceHeld, DeviceRefused
from edge_mnv2.runtime.supervised.contact import Target, WorkerInterpreter, probe
from edge_mnv2.runtime.supervised.lock import DeviceLock, holders_of
from edge_mnv2.runtime.supervised.supervisor import Device, SupervisedInterpreter, open_on

_ROW = next(one for one in TABLE if one.name == NAME)
_Contact = TypeVar("_Contact")
_TRIALS = 5
_PASSING_S = 0.2
"""A program that only lists devices has them open for less."""


@dataclass(frozen=True)
class _Tpu(Device):
    """As the kernel shows it, or (`accelerator` None) by the library's word alone."""

    accelerator: Optional[Accelerator] = None
    root: Union[Path, str] = "/"

    def look(self) -> None:
        if self.accelerator is None:
            return
        name = self.target.name
        accelerator = next((each for each in discovery.find(self.root) if each.port == self.accelerator.port), None)
        if accelerator is None:
            raise AcceleratorError(f"{name} is not attached", hint=checks.PLUG_IN)
        if accelerator.holders:
            time.sleep(_PASSING_S)
            others = holders_of(accelerator.node or "", Sysroot(self.root), but=(os.getpid(),))
            if others:
                raise DeviceHeld(f"{name} is used by {others[0]}", others[0].pid, _ROW.one())
        obstacle = checks.obstacle(accelerator, self.root)
        if obstacle is not None:
            raise AcceleratorError(obstacle.detail, hint=obstacle.fix)

    def attached(self) -> Optional[bool]:
        return None if self.accelerator is None else self.accelerator.port in present(self.root)

    def contact(self, kind: Callable[[Target], _Contact]) -> _Contact:
        try:
            return super().contact(kind)
        except DeviceRefused as error:
            if self.accelerator is not None or error.reason:
                raise
            text = f"no Edge TPU is attached ({self.target.library.title} finds none)"
            raise AcceleratorError(text, hint=checks.PLUG_IN) from error


def open_supervised(
    spec: DelegateSpec,
    compiled: Path,
    cpu: Optional[Path],
    *,
    runtime: str = "auto",
    threads: int = 1,
    count: int = 1,
    root: Union[Path, str] = "/",
    **_: Any,
) -> list[SupervisedInterpreter]:
    """`compiled` on up to `count` devices, as `supervisor.open_on` says."""
    opened = open_on(_devices(spec, compiled, runtime, threads, root, count), cpu, count)
    for one in opened:
        if one.share is not None:
            one.notes.append(_ROW.share(*one.share))
    return opened


def try_device(compiled: Optional[Path], root: Union[Path, str] = "/") -> str:
    """Contact with the first device, and a few inferences where there is a `compiled` model; what came of it, in words.

    Raises AcceleratorError with what is wrong, DeviceHeld where another process uses the device.
    """
    device = next(_devices(parse(NAME), compiled, "auto", 1, root, 1))
    try:
        return device.contact(_measured if compiled is not None else _opened)
    finally:
        device.put_down()


def _opened(target: Target) -> str:
    version = probe(target)["version"]
    return f"{target.name} opens{f' ({version})' if version else ''}"


def _measured(target: Target) -> str:
    tpu = WorkerInterpreter(target)
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
    if driver.problem:
        raise AcceleratorError(driver.problem, hint=driver.fix)
    return driver


def _devices(
    spec: DelegateSpec,
    compiled: Optional[Path],
    runtime: str,
    threads: int,
    root: Union[Path, str],
    count: int,
) -> Iterator[_Tpu]:
    """Devices that `spec` allows, in the order in which they are to be tried."""
    driver = find_library(root)
    base = Target(driver, NAME, model=str(compiled) if compiled else None, runtime=runtime, threads=threads)
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
            name=f"{NAME}:{accelerator.name}",
            option=accelerator.name,
            paths=tuple(path for path in (accelerator.path, accelerator.node) if path),
        )
        yield _Tpu(target, DeviceLock(accelerator.port, what=_ROW.one()), _ROW.title, accelerator, root)


def _unlisted(spec: DelegateSpec, base: Target, count: int) -> Iterator[_Tpu]:
    """What the library may know of though `/sys` shows nothing: the one that was asked for, or the first `count`."""
    for position in range(count if spec.index is None else 1):
        index = position if spec.index is None else spec.index
        name = ":".join(part for part in (NAME, spec.kind, str(index)) if part)
        option = spec.option if position == 0 else f"{spec.kind or ''}:{index}"
        yield _Tpu(replace(base, name=name, option=option), DeviceLock(f"{NAME}-{index}", what=_ROW.one()), _ROW.title)
