"""What a service manager hears: real runs, a real notification socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from edge_mnv2.outputs.status import ServiceNotice
from tests.camera.stream_servers import MjpegServer, jpeg
from tests.outputs.results import result
from tests.processes import until

SPOKEN_S = 30


class Manager:
    """The other end of NOTIFY_SOCKET: datagrams as (seconds, NAME, VALUE)."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.heard: list[tuple[float, str, str]] = []

    def listen(self, until: Optional[str] = None, timeout: float = SPOKEN_S) -> list[str]:
        """The names heard until one starts with `until`, or until the time is up where none is wanted."""
        names, deadline = [], time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                lines = self._socket.recv(8192).decode().split("\n")
            except socket.timeout:
                break
            for line in lines:
                name, _, value = line.partition("=")
                self.heard.append((time.monotonic(), name, value))
                names.append(name)
            if until in names:
                return names
        assert until is None, f"no {until} in {timeout} s: {self.heard[-10:]}"
        return names

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def start(manager: Manager, watchdog_s: float, *options: object, **environment: str) -> subprocess.Popen[str]:
    code = (
        "import os, runpy; from edge_mnv2.outputs import status; status._STATUS_S = 1.0;"
        "os.environ.update(WATCHDOG_PID=str(os.getpid()));"
        "runpy.run_module('edge_mnv2', run_name='__main__', alter_sys=True)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, "run", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": str(int(watchdog_s * 1e6)),
            **environment,
        },
    )


@pytest.mark.slow
def test_ready_alive_stalled_alive_stopping(manager: Manager, stub: Path) -> None:
    """A camera that falls silent: the process lives and says how it is, and does not feed the watchdog."""
    stalled, again = threading.Event(), threading.Event()

    def frames(connection: int) -> Iterator[bytes]:
        number = 0
        while not stalled.is_set():
            yield jpeg(number)
            number += 1
        again.wait(SPOKEN_S)
        while True:
            yield jpeg(number)
            number += 1

    with MjpegServer(frames) as camera:
        process = start(manager, 0.4, "--source", camera.url, "--model", stub)
        try:
            manager.listen("READY")
            assert [name for _, name, _ in manager.heard][:2] == ["READY", "STATUS"], "nothing before the first result"
            assert "FPS" in manager.heard[1][2]
            manager.listen("WATCHDOG")
            stalled.set()
            # What was on its way at first.
            until(lambda: "WATCHDOG" not in manager.listen("STATUS"))
            assert "WATCHDOG" not in manager.listen("STATUS"), "only inferences feed the watchdog"
            again.set()
            assert manager.listen("WATCHDOG")
            process.send_signal(signal.SIGTERM)
            names = manager.listen("STOPPING")
            assert names.count("STOPPING") == 1
            _, said = process.communicate(timeout=20)
            assert process.returncode == 0, said
            assert "(signal)" in said and "| dropped" not in said, "STATUS= stands in for the status line"
        finally:
            again.set()
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_slow_inferences_feed_at_their_own_rate(stub: Path) -> None:
    manager = Manager(f"@edge-mnv2-test-{os.getpid()}")
    options = ["--source", "test", "--model", stub, "--max-frames", 4]
    process = start(manager, 0.2, *options, EDGE_MNV2_SIMULATE_INFERENCE_MS="400")
    try:
        manager.listen("STOPPING")
        beats = [at for at, name, _ in manager.heard if name == "WATCHDOG"]
        assert len(beats) <= 4, "one beat an inference at most"
        assert [name for _, name, _ in manager.heard].index("READY") == 0
    finally:
        process.kill()
        process.communicate()
        manager.close()


@pytest.mark.slow
def test_a_pause_is_no_stall(manager: Manager) -> None:
    paused = threading.Event()
    notice = ServiceNotice(manager.address, 0.2)
    notice.begin(lambda latest, classes=True: "fine\nso far", paused.is_set)
    paused.set()
    assert manager.listen(timeout=0.5) == [], "not ready, not alive"
    paused.clear()
    notice.write(result(0))
    manager.listen("WATCHDOG")
    assert ("STATUS", "fine so far") in [(name, value) for _, name, value in manager.heard], "one line"
    assert "WATCHDOG" not in manager.listen(timeout=0.5)
    paused.set()
    manager.listen("WATCHDOG")
    manager.listen("WATCHDOG")
    notice.close()
    notice.close()
    assert manager.listen("STOPPING").count("STOPPING") == 1
    assert "STOPPING" not in manager.listen(timeout=0.3)


def test_results_that_the_gate_spared_feed_nothing(manager: Manager) -> None:
    from dataclasses import replace

    notice = ServiceNotice(manager.address, 0.2)
    notice.begin(lambda latest, classes=True: "fine", lambda: False)
    notice.write(result(0))
    manager.listen("WATCHDOG")
    time.sleep(0.1)
    notice.write(replace(result(1), gated=True))
    assert "WATCHDOG" not in manager.listen(timeout=0.3)
    notice.write(result(2))
    manager.listen("WATCHDOG")
    notice.close()


def test_a_manager_that_went_away_or_does_not_listen_holds_nothing_up(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "n"))
    notice = ServiceNotice(manager.address, 1e-6)
    began = time.monotonic()
    for index in range(3000):
        notice.write(result(index))
    assert time.monotonic() - began < 10, "a full queue is not waited for"
    manager.close()
    (tmp_path / "n").unlink()
    notice.write(result(0))
    notice.close()


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"NOTIFY_SOCKET": "/run/n"}, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000"}, 2.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_environment(environment: dict[str, str], watchdog_s: Optional[float]) -> None:
    notice = ServiceNotice.from_environment(environment)
    assert notice is not None and notice.watchdog_s == watchdog_s
    assert not environment, "children of the run do not speak for it"
    notice.close()


def test_without_a_manager() -> None:
    assert ServiceNotice.from_environment({}) is None
    assert ServiceNotice.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}) is None
