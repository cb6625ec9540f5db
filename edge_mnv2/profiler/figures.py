"""How the page of a profile writes its figures."""

from __future__ import annotations

from typing import Optional


def ms(value: Optional[float]) -> str:
    """`1.23 ms`, a dash where it is unknown."""
    return "-" if value is None else f"{value:.2f} ms"


def number(value: Optional[float], digits: int) -> str:
    """With so many digits, a dash where it is unknown."""
    return "-" if value is None else f"{value:.{digits}f}"


def plural(count: int, noun: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def scroll(content: str) -> str:
    """A box that scrolls sideways where its content is too wide."""
    return f'<div class="scroll">{content}</div>'
