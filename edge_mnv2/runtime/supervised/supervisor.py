"""An interpreter that runs on an accelerator while it can and on the CPU while it cannot.

The switch to the CPU happens inside `invoke`, with the inputs that the accelerator had, so that no frame is lost. The
way back is prepared by a thread: it opens the device in a new process and hands it over between two frames.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Optional, TypeVar, Union

import numpy as np

from edge_mnv2.errors import AcceleratorError, ModelError
from edge_mnv2.runtime.interpreter import Interpreter, open_interpreter
from edge_mnv2.runtime.supervised import AcceleratorLost, DeviceHeld
from edge_mnv2.runtime.supervised.contact import Target, WorkerInterpreter
from edge_mnv2.runtime.supervised.lock import DeviceLock
from edge_mnv2.runtime.table import TensorSpec

log = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0
SLOWEST_RETRY_S = 10.0
"""Waiting times double from the first to the slowest; a device that is seen to come back is tried at once."""
TIRED_AFTER = 20
TIRED_RETRY_S = 60.0
STEADY_S = 60.0
"""One that has worked for so long starts with short waiting times again."""
_LOOK_S = 0.5


class SupervisedInterpreter:
    """The interface of `edge_mnv2.runtime.interpreter.Interpreter` over an accelerator and its CPU twin.

    `reopen` opens the device anew (raises AcceleratorError). `attached` says whether the device is there (None where
    that cannot be told), `put_down` is called at the end. Without a `cpu` twin a loss is an AcceleratorError from
    `invoke`. Raises ModelError where the twins' inputs or outputs differ.

    `losses` counts how often the accelerator was lost; `seconds` gives the time that each engine was in use; `notes`
    are to be said once.
    """

    def __init__(
        self,
        name: str,
        accelerator: Optional[WorkerInterpreter],
        cpu: Optional[Interpreter],
        reopen: Callable[[], WorkerInterpreter],
        attached: Callable[[], Optional[bool]] = lambda: None,
        put_down: Callable[[], None] = lambda: None,
        title: str = "",
    ) -> None:
        if accelerator is None and cpu is None:
            raise ValueError("neither an accelerator nor a CPU interpreter")
        self.name = name
        self.losses = 0
        self.notes: list[str] = []
        self._put_down = put_down
        self._accelerator, self._cpu = accelerator, cpu
        self._reopen, self._attached = reopen, attached
        self._active: Union[WorkerInterpreter, Interpreter] = accelerator or cpu  # type: ignore[assignment]
        self._returned: Optional[WorkerInterpreter] = None
        self._closing = threading.Event()
        self._retry: Optional[threading.Thread] = None
        self._failures = 0
        self._since = self._opened_at = time.monotonic()
        self._title = title or name
        self._seconds = {"tpu": 0.0, "cpu": 0.0, **({} if accelerator is None else {accelerator.engine: 0.0})}
        self._used_accelerator = accelerator is not None
        self._last_reason = ""
        if accelerator is not None and cpu is not None:
            require_twins(accelerator, cpu)
            # So that the first frame after a loss does not pay for memory that was never touched.
            cpu.invoke()
        if accelerator is None:
            self._start_retrying()

    @property
    def engine(self) -> str:
        """ "tpu" or "cpu": who makes the next result, and after `invoke` who made the last."""
        return self._active.engine

    @property
    def delegate(self) -> str:
        """The accelerator's name ("edgeaccelerator:usb:0") once it was in use, else the CPU's delegate."""
        return self.name if self._used_accelerator or self._cpu is None else self._cpu.delegate

    @property
    def runtime(self) -> str:
        return self._active.runtime

    @property
    def threads(self) -> int:
        return self._active.threads

    @property
    def inputs(self) -> list[TensorSpec]:
        return self._active.inputs

    @property
    def outputs(self) -> list[TensorSpec]:
        return self._active.outputs

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that "tpu" and "cpu" have been in use."""
        counted = dict(self._seconds)
        counted[self.engine] = counted.get(self.engine, 0.0) + time.monotonic() - self._since
        return counted

    @property
    def share(self) -> Optional[tuple[int, Optional[int]]]:
        """Operators that are left to the CPU, and those of the CPU twin's graph; None while the CPU runs the model."""
        if self._accelerator is None:
            return None
        return self._accelerator.cpu_operators, None if self._cpu is None else self._cpu.operator_count()

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        """Copy `values` into input number `position`; an accelerator that has returned takes over here."""
        if self._returned is not None and position == 0:
            self._take_back()
        self._active.set_input(values, position)

    def invoke(self) -> None:
        """Run the model once, on the CPU where the accelerator fails. Raises ModelError, AcceleratorError (no twin)."""
        if self._active is not self._accelerator:
            self._active.invoke()
            return
        assert self._accelerator is not None
        try:
            self._accelerator.invoke()
        except AcceleratorLost as error:
            self._lose(error)
            self._active.invoke()

    def output(self, position: int = 0) -> np.ndarray:
        """A copy of output number `position`, in the tensor's own dtype."""
        return self._active.output(position)

    def close(self) -> None:
        self._closing.set()
        for interpreter in (self._returned, self._accelerator, self._cpu):
            if interpreter is not None:
                interpreter.close()
        self._put_down()

    def _lose(self, error: AcceleratorLost) -> None:
        lost, self._accelerator = self._accelerator, None
        assert lost is not None
        self.losses += 1
        if self._cpu is None:
            lost.close()
            raise AcceleratorError(f"{self._title} lost: {error.message}", hint=error.hint) from error
        for position, values in enumerate(lost.inputs_set):
            self._cpu.set_input(values, position)
        now = time.monotonic()
        if now - self._opened_at >= STEADY_S:
            self._failures = 0
        self._switch(self._cpu)
        log.warning(
            "%s lost: %s; the CPU goes on and it is tried again%s",
            self._title,
            error.message,
            f" ({error.hint})" if error.hint and error.message != self._last_reason else "",
        )
        self._last_reason = error.message
        self._start_retrying(lost)

    def _take_back(self) -> None:
        self._accelerator, self._returned = self._returned, None
        assert self._accelerator is not None
        self._opened_at = time.monotonic()
        self._used_accelerator = True
        self._switch(self._accelerator)
        log.info("%s back: %s is in use again", self._title, self.name)

    def _switch(self, engine: Union[WorkerInterpreter, Interpreter]) -> None:
        now = time.monotonic()
        self._seconds[self.engine] = self._seconds.get(self.engine, 0.0) + now - self._since
        self._since = now
        self._active = engine

    def _start_retrying(self, lost: Optional[WorkerInterpreter] = None) -> None:
        self._retry = threading.Thread(
            target=self._retry_until_open, args=(lost,), name="accelerator-return", daemon=True
        )
        self._retry.start()

    def _retry_until_open(self, lost: Optional[WorkerInterpreter]) -> None:
        if lost is not None:
            # Putting a lost worker down can take its time: not in the way of the frames.
            lost.close()
        while not self._wait_before_retry():
            try:
                opened = self._reopen()
            except DeviceHeld as error:
                # Asking again costs nothing: the holder's end is all that is waited for.
                self._failures = min(self._failures, 1)
                log.debug("%s", error)
                continue
            except Exception as error:
                self._failures += 1
                log.debug("%s is not back yet: %s", self._title, error)
                continue
            self._failures += 1
            try:
                if self._cpu is not None:
                    require_twins(opened, self._cpu)
            except ModelError as error:
                opened.close()
                log.warning("%s; the CPU goes on for good", error)
                return
            self._returned = opened
            if self._closing.is_set():
                opened.close()
            return

    def _wait_before_retry(self) -> bool:
        """Wait as long as the failures so far ask for, or until the device is seen to come back; True: never mind."""
        until = time.monotonic() + patience_s(self._failures)
        was_there = self._attached()
        while not self._closing.wait(_LOOK_S):
            there = self._attached()
            if there and was_there is False:
                # Its second id and its rights need a moment.
                return self._closing.wait(_LOOK_S)
            was_there = there
            if time.monotonic() >= until and there is not False:
                return False
        return True


def patience_s(failures: int) -> float:
    """Seconds to wait before the next attempt, after so many failures."""
    if failures > TIRED_AFTER:
        return TIRED_RETRY_S
    return min(SLOWEST_RETRY_S, FIRST_RETRY_S * 2.0**failures)


def require_twins(one: Union[WorkerInterpreter, Interpreter], other: Union[WorkerInterpreter, Interpreter]) -> None:
    """Raise ModelError where two models cannot stand in for each other."""
    for kind, ours, theirs in (("input", one.inputs, other.inputs), ("output", one.outputs, other.outputs)):
        if _forms(ours) != _forms(theirs):
            raise ModelError(f"the two models are no twins: {kind} {_forms(ours)} and {_forms(theirs)}")


def _forms(specs: Sequence[TensorSpec]) -> list[tuple[str, tuple[int, ...], float, int]]:
    return [
        (spec.dtype.name, tuple(max(n, 1) for n in spec.shape), round(spec.scale, 9), spec.zero_point) for spec in specs
    ]


_Contact = TypeVar("_Contact")


@dataclass(frozen=True)
class Device:
    """One device that can be asked for. `lock` is None where several processes may use it at once; `title` is what
    messages call it, its name where that is empty."""

    target: Target
    lock: Optional[DeviceLock] = None
    title: str = ""

    def look(self) -> None:
        """Raise what can be told without touching the device: a library's own failure says less, or ends in a crash."""

    def attached(self) -> Optional[bool]:
        """Whether it is there, None where that cannot be told."""

    def contact(self, kind: Callable[[Target], _Contact]) -> _Contact:
        """Lock, look, contact by `kind`. A lock that was taken here is given back where the device does not open."""
        taken_here = self.lock is not None and self.lock.acquire(self.target.name)
        try:
            self.look()
            return kind(self.target)
        except BaseException:
            if taken_here:
                self.put_down()
            raise

    def put_down(self) -> None:
        """Leave it to others."""
        if self.lock is not None:
            self.lock.release()


def open_on(devices: Iterable[Device], cpu: Optional[Path], count: int) -> list[SupervisedInterpreter]:
    """The model of the `devices`' targets on up to `count` of them, each under supervision, with `cpu` to go on with.

    A device that another process uses is waited for, on the CPU, where there is a `cpu` model; DeviceHeld is raised
    where there is none. Raises AcceleratorError where no device can be used.
    """
    opened: list[SupervisedInterpreter] = []
    held: list[tuple[Device, DeviceHeld]] = []
    refused: list[AcceleratorError] = []
    try:
        for device in devices:
            if len(opened) == count:
                break
            try:
                accelerator = device.contact(WorkerInterpreter)
            except DeviceHeld as error:
                held.append((device, error))
            except AcceleratorError as error:
                refused.append(error)
            else:
                opened.append(supervised(device, accelerator, cpu))
        if not opened and held and cpu is not None and not refused:
            waited_for, busy = held[0]
            opened.append(supervised(waited_for, None, cpu))
            opened[0].notes.append(f"{busy.message}; the CPU is used until it is free")
    except BaseException:
        for interpreter in opened:
            interpreter.close()
        raise
    if not opened:
        raise (refused or [error for _, error in held])[0]
    return opened


def supervised(
    device: Device,
    accelerator: Optional[WorkerInterpreter],
    cpu: Optional[Path],
    kind: Callable[[Target], WorkerInterpreter] = WorkerInterpreter,
) -> SupervisedInterpreter:
    """`accelerator` on `device`, or None while it is held, with its CPU model; `kind` opens it anew after a loss."""
    target = device.target
    twin: Optional[Interpreter] = None
    try:
        twin = open_interpreter(cpu, runtime=target.runtime, threads=target.threads) if cpu is not None else None
        reopen = partial(device.contact, kind)
        return SupervisedInterpreter(
            target.name, accelerator, twin, reopen, device.attached, device.put_down, device.title
        )
    except BaseException:
        for one in (accelerator, twin):
            if one is not None:
                one.close()
        device.put_down()
        raise
