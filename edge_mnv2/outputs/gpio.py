"""Pins that are high while a class is present: a lamp, a buzzer, a relay."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.live import Facts, Live
from edge_mnv2.outputs.table import OutputValues, need
from edge_mnv2.pipeline.decision import Event, rows_named
from edge_mnv2.pipeline.result import Result

_HINT = "PIN=CLASS such as 17=tabby, PIN alone for any class; several with a comma between"


class GpioSink:
    """`17=tabby,GPIO27`: pin 17 is high while tabby is present, pin 27 while anything is. All are low at the end.

    Pins by gpiozero's names; a number is the Broadcom one. Raises UsageError where the pins cannot be had.
    """

    name = "GPIO"

    def __init__(self, text: str) -> None:
        gpiozero = need("gpiozero", "gpio", "--gpio")
        self._wanted: list[tuple[Any, Optional[str]]] = []
        for pin, label in _pairs(text):
            try:
                with warnings.catch_warnings():
                    # gpiozero says for each pin library what it lacks; what matters is whether one works.
                    warnings.simplefilter("ignore")
                    device = gpiozero.DigitalOutputDevice(pin)
            except Exception as error:
                self.close()
                raise UsageError(
                    f"--gpio {pin}: {_first_line(error)}",
                    hint="on a Raspberry Pi: sudo apt install python3-lgpio, and your user in the group gpio",
                ) from None
            self._wanted.append((device, label))
        self._labels: list[Optional[frozenset[str]]] = [None] * len(self._wanted)

    def begin(self, _facts: Facts, labels: Sequence[str]) -> None:
        """Find the classes. Raises UsageError for one that the model does not have."""
        for number, (_, label) in enumerate(self._wanted):
            if label is not None:
                rows = rows_named(labels, [label], "--gpio: class")
                self._labels[number] = frozenset(labels[row] for row in rows)

    def write(self, result: Result) -> None:
        self._show(frozenset(result.present))

    def announce(self, _events: Sequence[Event]) -> None:
        # Results have stopped: what was present is gone.
        self._show(frozenset())

    def close(self) -> None:
        for device, _ in self._wanted:
            device.close()

    def _show(self, present: frozenset[str]) -> None:
        for (device, label), labels in zip(self._wanted, self._labels):
            on = bool(present if label is None else present & (labels or frozenset()))
            if on != bool(device.value):
                device.value = on


def _pairs(text: str) -> list[tuple[str, Optional[str]]]:
    """`17=tabby,27` as (pin, class or None)."""
    pairs: list[tuple[str, Optional[str]]] = []
    for part in text.split(","):
        pin, equals, label = (piece.strip() for piece in part.partition("="))
        if not re.fullmatch(r"[A-Za-z0-9:]{1,20}", pin) or bool(equals) != bool(label):
            raise UsageError(f"--gpio {text}", hint=_HINT)
        pairs.append((pin, label or None))
    if len({pin for pin, _ in pairs}) < len(pairs):
        raise UsageError(f"--gpio {text}: a pin twice", hint=_HINT)
    return pairs


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def open_output(values: OutputValues, _live: Live) -> GpioSink:
    return GpioSink(values["gpio"])
