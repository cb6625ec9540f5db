"""A real run with its page, as a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stubs import stub_at


class Served:
    """A run that serves a page at `url`; `said` is what it wrote to stderr before that was ready."""

    def __init__(self, process: subprocess.Popen[str], url: str, said: str) -> None:
        self.process, self.url, self.said = process, url, said
        self.port = int(re.findall(r":(\d+)/", url)[0])

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)


@contextlib.contextmanager
def serving(model: object, *options: object, command: str = "run", ready: str = "FPS") -> Iterator[Served]:
    """`edge-mnv2 COMMAND` until a line with `ready` comes, and to the end of the block."""
    arguments = [sys.executable, "-m", "edge_mnv2", command, "--model", model, "--json", *options]
    process = subprocess.Popen(
        [str(one) for one in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
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
        yield Served(process, url, said)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stub_at(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def served(stub: Path) -> Iterator[Served]:
    """One run for the tests of a module that only look."""
    with serving(stub, "--source", "test", "--web", "0") as page:
        yield page
