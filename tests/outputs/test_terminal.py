"""The live status on a real terminal (a pseudo terminal), and plain lines where there is none."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
from rich.console import Console

from edge_mnv2.outputs.status import LiveStatus
from tests.outputs.results import result
from tests.processes import Command, edge_mnv2


class Terminal:
    """A run whose stderr is a terminal; everything it draws is in `drawn`."""

    def __init__(self, model: Path, *options: object, **environment: str) -> None:
        self._master, slave = pty.openpty()
        coloured = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = Command(
            *("run", "--model", model, "--source", "test", *options),
            stderr=slave,
            environment={**coloured, **environment},
        )
        os.close(slave)
        self.drawn = ""

    def read(self, until: Optional[Callable[[str], Any]] = None, timeout: float = 20) -> str:
        """Read until the condition holds, else until the run ends."""
        deadline = time.monotonic() + timeout
        while not (until and until(self.drawn)):
            assert time.monotonic() < deadline, self.drawn[-2000:]
            if not select.select([self._master], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:
                break
            if not data:
                break
            self.drawn += data.decode(errors="replace")
        return self.drawn


_MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.slow
def test_a_terminal_gets_a_status_in_place(stub: Path) -> None:
    terminal = Terminal(stub, "--web", "0", TERM="xterm-256color")
    terminal.read(lambda drawn: drawn.count("FPS") >= 4)
    assert "\x1b[1A" in terminal.drawn and "\x1b[2K" in terminal.drawn, "drawn in place"
    assert "\x1b[36m" in terminal.drawn, "in colour"
    assert re.search(r"\d+% ?(\x1b\[[0-9;]*m)* *red", _MOVES.sub("", terminal.drawn))
    before = time.monotonic()
    terminal.process.send_signal(signal.SIGTERM)
    terminal.read()
    assert terminal.process.wait(10) == 0 and time.monotonic() - before < 5
    lines = [_MOVES.sub("", line).strip() for line in terminal.drawn.split("\r\n")]
    assert any(re.fullmatch(r"web page: http://127\.0\.0\.1:\d+/", line) for line in lines), "log lines are whole"
    assert re.search(r"\d+ frames in .*\(signal\)$", lines[-2] or lines[-1]), lines[-3:]
    assert terminal.drawn.rstrip().endswith("(signal)") and "\x1b[?25h" in terminal.drawn, "the cursor is back"


@pytest.mark.parametrize("label", ["x" * 100, "so many words of one class " * 5, "日本" * 40])
@pytest.mark.parametrize("columns", [80, 45])
def test_a_long_name_gives_way_and_not_its_figure(label: str, columns: int) -> None:
    status = LiveStatus(lambda *_, **__: "30.0 FPS", io.StringIO())
    status.write(result(label=label))
    drawn = io.StringIO()
    Console(file=drawn, width=columns).print(status._picture())
    status.close()
    head, first, second = drawn.getvalue().splitlines()
    assert head.startswith("30.0 FPS") and " 83% " in first and first.rstrip().endswith("…") and " 10% lynx" in second


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_terminal_that_cannot_move_gets_lines(stub: Path, environment: dict[str, str]) -> None:
    terminal = Terminal(stub, "--duration", "2.5", **environment)
    terminal.read()
    assert terminal.process.wait(10) == 0 and "\x1b[" not in terminal.drawn
    assert 1 <= terminal.drawn.count("FPS |") <= 3


@pytest.mark.slow
def test_no_color_is_honoured_on_a_terminal(stub: Path) -> None:
    terminal = Terminal(stub, "--duration", "1.5", TERM="xterm-256color", NO_COLOR="1")
    terminal.read()
    assert terminal.process.wait(10) == 0 and not re.search(r"\x1b\[3[0-9]m|\x1b\[38;", terminal.drawn)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_stalled_terminal_stops_nothing(stub: Path) -> None:
    """Nobody reads the terminal: its buffer fills, results go on."""
    terminal = Terminal(stub, "--log", "-", TERM="xterm-256color")
    assert terminal.process.stdout is not None
    began = time.monotonic()
    # At four pictures a second the terminal's buffer is full long before; a run that waited for it would say no more.
    while time.monotonic() - began < 5:
        assert terminal.process.stdout.readline()
    terminal.process.send_signal(signal.SIGTERM)
    terminal.process.communicate(timeout=10)
    assert terminal.process.returncode == 0


@pytest.mark.slow
def test_quiet_says_nothing(stub: Path) -> None:
    done = edge_mnv2("-q", "run", "--model", str(stub), "--source", "test", "--duration", "1.5")
    assert done.returncode == 0 and done.stdout == "" and done.stderr == ""
