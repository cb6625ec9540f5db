"""Pins that are active while a class is present: a lamp, a buzzer, a relay."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.installed import need
from edge_mnv2.messages import first_line
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.outputs.sink import Sink
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.decision import Event, is_class, rows_named
from edge_mnv2.pipeline.result import Result

_HINT = "PIN=CLASS such as 17=tabby, PIN alone for any class, !PIN for active-low; several with a comma between"
_NO_PINS = "on a Raspberry Pi: sudo apt install python3-lgpio, and your user in the group gpio"


class GpioSink(Sink):
    """`17=tabby,!GPIO27`: pin 17 is high while tabby is present, pin 27 is low while anything is.

    At the end every pin stays at its idle level, and stays an output: a relay must not switch because we are gone.
    Pins by gpiozero's names; a number is the Broadcom one. Raises UsageError where the pins cannot be had.
    """

    name = "GPIO"

    def __init__(self, text: str) -> None:
        self._wanted: list[tuple[Any, Optional[str]]] = []
        with contextlib.ExitStack() as stack, warnings.catch_warnings(record=True) as fallbacks:
            stack.callback(self.close)
            # gpiozero says for each pin library what it lacks; that matters only where none works.
            warnings.simplefilter("always")
            _give_lgpio_a_folder()
            gpiozero = need("gpiozero", "gpio", "--gpio")
            for pin, inverted, label in _pins(text):
                try:
                    device = gpiozero.DigitalOutputDevice(pin, active_high=not inverted, initial_value=False)
                except Exception as error:
                    reason = _reason_of_lgpio([str(one.message) for one in fallbacks]) or first_line(error)
                    raise UsageError(f"--gpio {pin}: {reason}", hint=_hint(reason)) from None
                self._wanted.append((device, label))
            stack.pop_all()
        self._labels: list[Optional[frozenset[str]]] = [None] * len(self._wanted)

    def begin(self, _facts: Facts, labels: Sequence[str]) -> None:
        """Find the classes. Raises UsageError for one that the model does not have: its pins stay idle then."""
        for number, (_, label) in enumerate(self._wanted):
            if label is not None:
                rows = rows_named(labels, [label], "--gpio: class") if is_class(labels, label) else []
                self._labels[number] = frozenset(labels[row] for row in rows)
        self.check(labels)

    def check(self, labels: Sequence[str]) -> None:
        """Raises UsageError for a class of a pin that is none of `labels`."""
        rows_named(labels, [label for _, label in self._wanted if label is not None], "--gpio: class")

    def write(self, result: Result) -> None:
        self._show(frozenset(result.present))

    def announce(self, _events: Sequence[Event]) -> None:
        # Results have stopped: what was present is gone.
        self._show(frozenset())

    def close(self) -> None:
        for device, _ in self._wanted:
            if not device.closed:
                device.off()
                # Closing a pin makes it an input, which floats.
                device.pin.close = lambda: None
                device.close()

    def _show(self, present: frozenset[str]) -> None:
        for (device, label), labels in zip(self._wanted, self._labels):
            on = bool(present if label is None else present & (labels or frozenset()))
            if on != bool(device.value):
                device.value = on


def _pins(text: str) -> list[tuple[str, bool, Optional[str]]]:
    """`17=tabby,!27` as (pin, active-low, class or None)."""
    pins: list[tuple[str, bool, Optional[str]]] = []
    for part in text.split(","):
        pin, equals, label = (piece.strip() for piece in part.partition("="))
        name = pin.lstrip("!").strip()
        if not re.fullmatch(r"[A-Za-z0-9:]{1,20}", name) or pin.count("!") > 1 or bool(equals) != bool(label):
            raise UsageError(f"--gpio {text}", hint=_HINT)
        pins.append((name, pin.startswith("!"), label or None))
    if len({pin for pin, _, _ in pins}) < len(pins):
        raise UsageError(f"--gpio {text}: a pin twice", hint=_HINT)
    return pins


def _give_lgpio_a_folder() -> None:
    """lgpio makes pipes in the working folder, which a service may not write to: give it one of its own."""
    if "LG_WD" in os.environ or "lgpio" in sys.modules:
        return
    with contextlib.suppress(OSError):
        folder = tempfile.TemporaryDirectory(prefix="edge-mnv2-lgpio-")
        # It is there as long as the process: lgpio uses it to its last moment.
        atexit.register(folder.cleanup)
        os.environ["LG_WD"] = folder.name


def _reason_of_lgpio(warned: Sequence[str]) -> Optional[str]:
    """What the library that a board should use lacks, from gpiozero's warnings, where it is there at all."""
    mark = "Falling back from lgpio: "
    said = next((text[len(mark) :] for text in warned if text.startswith(mark)), "")
    return None if not said or "No module named" in said else f"lgpio: {said}"


def _hint(reason: str) -> str:
    if "Pi revision" in reason:
        return "this is no Raspberry Pi"
    if "gpiochip" in reason or "ermission" in reason or "not permitted" in reason:
        return "your user must be in the group gpio: sudo usermod -aG gpio $USER, then log in again"
    if "busy" in reason.lower():
        return "another program has this pin (gpioinfo shows it)"
    return _NO_PINS


def open_output(values: OutputValues, _live: Live) -> GpioSink:
    return GpioSink(values["gpio"])
