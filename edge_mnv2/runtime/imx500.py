"""The Raspberry Pi AI Camera's sensor (IMX500) as what runs a model: its answers come with the camera's frames.

`camera.imx500` has the camera. Here is what makes scores of its answers: the whole model's, or an embedding, which
the model's own head takes further on the CPU; so models taught on one backbone share one network file. A frame without
answers is classified on the CPU, by the model itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np

from edge_mnv2.errors import AcceleratorError, ModelError, UsageError
from edge_mnv2.runtime.interpreter import Interpreter, open_interpreter
from edge_mnv2.runtime.table import AnyInterpreter, Runtime
from edge_mnv2.tflite import graph
from edge_mnv2.tflite.ir import Graph, Subgraph, last_pool

if TYPE_CHECKING:
    from edge_mnv2.runtime.delegate import DelegateSpec, Plan

log = logging.getLogger(__name__)

NAME = "imx500"


def plan(request: Optional[str], spec: DelegateSpec, _fall_back: bool) -> Plan:
    """The network file for the camera, and the model that it was compiled from. Raises ModelError, UsageError."""
    from edge_mnv2.runtime.delegate import Plan
    from edge_mnv2.zoo.registry import DEFAULT_MODEL
    from edge_mnv2.zoo.resolve import Resolved, resolve
    from edge_mnv2.zoo.sidecar import outdated

    if spec.mode == "none":
        raise UsageError(f"{request} runs in a camera only, and --delegate none keeps to the CPU")
    model = resolve(request or DEFAULT_MODEL)
    path = Path(spec.library) if spec.library is not None else None
    if model.path.suffix == ".rpk":
        path, twin = model.path, model.path.with_name(f"{model.path.stem.replace(f'_{NAME}', '')}.tflite")
        if not twin.is_file():
            raise ModelError(f"{path} has no model beside it", hint=f"--model MODEL.tflite --delegate {NAME}:{path}")
        model = resolve(str(twin))
    places = [folder / f"{model.path.stem}_{NAME}.rpk" for folder in (model.path.parent, Path())]
    path = path or next((one for one in places if one.is_file()), None)
    if path is None or not path.is_file():
        raise UsageError(
            f"{path or places[0].name}: no such network file",
            hint=f"--delegate {NAME}:FILE.rpk; `edge-mnv2 compile --target {NAME}` makes what becomes one",
        )
    # `imx500-package` writes `network.rpk` into a folder, which is called as the packed file is.
    if any(outdated(one, model.path, model.sha256) for one in (path, Path(f"{path.absolute().parent}.rpk"))):
        raise UsageError(
            f"{model.name} has changed since {path} was compiled from it",
            hint=f"`edge-mnv2 compile --target {NAME} {model.path.name}` again",
        )
    # A sidecar beside it may say which file it has to be.
    return Plan(model, Resolved(model.name, path, resolve(str(path)).sha256, None, None))


def open_model(_row: Runtime, path: Union[Path, str], **_: Any) -> AnyInterpreter:
    """Pictures from elsewhere do not reach it. Raises UsageError."""
    raise UsageError(f"{path} runs in a Raspberry Pi AI Camera only", hint="edge-mnv2 run --camera csi")


def open_supervised(
    _spec: DelegateSpec,
    compiled: Path,
    cpu: Path,
    *,
    threads: int = 1,
    count: int = 1,
    fall_back: bool = True,
    **_: Any,
) -> list[CameraInterpreter]:
    """`count` interpreters of the model at `cpu`, which take what the network file at `compiled` answers."""
    opened: list[CameraInterpreter] = []
    for _number in range(count):
        opened.append(CameraInterpreter(open_interpreter(cpu, threads=threads), cpu, compiled, fall_back))
    return opened


class CameraInterpreter:
    """A model whose outputs come from a camera (`complete`), and are computed on the CPU where none come (`invoke`).

    `losses` counts how often the camera's answers stopped.
    """

    threads: int

    def __init__(self, cpu: Interpreter, model: Path, network: Path, fall_back: bool) -> None:
        self._cpu, self._model, self._fall_back = cpu, model, fall_back
        self._head: Optional[Interpreter] = None
        self._since = time.monotonic()
        self.inputs, self.outputs, self.threads = cpu.inputs, cpu.outputs, cpu.threads
        self.runtime = f"{NAME} ({network.name})"
        self.delegate, self.engine = NAME, "cpu"
        self.losses = 0
        self.notes: list[str] = []
        self._seconds = {NAME: 0.0, "cpu": 0.0}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds that the camera and "cpu" have been in use."""
        return {**self._seconds, self.engine: self._seconds[self.engine] + time.monotonic() - self._since}

    def complete(self, answers: Sequence[np.ndarray], position: int = 0) -> np.ndarray:
        """Output number `position` in its own dtype, of what the network answered. Raises ModelError."""
        if self.engine != NAME:
            if self.losses:
                log.info("the network in the camera answers again")
            self._switch(NAME)
        values = np.asarray(answers[position if position < len(answers) else 0], np.float32).reshape(-1)
        output = self.outputs[position]
        if values.size == output.size:
            return output.quantize(values)
        head = self._opened_head()
        if head is None or values.size != head.inputs[0].size:
            raise ModelError(
                f"the network in the camera answers with {values.size} values, which {self._model.name} cannot use",
                hint=f"give the .rpk that `edge-mnv2 compile --target {NAME}` led to, of this model or its backbone",
            )
        head.set_input(head.inputs[0].quantize(values))
        head.invoke()
        return head.output(position)

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        self._cpu.set_input(values, position)

    def invoke(self) -> None:
        """Run the model on the CPU. Raises AcceleratorError where the camera is to do it."""
        if self.engine == NAME:
            self.losses += 1
            if not self._fall_back:
                raise AcceleratorError("the network in the camera gives no answers any more", hint="start again")
            log.warning("the network in the camera gives no answers any more; the CPU goes on until it does")
            self._switch("cpu")
        self._cpu.invoke()

    def output(self, position: int = 0) -> np.ndarray:
        return self._cpu.output(position)

    def close(self) -> None:
        for one in (self._cpu, self._head):
            if one is not None:
                one.close()

    def _switch(self, engine: str) -> None:
        self._seconds = self.seconds
        self._since, self.engine = time.monotonic(), engine

    def _opened_head(self) -> Optional[Interpreter]:
        if self._head is None:
            whole = graph.read(self._model.read_bytes(), str(self._model))
            place = last_pool(whole.operators)
            if place is None:
                return None
            embedding = whole.operators[place].outputs[0]
            alone = Subgraph([], [embedding], list(whole.outputs), whole.operators[place + 1 :], "head")
            alone.drop_unused()
            self._head = open_interpreter(graph.write(Graph([alone], "head")))
        return self._head
