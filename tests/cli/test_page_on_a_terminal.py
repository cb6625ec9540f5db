"""Somebody who starts `run` on a terminal gets a page, and a way to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import socket
import struct
import termios
import time
import urllib.request
from pathlib import Path

import pytest

from edge_mnv2.outputs.web.server import qr_code
from tests.processes import Command, edge_mnv2


def on_a_terminal(columns: int, *options: object, until: str = "dropped") -> str:
    """What `run --source test` draws on a terminal of so many columns, up to a word; an address in it is visited."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    source = [] if "--source" in options else ["--source", "test"]
    drawn = ""
    with Command("run", *source, *options, stdin=slave, stdout=slave, stderr=slave, environment=environment) as process:
        os.close(slave)
        try:
            end = time.monotonic() + 30
            # What a command says last is there after its end still; then reading fails.
            with contextlib.suppress(OSError):
                while until not in drawn and time.monotonic() < end:
                    if select.select([master], [], [], 0.1)[0]:
                        drawn += os.read(master, 65536).decode(errors="replace")
        finally:
            process.terminate()
            # What is still in the terminal is read, so that nothing waits for it; at its end, reading fails.
            with contextlib.suppress(OSError):
                while process.poll() is None:
                    if select.select([master], [], [], 0.1)[0]:
                        os.read(master, 65536)
    os.close(master)
    return drawn


@pytest.fixture
def busy() -> socket.socket:
    """8080 is in use, by this test: whoever was there before might leave before the run comes."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end = time.monotonic() + 60
    while True:
        try:
            listener.bind(("127.0.0.1", 8080))
            listener.listen()
            return listener
        except OSError:
            if time.monotonic() > end:
                pytest.skip("another program has port 8080")
            time.sleep(0.5)


@pytest.mark.slow
def test_a_page_without_being_asked_on_the_next_free_port(stub: Path, busy: socket.socket) -> None:
    with busy:
        drawn = on_a_terminal(80, "--model", stub)
    assert "port 8080 is busy: trying the next one" in drawn
    address = re.search(r"web page: http://127\.0\.0\.1:(\d+)/", drawn)
    assert address and 8081 <= int(address[1]) <= 8100
    assert "--web 0.0.0.0" in drawn
    # The code is that of the address, and a person who scans it with a phone reads why it does not open there.
    assert qr_code(f"http://127.0.0.1:{address[1]}/").replace("\n", "\r\n") in drawn


@pytest.mark.slow
def test_no_page_where_none_is_wanted(stub: Path) -> None:
    assert "web page" not in on_a_terminal(80, "--model", stub, "--no-web")
    done = edge_mnv2("run", "--source", "test", "--model", str(stub), "--max-frames", "3")
    assert done.returncode == 0 and "web page" not in done.stderr


@pytest.mark.slow
def test_no_way_to_a_page_of_a_run_that_cannot_begin(stub: Path) -> None:
    drawn = on_a_terminal(80, "--model", stub, "--source", "none.mp4", until="file not found")
    assert "none.mp4: file not found" in drawn and "web page" not in drawn and "▀" not in drawn


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("where", ["0.0.0.0:0", "127.0.0.1:0"])
def test_a_qr_code_carries_the_token_and_no_line_is_broken(columns: int, where: str, stub: Path) -> None:
    drawn = on_a_terminal(columns, "--model", stub, "--web", where)
    page = re.search(r"web page: (http://\S+)", drawn)
    assert page and ("?token=" in page[1]) == (where == "0.0.0.0:0"), drawn
    assert qr_code(page[1]).replace("\n", "\r\n") in drawn
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.partition("FPS")[0]).splitlines()
    assert max(len(line.rstrip()) for line in lines) < columns


@pytest.mark.slow
def test_a_terminal_that_has_no_blocks_gets_the_address_alone(stub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    drawn = on_a_terminal(80, "--model", stub, "--web", "127.0.0.1:0", until="FPS")
    assert "web page: http://127.0.0.1" in drawn and "\\u2588" not in drawn


def test_a_qr_code_is_that_of_the_text() -> None:
    cv2 = pytest.importorskip("cv2")
    numpy = pytest.importorskip("numpy")
    text = "http://192.168.1.20:8080/?token=sM8FQXJb2D4cYaSQ"
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in qr_code(text).splitlines()]
    halves = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    rows = [[halves[sign][half] for sign in line] for line in lines for half in (0, 1)]
    picture = numpy.kron(255 - 255 * numpy.array(rows, numpy.uint8), numpy.ones((8, 8), numpy.uint8))
    picture = cv2.copyMakeBorder(picture, 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=255)
    assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == text


def test_both_is_a_mistake(stub: Path) -> None:
    done = edge_mnv2("run", "--source", "test", "--web", "0", "--no-web")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)


def test_the_page_answers(stub: Path) -> None:
    """The address is the page's: what a person would open."""
    with Command("run", "--source", "test", "--model", stub, "--web", "0") as process:
        assert process.stderr is not None
        try:
            address = next(match[1] for line in process.stderr if (match := re.search(r"web page: (\S+)", line)))
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
