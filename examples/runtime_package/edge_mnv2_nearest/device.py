"""`--delegate nearest[:near|far]`: the same model in a process of its own, as a device that may be lost needs it.

The supervision is edge-mnv2's: time limits, a crash that costs no run, the way back. With a model for the CPU beside it
(`cpu` below) no frame would be lost either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.errors import Check
from edge_mnv2.runtime.delegate import Attached, DelegateSpec, Plan
from edge_mnv2.runtime.supervised import Package
from edge_mnv2.runtime.supervised.contact import Target
from edge_mnv2.runtime.supervised.supervisor import Device, SupervisedInterpreter, open_on
from edge_mnv2.zoo.resolve import resolve
from edge_mnv2_nearest.runtime import SIDE, Nearest, open_model


def plan(request: Optional[str], _spec: DelegateSpec, _fall_back: bool) -> Plan:
    """Which model the device runs, and which one the CPU goes on with: here there is none."""
    return Plan(None, resolve(request or "model.colours"))


def open_supervised(
    spec: DelegateSpec, compiled: Path, cpu: Optional[Path], *, threads: int = 1, count: int = 1, **_: Any
) -> list[SupervisedInterpreter]:
    """`count` workers on the device that `spec` asks for."""
    driver = Package("nearest 1.0", "nearest 1.0", f"{__name__}:open_in_worker")
    target = Target(driver, str(spec), model=str(compiled), threads=threads, engine="nearest")
    return open_on((Device(target) for _number in range(count)), cpu, count)


def open_in_worker(order: dict[str, Any], begin: Callable[[str], None]) -> Nearest:
    """In the worker's process: put the model on the device. `begin` says what a time limit is for."""
    begin("open")
    nearest: Nearest = open_model(None, order["model"], threads=order["threads"])
    # The first inference, which may take its time, comes before the first picture.
    nearest.set_input(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    return nearest


def attached(_root: Union[Path, str] = "/") -> Attached:
    """For `devices accelerators`."""
    return Attached([], None, [("nearest:near", "ready", "-", "-", "-")], [], "no nearest found")


def diagnose(_root: Union[Path, str] = "/") -> Iterator[Check]:
    """For `doctor`."""
    yield Check("nearest-device", "ok", "nearest:near is ready")
