"""SIGINT and SIGTERM for as long as something goes on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Optional


@contextlib.contextmanager
def on_signals(handler: Callable[[int, Optional[FrameType]], None]) -> Iterator[None]:
    """Both signals call `handler`; what handled them before does so again afterwards.

    Outside the main thread nothing changes: whoever runs us there handles signals.
    """
    try:
        previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
