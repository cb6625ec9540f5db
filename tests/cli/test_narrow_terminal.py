"""Tables and rows on a terminal that is too narrow for them; in a file and in a pipe nothing is left out."""

from __future__ import annotations

import io

import pytest

from edge_mnv2.cli import terminal

ROWS = [["a", "long words in the middle", "the last column has several words too"], ["b", "short", "end"]]
HEADER = ["", "MIDDLE", "LAST"]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, columns: int, **more: object) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", Tty())
    return terminal.aligned(ROWS, HEADER, **more).splitlines()  # type: ignore[arg-type]


def test_off_a_terminal_a_row_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    lines = terminal.aligned(ROWS, HEADER, least=(1,)).splitlines()
    assert len(lines) == 3 and lines[1].endswith("several words too") and "MIDDLE" in lines[0]


@pytest.mark.parametrize("columns", [53, 60, 79])
def test_the_last_column_is_broken_between_words(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, columns)
    assert max(map(len, lines)) < columns
    assert " ".join(" ".join(lines).split()).count("the last column has several words too") == 1
    start = lines[0].index("LAST")
    continued = [line for line in lines if not line[:start].strip()]
    assert bool(continued) == (columns < 68)


def test_the_least_column_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 45, least=(1,))
    assert "MIDDLE" not in lines[0] and lines[1] == "a  the last column has several words too"
    assert "MIDDLE" in shown(monkeypatch, 100, least=(1,))[0]


def test_a_row_keeps_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Tty()
    monkeypatch.setattr("sys.stdout", stream)
    terminal.print_row("ok    name  ", "words that are too many for it", "32")
    assert stream.getvalue() == "\x1b[32mok    name  \x1b[0mwords that are\n            too many for it\n"
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.print_row("ok    ", "x", "32")
    assert stream.getvalue().endswith("ok    x\n")
