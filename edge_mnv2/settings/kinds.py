"""The kinds of value that options and profile keys have: what each accepts, from YAML and from the command line's text.

Plain classes, not dataclasses: every command imports them, and making a dataclass costs as much as a small module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Optional, Union


class Kind:
    """`accept` takes a value as YAML gives it, `parse` the text of an option or a variable; both return the typed value
    or raise ValueError, whose text (if any) says what to do. `expects` completes the sentence "... is not ...";
    `metavar` stands for the value in help; `words` are offered by the shell's completion.
    """

    expects = "text"
    metavar = "TEXT"
    words: Sequence[str] = ()

    def accept(self, value: Any) -> Any:
        raise NotImplementedError

    def parse(self, text: str) -> Any:
        return self.accept(text)

    def written(self, value: Any) -> str:
        """A value as an option has it."""
        if isinstance(value, (list, tuple)):
            return ",".join(map(self.written, value))
        return f"{value:g}" if isinstance(value, float) else str(value)


class Whole(Kind):
    """A whole number from `low` to `high` (None: any), or one of `words`."""

    def __init__(
        self, low: Optional[int] = None, high: Optional[int] = None, words: Sequence[str] = (), unit: str = ""
    ) -> None:
        self.low, self.high, self.words = -math.inf if low is None else low, math.inf if high is None else high, words
        self.expects = f"a whole number{_range(low, high)}{f' {unit}' if unit else ''}"
        self.expects += "".join(f" or {word}" for word in words)
        self.metavar = "|".join([*words, "N"])

    def accept(self, value: Any) -> Union[int, str]:
        if isinstance(value, str) and value in self.words:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def parse(self, text: str) -> Union[int, str]:
        text = text.strip()
        return self.accept(text if text in self.words else decimal(text))


class Number(Kind):
    """A finite number from `low` to `high`; with `below`, `high` itself is not included; with `above`, `low` is not."""

    metavar = "N"

    def __init__(
        self,
        low: Optional[float] = None,
        high: Optional[float] = None,
        unit: str = "",
        *,
        below: bool = False,
        above: bool = False,
    ) -> None:
        self.low, self.high = -math.inf if low is None else low, math.inf if high is None else high
        self.below, self.above = below, above
        self.expects = f"a number{_range(low, high, above, below)}{f' {unit}' if unit else ''}"

    def accept(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError
        if not self.low <= value <= self.high:
            raise ValueError
        if (self.below and value == self.high) or (self.above and value == self.low):
            raise ValueError
        return float(value)

    def parse(self, text: str) -> float:
        return self.accept(decimal(text.strip()))


class Duration(Number):
    """Seconds above 0; as text with or without a final `s`."""

    metavar = "S"

    def __init__(self) -> None:
        super().__init__(0, 1e9, "seconds", above=True, below=True)
        self.expects = "a number of seconds above 0"

    def parse(self, text: str) -> float:
        text = text.strip()
        return super().parse(text[:-1] if text.endswith("s") else text)


class Bytes(Kind):
    """`500kB`, `10MB`, `1.5G` (10^3 to a step, 1024 with `KiB` and so on), at least 1 kB."""

    expects = "a size such as 10MB or 2GB"
    metavar = "SIZE"

    def accept(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        if value < 1000:
            raise ValueError("at least 1kB")
        return value

    def parse(self, text: str) -> int:
        match = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(?:([kKMGT])(i?)B?)\s*", text)
        if match is None:
            raise ValueError
        steps = "kMGT".index(match[2].replace("K", "k")) + 1
        return self.accept(int(float(match[1]) * (1024 if match[3] else 1000) ** steps))

    def written(self, value: Any) -> str:
        return f"{value / 1e6:g}MB"


class Choice(Kind):
    """One of `options`, which are words or numbers."""

    def __init__(self, *options: Union[str, int]) -> None:
        self.options = options
        self.words = [str(option) for option in options]
        self.expects = f"one of {', '.join(self.words)}"
        self.metavar = "|".join(self.words)

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


class Offered(Kind):
    """A name that another room's table offers, or `auto`. `offer` hands the names in; until then any name passes, and
    whoever looks it up refuses it.
    """

    def __init__(self) -> None:
        self._names: Callable[[], Iterable[str]] = tuple

    @property
    def metavar(self) -> str:  # type: ignore[override]
        return "|".join(self.words)

    def offer(self, names: Callable[[], Iterable[str]]) -> None:
        self._names = names

    @property
    def words(self) -> Sequence[str]:  # type: ignore[override]
        return ["auto", *self._names()]

    @property
    def expects(self) -> str:  # type: ignore[override]
        return f"one of {', '.join(self.words)}"

    def accept(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_.-]*", value):
            raise ValueError
        # Asking the table may import it.
        if value != "auto" and (names := list(self._names())) and value not in names:
            raise ValueError
        return value

    def parse(self, text: str) -> str:
        return self.accept(text.strip())


class Flag(Kind):
    """true or false."""

    expects = "true or false"
    metavar = ""

    def accept(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def parse(self, text: str) -> bool:
        word = text.strip().lower()
        if word in ("true", "1", "yes", "on", "t", "y"):
            return True
        if word in ("false", "0", "no", "off", "f", "n"):
            return False
        raise ValueError


class Text(Kind):
    """Words that match `pattern` as a whole."""

    def __init__(self, expects: str = "text", pattern: str = r"(?s).*\S.*", metavar: str = "TEXT") -> None:
        self.expects, self.pattern, self.metavar = expects, pattern, metavar

    def accept(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError
        return value


class Forms(Text):
    """Words of several forms: (as people see one, its pattern). `more` gives those of installed packages."""

    def __init__(self, forms: Sequence[tuple[str, str]], more: Callable[[], Iterable[tuple[str, str]]] = tuple) -> None:
        self._forms, self._more, self.metavar = forms, more, "TEXT"

    @property
    def expects(self) -> str:  # type: ignore[override]
        return ", ".join(shown for shown, _ in (*self._forms, *self._more()))

    def accept(self, value: Any) -> str:
        if not isinstance(value, str) or self.groups(value) is None:
            raise ValueError
        return value

    def groups(self, text: str, flags: int = 0) -> Optional[dict[str, str]]:
        """Named groups of the first pattern that matches, those that are absent left out; None where none does."""
        # Packages are asked for only where no form of ours fits.
        for forms in (lambda: self._forms, self._more):
            for _, pattern in forms():
                if match := re.fullmatch(pattern, text, flags):
                    return {name: value for name, value in match.groupdict().items() if value}
        return None


class File(Kind):
    """A path; whoever opens it says what is wrong with it."""

    expects = "a path"

    def __init__(self, metavar: str = "FILE") -> None:
        self.metavar = metavar

    def accept(self, value: Any) -> Path:
        if not isinstance(value, (str, Path)) or not str(value):
            raise ValueError
        return Path(value)


class Or(Kind):
    """What `kind` accepts, or `word`, which stands for None: left to the source, or no limit at all."""

    def __init__(self, kind: Kind, word: str) -> None:
        self.kind, self.word = kind, word
        self.expects = f"{kind.expects} or {word}"
        self.metavar = kind.metavar
        self.words = [*kind.words, word] if kind.words else ()

    def accept(self, value: Any) -> Any:
        return None if isinstance(value, str) and value == self.word else self.kind.accept(value)

    def parse(self, text: str) -> Any:
        return None if text.strip() == self.word else self.kind.parse(text)


def decimal(text: str) -> Union[int, float]:
    """A plain decimal number. Raises ValueError without a text: Python's own would repeat the value."""
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][-+]?[0-9]{1,3})?", text):
        return float(text)
    raise ValueError


def _range(low: Optional[float], high: Optional[float], above: bool = False, below: bool = False) -> str:
    """` from 1 to 256`, in words; ends that are None are left out."""
    first = "above" if above else "from" if high is not None else "of at least"
    start = "" if low is None else f" {first} {low:.15g}"
    end = "" if high is None else f" to below {high:.15g}" if below else f" to {high:.15g}"
    return start + end


class ReadBy(Kind):
    """What the function `module:name` makes of the text; it raises UsageError and is imported when it is needed."""

    def __init__(self, function: str, metavar: str) -> None:
        self._function, self.metavar = function, metavar

    def parse(self, text: str) -> Any:
        from edge_mnv2.installed import load

        return load(self._function)(text)
