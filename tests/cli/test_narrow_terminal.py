"""Tables and rows on a terminal that is too narrow for them; in a file and in a pipe nothing is left out."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

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


@pytest.mark.parametrize("columns", [70, 80])
def test_a_word_that_is_too_long_stands_below_its_head(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash is not cut by the terminal: it can be marked and copied."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", Tty())
    rows = [["same top-1 as float", "99%"], ["sha256", "0f" * 32]]
    assert [line.rstrip() for line in terminal.aligned(rows).splitlines()] == [
        "same top-1 as float  99%",
        "sha256",
        "  " + "0f" * 32,
    ]


def test_one_long_cell_does_not_push_the_others_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout", Tty())
    rows = [
        ["threads", "auto", "a profile"],
        ["source", "words of a value that is long " * 2, "the end"],
        ["x", "1", "y"],
    ]
    assert terminal.aligned(rows, ("SETTING", "VALUE", "FROM")).splitlines() == [
        "SETTING  VALUE  FROM",
        "threads  auto   a profile",
        "source   words of a value that is long words of a value",
        "  that is long",
        "                the end",
        "x        1      y",
    ]


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


def test_a_model_is_described_in_whole_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_mnv2.cli.models import show

    off = io.StringIO()
    monkeypatch.setattr("sys.stdout", off)
    show("mobilenet_v2_1.0_224_int8", False)
    monkeypatch.setenv("COLUMNS", "60")
    on = Tty()
    monkeypatch.setattr("sys.stdout", on)
    show("mobilenet_v2_1.0_224_int8", False)
    lines = on.getvalue().splitlines()
    assert all(len(line) <= 60 or " " not in line.strip() for line in lines)
    assert len(lines) > len(off.getvalue().splitlines())
    assert on.getvalue().split() == off.getvalue().split()


_BAR = """
import logging, time
from edge_mnv2.cli import command, terminal
terminal.prepare()
command.log_to_stderr(logging.INFO)
with terminal.bar() as draw:
    draw("looking", 1, 2)
    time.sleep(0.3)
    terminal.note("a line that is said " + "and goes on " * 8)
    logging.info("a line that is logged")
    draw("learning", 2, 2)
    time.sleep(0.3)
"""


def test_what_is_said_and_logged_stands_above_a_bar() -> None:
    """Not behind it: `36/36 0:00:00learning from 30 of them`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    done = subprocess.run([sys.executable, "-c", _BAR], stdout=slave, stderr=slave, env=environment, check=False)
    os.close(slave)
    drawn = b""
    with contextlib.suppress(OSError):
        while data := os.read(master, 65536):
            drawn += data
    os.close(master)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode()))
    assert done.returncode == 0 and any("looking" in line and "1/2" in line for line in lines)
    assert "a line that is logged" in [line.strip() for line in lines]
    said = [line for line in lines if "goes on" in line]
    assert len(said) == 2 and said[0].startswith("a line that is said") and max(map(len, lines)) <= 80
