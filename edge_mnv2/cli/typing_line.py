"""A line on stderr that changes, with lines that stay above it, and what a person types meanwhile."""

from __future__ import annotations

import select
import sys
from typing import Optional


class Line:
    """Off a terminal the changing line is not shown at all."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._width = 0

    def show(self, text: str) -> None:
        """Replace the changing line."""
        if self._shown:
            sys.stderr.write(f"\r{text:<{self._width}}")
            sys.stderr.flush()
            self._width = len(text)

    def say(self, text: str) -> None:
        """Put a line above it that stays."""
        self.show("")
        sys.stderr.write(f"{chr(13) if self._shown else ''}{text}\n")
        sys.stderr.flush()


def typed_line() -> Optional[str]:
    """The line that was typed since the last call, without waiting; None where Enter was not pressed."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return None
    return sys.stdin.readline().strip()
