"""The parent's side of a worker process: start it, follow its stages under time limits, run a model in it, end it."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import mmap
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.interpreter import import_runtime, memory_file
from edge_mnv2.runtime.supervised import DeviceRefused, Driver, Ending, explain
from edge_mnv2.runtime.supervised.worker import views
from edge_mnv2.runtime.table import TensorSpec
from edge_mnv2.runtime.toolkit import BOOT, environment

log = logging.getLogger(__name__)

LIMITS_S = {"start": 60.0, "runtime": 60.0, "library": 15.0, "create": 20.0, "open": 30.0, "invoke": 30.0}
"""How long a first contact may spend in each stage: a slow board imports for many seconds, a stick takes some for its
firmware, and the first inference uploads the weights."""

SETTLE_S = 1.0
"""How long a stick gets to come back under its second id before the one further attempt."""

_PACKET = 65536
_END_S = 1.0
_LAST_WORDS_S = 0.3
_unreaped: list[subprocess.Popen] = []


@dataclass(frozen=True)
class Target:
    """What a worker is to open: what drives the device, the device itself (`name` for people, `paths` and `option` for
    its library, to which `options` are told), the model (None: the device alone), and how."""

    library: Driver
    name: str
    option: str = ""
    paths: tuple[str, ...] = ()
    model: Optional[str] = None
    runtime: str = "auto"
    threads: int = 1
    options: tuple[tuple[str, str], ...] = ()
    python: str = sys.executable
    engine: str = "tpu"

    def by(self, python: Path) -> Target:
        """The same in another Python."""
        return replace(self, python=str(python))


class Worker:
    """One worker process and what it shares with us. Not for use by two threads at once, but for `close`."""

    def __init__(self, target: Target, limits: Optional[dict[str, float]] = None) -> None:
        self.target = target
        self._limits = {**LIMITS_S, **(limits or {})}
        self._stage = "start"
        self._native: collections.deque[str] = collections.deque(maxlen=40)
        self.ready: dict[str, Any] = {}
        self._memory_file = memory_file("edge-mnv2-worker")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection = ours
        try:
            self._process = _spawn(target.python, theirs, self._memory_file)
        except BaseException:
            ours.close()
            os.close(self._memory_file)
            raise
        finally:
            theirs.close()
        self._reader = threading.Thread(target=self._read_native, name="worker-stderr", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self) -> dict[str, Any]:
        """Load everything; what the worker says about it once it is ready. Raises AcceleratorError."""
        target = self.target
        order = {
            "library": target.library.path,
            "option": target.option,
            "paths": target.paths,
            "model": target.model,
            "runtime": target.runtime,
            "threads": target.threads,
            "options": dict(target.options),
            "name": target.name,
            "opener": target.library.opener,
        }
        with contextlib.suppress(OSError):
            self._connection.send(json.dumps(order).encode())
        while not self.ready:
            message = self._receive(self._limits[self._stage])
            if "stage" in message:
                self._stage = message["stage"]
            self.ready = message.get("ready", {})
        self._stage = "use"
        return self.ready

    def memory(self) -> mmap.mmap:
        """The shared memory, as large as the worker has made it."""
        return mmap.mmap(self._memory_file, 0)

    def invoke(self, limit_s: float) -> None:
        """One inference over the shared memory. Raises AcceleratorLost."""
        self._connection.settimeout(limit_s)
        try:
            self._connection.send(b"i")
            answer = self._connection.recv(_PACKET)
        except socket.timeout:
            answer = self._late_answer()
            if not answer:
                raise self._failed(Ending(self._stage, waited_s=limit_s)) from None
        except OSError:
            answer = b""
        if len(answer) != 1:
            raise self._failed(self._ending(answer))

    def _late_answer(self) -> bytes:
        """What came while this process, and not the worker, was held up (stopped, or starved of the processor)."""
        self._connection.setblocking(False)
        try:
            return self._connection.recv(_PACKET)
        except OSError:
            return b""

    def close(self) -> None:
        """Let the worker put the device down; end it where it does not. Safe at any time and from any thread."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._wait(_END_S)
        self._kill()
        self._connection.close()

    def _receive(self, limit_s: float) -> dict[str, Any]:
        self._connection.settimeout(limit_s)
        try:
            answer = self._connection.recv(_PACKET)
        except socket.timeout:
            raise self._failed(Ending(self._stage, waited_s=limit_s, native=tuple(self._native))) from None
        except OSError:
            answer = b""
        message = json.loads(answer) if answer else {}
        if not message or "failed" in message:
            raise self._failed(self._ending(answer))
        return message

    def _ending(self, answer: bytes) -> Ending:
        """What the last packet (or, where none came, the process's end) says."""
        self._wait(_LAST_WORDS_S)
        self._reader.join(_LAST_WORDS_S)
        native = tuple(self._native)
        if answer:
            failed = json.loads(answer)["failed"]
            return Ending(failed["stage"], failed["kind"], failed["text"], native=native)
        return Ending(self._stage, code=self._process.poll(), native=native)

    def _failed(self, ending: Ending) -> AcceleratorError:
        self._kill()
        runtime = self.ready.get("runtime") or import_runtime(self.target.runtime)[1]
        return explain(ending, self.target.library, runtime, self.target.name)

    def _wait(self, limit_s: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(limit_s)

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            # One that is stuck in the kernel ends when the kernel lets go of it; nobody waits for that.
            self._wait(0.1)
            if self._process.returncode is None:
                _unreaped.append(self._process)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._memory_file >= 0:
            os.close(self._memory_file)
            self._memory_file = -1

    def _read_native(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._native.append(text)
                    log.debug("worker: %s", text)


def probe(target: Target, limits: Optional[dict[str, float]] = None) -> dict[str, Any]:
    """First contact in a short-lived process: load, open, run the model once where there is one, end.

    What the worker said (`version`, `option`, with a model its tensors too). Raises AcceleratorError.
    """
    worker = first_contact(target, limits)
    worker.close()
    return worker.ready


def first_contact(target: Target, limits: Optional[dict[str, float]] = None) -> Worker:
    """An opened worker. Where the driver says so, a device that refuses is asked once more: a stick changes its USB id
    with its first use.

    Raises AcceleratorError.
    """
    for attempt in (1, 2):
        worker = Worker(target, limits)
        try:
            worker.open()
        except DeviceRefused as error:
            worker.close()
            if attempt == 2 or not target.library.asked_twice:
                raise
            log.debug("%s; trying once more", error.message)
            time.sleep(SETTLE_S)
        except BaseException:
            worker.close()
            raise
        else:
            return worker
    raise AssertionError("unreachable")


def _spawn(python: str, connection: socket.socket, memory_file: int) -> subprocess.Popen:
    for process in list(_unreaped):
        if process.poll() is not None:
            _unreaped.remove(process)
    program = (
        f"{BOOT}\nfrom edge_mnv2.runtime.supervised.worker import main\nmain({connection.fileno()}, {memory_file})"
    )
    return subprocess.Popen(
        [python, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(connection.fileno(), memory_file),
        env=None if python == sys.executable else environment(Path(python)),
    )


STALL_S = 0.75
"""The longest that an inference may take, or `_STALL_FACTOR` times a normal one where that is longer."""
_STALL_FACTOR = 8


class WorkerInterpreter:
    """The interface of `edge_mnv2.runtime.interpreter.Interpreter` over a worker process.

    `invoke` raises AcceleratorLost where the device fails, hangs or takes the worker along; the inputs last set can
    still be read from `inputs_set` then. `cpu_operators` is how many operators of the compiled graph the CPU runs.
    """

    def __init__(self, target: Target, limits: Optional[dict[str, float]] = None) -> None:
        self._worker = first_contact(target, limits)
        ready = self._worker.ready
        self.runtime: str = ready["runtime"]
        self.library_version: str = ready["version"]
        self.cpu_operators: int = ready["cpu_operators"]
        self.threads = target.threads
        self.delegate = target.name
        self.engine = target.engine
        self.inputs = [_spec(described) for described in ready["inputs"]]
        self.outputs = [_spec(described) for described in ready["outputs"]]
        arrays = views(self._worker.memory(), self.inputs + self.outputs)
        self.inputs_set = arrays[: len(self.inputs)]
        self._results = arrays[len(self.inputs) :]
        # The worker's own first inference uploaded the weights; the second tells what is normal for this model.
        started, stall_s = time.monotonic(), (limits or {}).get("use", STALL_S)
        self._worker.invoke(_STALL_FACTOR * stall_s)
        self._limit_s = max(stall_s, _STALL_FACTOR * (time.monotonic() - started))

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        """Copy `values` into input number `position`. Raises ValueError for another shape or dtype."""
        target = self.inputs_set[position]
        if values.shape != target.shape or values.dtype != target.dtype:
            raise ValueError(f"the input is {target.dtype} {target.shape}, not {values.dtype} {values.shape}")
        target[...] = values

    def invoke(self) -> None:
        """Run the model once. Raises AcceleratorLost."""
        self._worker.invoke(self._limit_s)

    def output(self, position: int = 0) -> np.ndarray:
        """A copy of output number `position`, in the tensor's own dtype."""
        return self._results[position].copy()

    def close(self) -> None:
        self._worker.close()


def _spec(described: dict[str, Any]) -> TensorSpec:
    return TensorSpec(
        name=described["name"],
        index=described["index"],
        shape=tuple(described["shape"]),
        dtype=np.dtype(described["dtype"]),
        scale=described["scale"],
        zero_point=described["zero_point"],
    )
