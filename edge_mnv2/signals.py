"""SIGINT, SIGTERM and SIGHUP (the terminal or the SSH session is gone) for as long as something goes on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Optional


@contextlib.contextmanager
def on_signals(handler: Callable[[int, Optional[FrameType]], None]) -> Iterator[None]:
    """Each of them calls `handler`; what handled them before does so again afterwards.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. Outside the main thread nothing changes: whoever runs us
    there handles signals.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        previous = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
