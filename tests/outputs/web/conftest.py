"""A real run with its page, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

import pytest

from tests.processes import Command
from tests.stubs import stub_at


class Served:
    """A run that serves a page at `url`; `said` is what it wrote to stderr before that was ready."""

    def __init__(self, process: Union[Command, subprocess.Popen[Any]], url: str, said: str) -> None:
        self.process, self.url, self.said = process, url, said
        self.port = int(re.findall(r":(\d+)/", url)[0])

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGINT)
        return self.end(20)

    def end(self, timeout: float) -> tuple[str, str]:
        """What it wrote to stdout, and to stderr since it was ready."""
        return self.process.communicate(timeout=timeout)


@contextlib.contextmanager
def serving(
    model: object,
    *options: object,
    command: str = "run",
    ready: str = " | ",
    deadlines: Optional[dict[str, float]] = None,
) -> Iterator[Served]:
    """`edge-mnv2 COMMAND` until a line with `ready` and, of a run, the first frame come, and to the end of the block.

    `deadlines` of the page's modules (`guard.WRITE_S`: seconds) or, by their whole names, of other ones are others
    than a user's, where a test waits for them.
    """
    ours = "edge_mnv2."
    named = {name if name.startswith(ours) else f"{ours}outputs.web.{name}": s for name, s in (deadlines or {}).items()}
    process = Command(
        command,
        *("--model", model, "--json", *options),
        environment={**os.environ, "NO_COLOR": "1"},
        constants=named,
    )
    try:
        said, url = "", ""
        assert process.stderr is not None
        for line in process.stderr:
            said += line
            if found := re.search(r"web page: (\S+)", line):
                url = found[1]
            if ready in line:
                break
        assert url, said
        served = Served(process, url, said)
        if command == "run":
            _first_frame(served)
        yield served
    finally:
        process.kill()
        process.communicate()


def _first_frame(served: Served) -> None:
    """Wait for it as a health check does."""
    deadline = time.monotonic() + 60
    while True:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{served.port}/healthz", timeout=10),
        ):
            return
        assert served.process.poll() is None and time.monotonic() < deadline, served.said
        time.sleep(0.02)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_at(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def served(stub: Path) -> Iterator[Served]:
    """One run for the tests of a module that only look."""
    with serving(stub, "--source", "test", "--web", "0") as page:
        yield page
