"""The live status on a terminal: a few lines that stay in place, and log lines that pass above them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Optional, TextIO

from edge_mnv2.outputs.status import Describe, NewestShown, StatusLine

if TYPE_CHECKING:
    from rich.table import Table

_PER_S = 4
_BAR = 24
_CLASSES = 5


def status_for(describe: Describe, stream: Optional[TextIO] = None) -> NewestShown:
    """What fits `stream` (stderr): the live status on a terminal that can move its cursor, else one line a second."""
    stream = stream or sys.stderr
    if stream.isatty():
        from rich.console import Console

        if not Console(file=stream).is_dumb_terminal:
            return LiveStatus(describe, stream)
    return StatusLine(describe, stream)


class LiveStatus(NewestShown):
    """Redraws `describe` and the best classes four times a second; `close` leaves nothing behind on the screen."""

    name = "live status"

    def _work(self) -> None:
        from rich.console import Console
        from rich.live import Live

        try:
            console = Console(file=self._stream, highlight=False)
            with (
                Live(
                    self._picture(), console=console, auto_refresh=False, transient=True, redirect_stdout=False
                ) as live,
                _log_lines_above(self._stream),
            ):
                while not self._halt.wait(1 / _PER_S):
                    live.update(self._picture(), refresh=True)
        except (OSError, ValueError):
            return

    def _picture(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        latest = self._latest
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis")
        grid.add_row(Text(self._describe(latest, classes=False), style="bold"))
        classes = Table.grid(padding=(0, 1))
        for width in (_BAR, None, None):
            classes.add_column(width=width, no_wrap=True, overflow="ellipsis")
        for one in latest.top[:_CLASSES] if latest is not None else ():
            present = latest is not None and one.label in latest.present
            bar = ProgressBar(total=1.0, completed=max(0.0, min(1.0, one.score)), width=_BAR, complete_style="cyan")
            name = Text(one.label, style="bold green" if present else "")
            classes.add_row(bar, Text(f"{one.figure:>4}"), name)
        if latest is not None and latest.unsure:
            classes.add_row("", "", Text("unsure", style="dim"))
        grid.add_row(classes)
        return grid


@contextmanager
def _log_lines_above(stream: TextIO) -> Iterator[None]:
    """While the status is drawn, what is logged to `stream` goes through its console (rich has replaced sys.stderr)."""
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream
    ]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(stream)
