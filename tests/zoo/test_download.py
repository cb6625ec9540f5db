"""The line that a terminal shows while a file is fetched."""

from __future__ import annotations

import io

from edge_mnv2.zoo.download import transfer_bar


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_drawn_on_a_terminal_and_cleared() -> None:
    terminal = _Terminal()
    with transfer_bar("parts [bold]", terminal) as progress:
        assert progress is not None
        progress(10, 2_000_000)
        progress(2_000_000, 2_000_000)
    shown = terminal.getvalue()
    assert "parts [bold]" in shown and "100 %" in shown and "2.0/2.0 MB" in shown
    assert shown.endswith("\x1b[2K"), "the line is cleared"


def test_without_a_measurement_nothing_is_claimed() -> None:
    terminal = _Terminal()
    with transfer_bar("parts", terminal) as progress:
        assert progress is not None
        progress(0, 4_000_000)
    assert "0 %" in terminal.getvalue() and "?" in terminal.getvalue()


def test_nothing_is_drawn_elsewhere() -> None:
    stream = io.StringIO()
    with transfer_bar("parts", stream) as progress:
        assert progress is None
    assert stream.getvalue() == ""
