"""The process that holds an accelerator: it loads the library and the model and answers one invoke after another.

Started by `edge_mnv2.runtime.supervised.contact` with two inherited descriptors: a socket of packets (requests and
answers) and a memory file (the model's inputs and outputs). Standard input is the life line: its other end is open as
long as the parent lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.installed import load
from edge_mnv2.runtime.table import AnyInterpreter, TensorSpec

DONE = b"."
ALIGNMENT = 64


def layout(specs: Sequence[TensorSpec]) -> tuple[list[int], int]:
    """Offset of each tensor in the shared memory, and the size of it all in bytes."""
    offsets, end = [], 0
    for spec in specs:
        offsets.append(end)
        size = spec.dtype.itemsize * int(np.prod(_allocated(spec)))
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, max(end, ALIGNMENT)


def _allocated(spec: TensorSpec) -> tuple[int, ...]:
    # A dimension that the model leaves open is allocated as 1.
    return tuple(max(n, 1) for n in spec.shape)


def views(memory: mmap.mmap, specs: Sequence[TensorSpec]) -> list[np.ndarray]:
    """An array over the shared memory for each tensor."""
    offsets, _ = layout(specs)
    return [
        np.ndarray(_allocated(spec), spec.dtype, buffer=memory, offset=offset) for spec, offset in zip(specs, offsets)
    ]


class _Stages:
    """Tells the parent what is being done, so that it can say where a crash or a hang happened."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.current = "start"

    def begin(self, stage: str) -> None:
        self.current = stage
        self.send({"stage": stage})

    def send(self, message: dict) -> None:
        self._connection.send(json.dumps(message).encode())

    def failed(self, error: BaseException) -> None:
        cause = error.__cause__ if isinstance(error, EdgeMnv2Error) and error.__cause__ is not None else error
        # A packet has a limit, a native message has none.
        self.send({"failed": {"stage": self.current, "kind": type(cause).__name__, "text": str(cause)[:8000]}})


def main(connection_fd: int, memory_fd: int) -> None:
    """Serve until the parent closes its end."""
    _die_with_parent()
    connection = socket.socket(fileno=connection_fd)
    order = json.loads(connection.recv(65536))
    stages = _Stages(connection)
    try:
        interpreter = _open(order, stages)
        if interpreter is not None:
            _serve(interpreter, connection, memory_fd, stages, order)
    except (EdgeMnv2Error, OSError, AttributeError, ValueError, RuntimeError, ImportError) as error:
        with contextlib.suppress(OSError):
            stages.failed(error)
        sys.stderr.flush()
        # What failed may not be able to clean up either.
        os._exit(0)


def _die_with_parent() -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The parent decides about the end; a terminal or a service manager signals every process of the group.
        signal.signal(name, signal.SIG_IGN)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # SIGIO comes when the other end of the life line closes, and its default action ends the process even while native
    # code holds the interpreter's lock.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(0, 0)
    if poll.poll(0):
        os._exit(0)


def _open(order: dict, stages: _Stages) -> Optional[AnyInterpreter]:
    """What the driver's opener opens. Without a model it is the device alone that is asked for, and told about."""
    stages.begin("runtime")
    opener = load(order["opener"])
    order.update(version="", chosen="", cpu_operators=0)
    interpreter: Optional[AnyInterpreter] = opener(order, stages.begin)
    if interpreter is None and order["model"] is not None:
        raise TypeError(f"{order['opener']} opens nothing")
    if interpreter is None:
        stages.send({"ready": {"version": order["version"], "option": order["chosen"]}})
    return interpreter


def _serve(
    interpreter: AnyInterpreter, connection: socket.socket, memory_fd: int, stages: _Stages, order: dict[str, Any]
) -> None:
    specs = interpreter.inputs + interpreter.outputs
    _, size = layout(specs)
    os.ftruncate(memory_fd, size)
    memory = mmap.mmap(memory_fd, size)
    shared = views(memory, specs)
    inputs, outputs = shared[: len(interpreter.inputs)], shared[len(interpreter.inputs) :]
    stages.begin("invoke")
    interpreter.invoke()
    stages.send(
        {
            "ready": {
                "version": order["version"],
                "option": order["chosen"],
                "runtime": interpreter.runtime,
                "inputs": [_described(spec) for spec in interpreter.inputs],
                "outputs": [_described(spec) for spec in interpreter.outputs],
                "cpu_operators": order["cpu_operators"],
            }
        }
    )
    while connection.recv(1):
        try:
            for position, array in enumerate(inputs):
                interpreter.set_input(array, position)
            interpreter.invoke()
            for position, array in enumerate(outputs):
                array[...] = interpreter.output(position)
        except (EdgeMnv2Error, RuntimeError, ValueError) as error:
            stages.failed(error)
            sys.stderr.flush()
            os._exit(0)
        connection.send(DONE)
    interpreter.close()


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "index": spec.index,
        "shape": spec.shape,
        "dtype": spec.dtype.str,
        "scale": spec.scale,
        "zero_point": spec.zero_point,
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
