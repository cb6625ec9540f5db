"""The kinds of value that a profile's keys have: what each accepts, from YAML and from the command line's text.

`accept` takes a value as YAML gives it, `parse` the text of an option or an environment variable; both return the typed
value or raise ValueError. `expects` completes the sentence "... is not ...".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Optional, Protocol, Union


class Kind(Protocol):
    @property
    def expects(self) -> str: ...

    def accept(self, value: Any) -> Any: ...

    def parse(self, text: str) -> Any: ...


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, or one of `words`."""

    low: int
    high: int
    words: tuple[str, ...] = ()
    unit: str = ""

    @property
    def expects(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        words = "".join(f" or {word}" for word in self.words)
        return f"a whole number from {self.low} to {self.high}{unit}{words}"

    def accept(self, value: Any) -> Union[int, str]:
        if isinstance(value, str) and value in self.words:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def parse(self, text: str) -> Union[int, str]:
        text = text.strip()
        return self.accept(text if text in self.words else _decimal(text))


@dataclass(frozen=True)
class Number:
    """A finite number from `low` to `high`; with `below`, `high` itself is not included; with `above`, `low` is not."""

    low: float
    high: float
    unit: str = ""
    below: bool = False
    above: bool = False

    @property
    def expects(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        start = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        return f"a number {start} {'to below' if self.below else 'to'} {self.high:g}{unit}"

    def accept(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError
        if not self.low <= value <= self.high:
            raise ValueError
        if (self.below and value == self.high) or (self.above and value == self.low):
            raise ValueError
        return float(value)

    def parse(self, text: str) -> float:
        return self.accept(_decimal(text.strip()))


@dataclass(frozen=True)
class Choice:
    """One of `options`, which are words or numbers."""

    options: tuple[Union[str, int], ...]

    @property
    def expects(self) -> str:
        return f"one of {', '.join(map(str, self.options))}"

    def accept(self, value: Any) -> Union[str, int]:
        for option in self.options:
            if type(value) is type(option) and value == option:
                return option
        raise ValueError

    def parse(self, text: str) -> Union[str, int]:
        for option in self.options:
            if text.strip() == str(option):
                return option
        raise ValueError


@dataclass(frozen=True)
class Flag:
    """true or false."""

    expects: str = "true or false"

    def accept(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def parse(self, text: str) -> bool:
        word = text.strip().lower()
        if word in ("true", "1", "yes", "on"):
            return True
        if word in ("false", "0", "no", "off"):
            return False
        raise ValueError


@dataclass(frozen=True)
class Text:
    """Words that match `pattern` as a whole."""

    expects: str = "text"
    pattern: str = r"(?s).*\S.*"

    def accept(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError
        return value

    def parse(self, text: str) -> str:
        return self.accept(text)


@dataclass(frozen=True)
class Source:
    """A source specification: text, or a camera's number."""

    expects: str = "a source such as auto, 0, /dev/video0, csi or rtsp://..."

    def accept(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255:
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        return value

    def parse(self, text: str) -> str:
        return self.accept(text)


@dataclass(frozen=True)
class Region:
    """A region of interest as four numbers: pixels of the turned frame, or fractions of it where all are at most 1."""

    expects: str = "four numbers [x, y, width, height], all in pixels or all fractions up to 1, with an area"

    def accept(self, value: Any) -> tuple[float, float, float, float]:
        if not isinstance(value, (list, tuple)) or len(value) != 4:
            raise ValueError
        side = Number(0, 65535)
        x, y, width, height = (side.accept(number) for number in value)
        numbers = (x, y, width, height)
        whole = all(number == int(number) for number in numbers)
        if not (width and height) or not (whole or max(numbers) <= 1):
            raise ValueError
        return numbers

    def parse(self, text: str) -> tuple[float, float, float, float]:
        return self.accept([_decimal(part.strip()) for part in text.split(",")])


@dataclass(frozen=True)
class Or:
    """What `kind` accepts, or `word`, which stands for None: left to the source, or nothing at all."""

    kind: Kind
    word: str

    @property
    def expects(self) -> str:
        return f"{self.kind.expects} or {self.word}"

    def accept(self, value: Any) -> Any:
        return None if isinstance(value, str) and value == self.word else self.kind.accept(value)

    def parse(self, text: str) -> Any:
        return None if text.strip() == self.word else self.kind.parse(text)


@dataclass(frozen=True)
class Names:
    """One text, or a list of them."""

    expects: str = "a text or a list of texts"

    def accept(self, value: Any) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError
        if not all(isinstance(item, str) and item.strip() for item in values):
            raise ValueError
        return tuple(values)

    def parse(self, text: str) -> tuple[str, ...]:
        return self.accept([part.strip() for part in text.split(",")])


@dataclass(frozen=True)
class Setting:
    """A camera control's value, whose type only the camera knows: a number, true, false, text or a list of numbers."""

    expects: str = "a number, true, false, text or a list of numbers"

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

    def parse(self, text: str) -> Any:
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
            _decimal(value.strip())
        except ValueError:
            return None
        return "a number in quotes is text: leave the quotes out"
    if wants_number and isinstance(value, bool):
        return "true and false are not numbers"
    if isinstance(kind, (Text, Names)) and isinstance(value, (int, float)):
        return "put it in quotes if text is meant"
    return None


def _decimal(text: str) -> Union[int, float]:
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][-+]?[0-9]{1,3})?", text):
        return float(text)
    raise ValueError
