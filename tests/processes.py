"""Commands in processes of their own that need not import everything first: each is forked off one that has.

How a command begins by itself is what tests/cli/test_startup.py and tests/test_signals.py look at.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Optional

_IMPORTED = (
    *("numpy", "cv2", "yaml", "requests", "ai_edge_litert.interpreter", "edge_mnv2.cli.app", "edge_mnv2.app.run"),
    *(f"edge_mnv2.cli.{command}" for command in ("run", "classify", "inspect", "models", "pull", "devices")),
    *("edge_mnv2.outputs.web.server", "edge_mnv2.outputs.mqtt", "paho.mqtt.client", "edge_mnv2.camera.pattern"),
)

# Not that of the first test that starts a command: what is imported here all later ones have too.
_ENVIRONMENT = dict(os.environ)

_FORKS = """
import contextlib, importlib, json, os, signal, socket, sys, traceback
for name in sys.argv[1:]:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
from edge_mnv2.__main__ import main

def become(order, streams):
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 64)
    os.environ.clear()
    os.environ.update(order["environment"])
    encoding = os.environ.get("PYTHONIOENCODING")
    sys.stdin = open(0, encoding=encoding, closefd=False)
    sys.stdout = open(1, "w", buffering=1 if os.isatty(1) else -1, encoding=encoding, closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding=encoding, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    os.chdir(order["folder"])
    for name, value in order["constants"].items():
        module, _, name = name.rpartition(".")
        assert hasattr(importlib.import_module(module), name), name
        setattr(importlib.import_module(module), name, value)
    sys.argv = ["edge-mnv2", *order["words"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
orders = socket.socket(fileno=0)
while True:
    text, handed, _, _ = socket.recv_fds(orders, 1 << 18, 4)
    if not text:
        os._exit(0)
    if not os.fork():
        # One waits for the command and says how it ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        orders.close()
        *streams, report = handed
        child = os.fork()
        if not child:
            become(json.loads(text), streams)
        for stream in streams:
            os.close(stream)
        os.write(report, b"%d\\n" % child)
        os.write(report, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    for one in handed:
        os.close(one)
"""


@functools.lru_cache(maxsize=1)
def _orders() -> socket.socket:
    """Whoever reads them at the other end ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", _FORKS, *_IMPORTED]
    subprocess.Popen(command, stdin=theirs, env={**_ENVIRONMENT, "OPENBLAS_NUM_THREADS": "1"})
    theirs.close()
    return ours


class Command:
    """`edge-mnv2 WORDS` at work, used as a `subprocess.Popen` with text in its pipes.

    `stdin`, `stdout` and `stderr` are file descriptors: nothing to read, and pipes, where they are not given.
    `constants` of modules (`package.module.NAME`) are others than a user's. A PYTHONPATH of its own it does not see.
    """

    def __init__(
        self,
        *words: object,
        stdin: Optional[int] = None,
        stdout: Optional[int] = None,
        stderr: Optional[int] = None,
        environment: Optional[Mapping[str, str]] = None,
        constants: Optional[Mapping[str, Any]] = None,
    ) -> None:
        order = {
            "words": list(map(str, words)),
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(Path.cwd()),
            "constants": dict(constants or {}),
        }
        nothing = os.open(os.devnull, os.O_RDWR)
        ours: list[Optional[IO[str]]] = []
        handed = [nothing if stdin is None else stdin]
        mine = [nothing]
        for given in (stdout, stderr):
            if given is None:
                reader, writer = os.pipe()
                ours.append(os.fdopen(reader, encoding="utf-8", errors="surrogateescape"))
                mine.append(writer)
            else:
                ours.append(None)
            handed.append(mine[-1] if given is None else given)
        report, writer = os.pipe()
        self.stdout, self.stderr = ours
        self.returncode: Optional[int] = None
        socket.send_fds(_orders(), [json.dumps(order).encode()], [*handed, writer])
        for one in (*mine, writer):
            os.close(one)
        self._report = os.fdopen(report, "rb", buffering=0)
        self.pid = int(self._report.readline())

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        for one in (self.stdout, self.stderr):
            if one is not None:
                one.close()

    def poll(self) -> Optional[int]:
        return self._ended(0)

    def wait(self, timeout: Optional[float] = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("edge-mnv2", timeout or 0.0)
        return code

    def communicate(self, timeout: Optional[float] = None) -> tuple[str, str]:
        texts = {"stdout": "", "stderr": ""}

        def read(name: str) -> None:
            if (stream := getattr(self, name)) is not None and not stream.closed:
                with stream:
                    texts[name] = stream.read()

        deadline = None if timeout is None else time.monotonic() + timeout
        threads = [threading.Thread(target=read, args=(name,), daemon=True) for name in texts]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join(None if deadline is None else max(0.1, deadline - time.monotonic()))
        return texts["stdout"], texts["stderr"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: Optional[float]) -> Optional[int]:
        if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
            self.returncode = int(self._report.readline())
            self._report.close()
        return self.returncode


def edge_mnv2(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`edge-mnv2 WORDS` with these variables more, to its end."""
    with Command(*words, environment={**os.environ, **environment}) as command:
        out, err = command.communicate(timeout=120)
    return subprocess.CompletedProcess(words, command.returncode or 0, out, err)


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for the thing itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come"
        time.sleep(0.02)
