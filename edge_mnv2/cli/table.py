"""Rows of text under one another: plain columns that stay the same on a terminal, in a file and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional


def aligned(rows: Sequence[Sequence[str]], header: Optional[Sequence[str]] = None, right: Sequence[int] = ()) -> str:
    """`rows` with columns padded to one width; the columns in `right` end together. The last column is never padded."""
    every = [list(header), *map(list, rows)] if header is not None else [list(row) for row in rows]
    if not every:
        return ""
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    lines = []
    for row in every:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
