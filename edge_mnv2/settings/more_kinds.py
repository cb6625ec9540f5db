"""Kinds of value with several parts or forms: sources, sizes, regions, lists, a camera's controls."""

from __future__ import annotations

import math
import re
from typing import Any, Optional, Union

from edge_mnv2.settings.kinds import Choice, Kind, Number, Or, Text, Whole, decimal


class Source(Kind):
    """A source specification: text, or a camera's number."""

    expects = "a source such as auto, 0, /dev/video0, csi or rtsp://..."
    metavar = "SPEC"

    def accept(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value


class Size(Kind):
    """Width and height in pixels."""

    expects = "a size such as 640x480"
    metavar = "WxH"

    def accept(self, value: Any) -> tuple[int, int]:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise ValueError
        width, height = value
        return int(width), int(height)

    def parse(self, text: str) -> tuple[int, int]:
        match = re.fullmatch(r"\s*(\d{1,6})\s*[xX]\s*(\d{1,6})\s*", text)
        if match is None:
            raise ValueError
        return int(match[1]), int(match[2])


class Numbers(Kind):
    """`count` numbers from `low` to `high`, as a list or with commas."""

    def __init__(self, *metavar: str, low: float = -1e6, high: float = 1e6) -> None:
        self.count = len(metavar)
        self.number = Number(low, high)
        self.metavar = ",".join(metavar)
        self.expects = f"{self.count} numbers from {low:g} to {high:g} ({self.metavar})"

    def accept(self, value: Any) -> tuple[float, ...]:
        if not isinstance(value, (list, tuple)) or len(value) != self.count:
            raise ValueError
        return tuple(self.number.accept(item) for item in value)

    def parse(self, text: str) -> tuple[float, ...]:
        return self.accept([decimal(part.strip()) for part in text.split(",")])


class Channels(Numbers):
    """One number for all three channels, or one for each; above `low` where it is given."""

    def __init__(self, low: Optional[float] = None) -> None:
        super().__init__("R", "G", "B")
        self.number = Number(-1e6 if low is None else low, 1e6, above=low is not None)
        self.metavar = "R,G,B"
        self.expects = f"one number or three (R,G,B){'' if low is None else f' above {low:g}'}"

    def accept(self, value: Any) -> tuple[float, ...]:
        numbers = value if isinstance(value, (list, tuple)) else [value]
        return super().accept(list(numbers) * self.count if len(numbers) == 1 else numbers)


class Region(Numbers):
    """A region of interest as four numbers: pixels of the turned frame, or fractions of it where all are at most 1."""

    def __init__(self) -> None:
        super().__init__("X", "Y", "W", "H", low=0, high=65535)
        self.expects = "four numbers [x, y, width, height], all in pixels or all fractions up to 1, with an area"

    def accept(self, value: Any) -> tuple[float, ...]:
        numbers = super().accept(value)
        whole = all(number == int(number) for number in numbers)
        if not (numbers[2] and numbers[3]) or not (whole or max(numbers) <= 1):
            raise ValueError
        return numbers


class Names(Kind):
    """One text, or a list of them."""

    def __init__(self, expects: str = "a text or a list of texts", metavar: str = "NAME,...") -> None:
        self.expects, self.metavar = expects, metavar

    def accept(self, value: Any) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError
        if not all(isinstance(item, str) and item.strip() for item in values):
            raise ValueError
        return tuple(values)

    def parse(self, text: str) -> tuple[str, ...]:
        return self.accept([part.strip() for part in text.split(",")])


class Control(Kind):
    """A camera control's value, whose type only the camera knows: a number, true, false, text or a list of numbers."""

    expects = "a number, true, false, text or a list of numbers"

    def accept(self, value: Any) -> Union[bool, int, float, str, tuple[float, ...]]:
        if isinstance(value, (list, tuple)):
            number = Number(-1e12, 1e12)
            for item in value:
                number.accept(item)
            if not value:
                raise ValueError
            return tuple(value)
        if isinstance(value, (bool, str, int)) or (isinstance(value, float) and math.isfinite(value)):
            return value
        raise ValueError


def why_not(kind: Kind, value: Any) -> Optional[str]:
    """What to do about a value of the wrong type, where a common slip explains it."""
    if isinstance(kind, Or):
        kind = kind.kind
    wants_number = isinstance(kind, (Whole, Number)) or (
        isinstance(kind, Choice) and all(isinstance(option, int) for option in kind.options)
    )
    if wants_number and isinstance(value, str):
        try:
            decimal(value.strip())
        except ValueError:
            return None
        return "a number in quotes is text: leave the quotes out"
    if wants_number and isinstance(value, bool):
        return "true and false are not numbers"
    if isinstance(kind, (Text, Names)) and isinstance(value, (int, float)):
        return "put it in quotes if text is meant"
    return None
