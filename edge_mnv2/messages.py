"""What people read: signs that would steer a terminal become visible, and no message ends the work.

`prepare` in `cli/terminal.py` puts a `Filtered` around stderr and stdout. What moves the cursor itself (a progress bar,
a status that stays in place) writes to `unfiltered(stream)`, names and labels through `visible`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from edge_mnv2.addresses import redact

if TYPE_CHECKING:
    from rich.console import Console

Display = TypeVar("Display", bound=contextlib.AbstractContextManager[Any])

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""C0 and C1 controls (ECMA-48) without tab and newline, line separators, bidirectional controls (UAX 9)."""


def visible(text: str) -> str:
    r"""`text` with each control or bidirectional sign as `\u001b`, which is also JSON's own way to write it."""
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: str) -> str:
    """`visible`, and no line ends: a name of several lines makes no rows of its own."""
    return visible(text).replace("\n", "\\n")


def shown(text: object) -> str:
    """A value as an error shows it: in quotes, on one line, not too long."""
    words = " ".join(str(text).split())
    printable = "".join(c if c.isprintable() else "?" for c in words)
    return f"'{printable if len(printable) <= 60 else printable[:57] + '...'}'"


def digits(value: float, count: int) -> str:
    """`value` to `count` significant digits, written out: 120 and 20400, where `g` gives 1.2e+02 and 2.04e+04."""
    return f"{float(f'{value:.{count}g}'):.15g}"


def first_line(error: BaseException) -> str:
    """An error's text without what follows its first line; its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def steering(text: str) -> Optional[str]:
    r"""The first control or bidirectional sign of `text` as `\u001b`; None where there is none.

    For readers of registries, sidecars, labels and profiles, which refuse such text.
    """
    match = _STEERING.search(text)
    return visible(match[0]) if match else None


class Filtered:
    """A text stream for people around `stream`: what is written passes `rewrite`, then `visible`.

    With `best_effort`, text that cannot be written is dropped: stderr may be full or closed, and the work goes on.
    """

    def __init__(self, stream: Any, rewrite: Callable[[str], str], *, best_effort: bool) -> None:
        self.unfiltered = stream
        self._rewrite = rewrite
        self._best_effort = best_effort
        self.written = False
        """Whether anything was."""

    def write(self, text: str) -> int:
        self.written = True
        try:
            self.unfiltered.write(visible(self._rewrite(text)))
        except (OSError, ValueError):
            if not self._best_effort:
                raise
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self.unfiltered.flush()
        except (OSError, ValueError):
            if not self._best_effort:
                raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)


def unfiltered(stream: Any) -> Any:
    """The stream behind a `Filtered`, for what moves the cursor itself."""
    return stream.unfiltered if isinstance(stream, Filtered) else stream


def console() -> Console:
    """rich's console on stderr, for what moves the cursor. Text from outside goes through `visible` first."""
    from rich.console import Console

    return Console(file=unfiltered(sys.stderr), highlight=False)


@contextlib.contextmanager
def in_place(display: Display) -> Iterator[Display]:
    """Show rich's `display` (a progress, a live table); what is written to stderr meanwhile, and what is logged there,
    stands above it."""
    before = sys.stderr
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is before
    ]
    with contextlib.ExitStack() as drawn:
        with _silent(handlers):
            drawn.enter_context(display)
            above = sys.stderr
            # rich puts a stream of its own there, which passes escape sequences on.
            sys.stderr = for_people(above)
            for handler in handlers:
                handler.setStream(sys.stderr)
        try:
            yield display
        finally:
            with _silent(handlers):
                sys.stderr = above
                for handler in handlers:
                    handler.setStream(before)
                drawn.close()


@contextlib.contextmanager
def _silent(handlers: Iterable[logging.Handler]) -> Iterator[None]:
    """Lines that are logged meanwhile wait: one in the middle of a display that begins or ends would break both."""
    with contextlib.ExitStack() as held:
        for handler in handlers:
            handler.acquire()
            held.callback(handler.release)
        yield


def for_people(stream: Any) -> Any:
    """Messages for `stream`: without secrets, visible, best effort."""
    return stream if isinstance(stream, Filtered) else Filtered(stream, redact, best_effort=True)
