"""SIGINT, SIGTERM and SIGHUP (the terminal or the SSH session is gone), from a program's first line on."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Optional


class Interrupted(KeyboardInterrupt):
    """A signal came, and nobody was there to deal with it."""


_came_at: Optional[float] = None
_CLEANING_S = 3.0
"""For so long after one signal others are not obeyed: what is being put in order shall get there."""


def from_now_on() -> None:
    """From the first line of a program on, each signal raises `Interrupted` where nothing else handles it."""
    global _came_at
    _came_at = None

    def raise_it(_number: int, _frame: Optional[FrameType]) -> None:
        global _came_at
        if _came_at is None or time.monotonic() - _came_at > _CLEANING_S:
            _came_at = time.monotonic()
            raise Interrupted

    _handle(raise_it)


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """A signal that comes inside raises `Interrupted` at its end."""
    global _came_at
    arrived: list[int] = []
    with on_signals(lambda number, _frame: arrived.append(number)):
        yield
    if arrived:
        _came_at = time.monotonic()
        raise Interrupted


def name_of(number: int) -> str:
    """`SIGKILL`, `SIGSEGV`: a signal that ended a process, by its name."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def came() -> bool:
    """Whether one came that nothing else handled; a library may have made another error of it."""
    return _came_at is not None


def ignore() -> None:
    """All is said, and the program is about to end: a signal must not spoil its last moments."""
    _handle(signal.SIG_IGN)


def _handle(handler: Any) -> dict[int, Any]:
    """What handled the signals before; empty outside the main thread, where nothing changes."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        return {number: signal.signal(number, handler) for number in numbers}
    except ValueError:
        return {}


@contextlib.contextmanager
def on_signals(handler: Callable[[int, Optional[FrameType]], None]) -> Iterator[None]:
    """Each of them calls `handler`; what handled them before does so again afterwards.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. Outside the main thread nothing changes: whoever runs us
    there handles signals.
    """
    previous = _handle(handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
