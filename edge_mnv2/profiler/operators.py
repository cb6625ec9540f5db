"""Time by operator. The runtimes' Python interfaces offer no such figures, so the graph is taken apart.

Each operator becomes a model of its own, with the constants, types and quantization that it has in the whole graph; the
models run one after another on each other's outputs, with the delegate that the whole graph gets (XNNPACK), one thread,
and each `invoke` is timed. In one round every operator runs once, so that weights come from memory as cold as in the
whole graph. A PAD goes with the operator that reads it, because XNNPACK folds it in. The whole model runs in the same
rounds; `covered` says how much of its time the parts add up to, as the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.inspect.inspection import detail
from edge_mnv2.runtime.interpreter import Interpreter, open_interpreter
from edge_mnv2.tflite import graph as graphs
from edge_mnv2.tflite.costs import operator_macs
from edge_mnv2.tflite.ir import Graph, Operator, Subgraph, Tensor

METHOD = (
    "each operator as a model of its own, run in turn on the outputs of those before it, with the same delegate and "
    "one thread; the median of the rounds"
)
_LEAST_ROUNDS = 3
_FOLDED = ("PAD", "PADV2")


@dataclass(frozen=True)
class Part:
    """One operator, or one with the padding before it. `macs` is None where unknown."""

    index: int
    operator: str
    detail: str
    name: str
    shape: tuple[int, ...]
    macs: Optional[int]
    ms: float


@dataclass(frozen=True)
class Operators:
    """`whole_ms` is the whole model's median in the same rounds; `covered` the median of the parts' sum over it."""

    parts: list[Part]
    whole_ms: float
    covered: float
    rounds: int

    def by_kind(self) -> list[tuple[str, int, float]]:
        """(kind, how many, their ms), the most expensive first."""
        kinds: dict[str, list[float]] = {}
        for part in self.parts:
            kinds.setdefault(part.operator, []).append(part.ms)
        return sorted(((kind, len(times), sum(times)) for kind, times in kinds.items()), key=lambda row: -row[2])

    def document(self) -> dict[str, Any]:
        """As `ops` in the JSON document."""
        total = sum(part.ms for part in self.parts)
        return {
            "method": METHOD,
            "threads": 1,
            "rounds": self.rounds,
            "model_ms": round(self.whole_ms, 4),
            "covered": round(self.covered, 3),
            "operators": [
                {
                    "index": part.index,
                    "operator": part.operator,
                    "detail": part.detail,
                    "name": part.name,
                    "shape": list(part.shape),
                    "macs": part.macs,
                    "ms": round(part.ms, 4),
                    "share": round(part.ms / total, 4) if total else None,
                }
                for part in self.parts
            ],
        }


def measure(path: Path, *, seconds: float, runtime: str = "auto") -> Operators:
    """Time the operators of the model at `path` for about `seconds`.

    Raises ModelError where the graph is one compiled block, has control flow, or holds what cannot be taken apart.
    """
    graph = graphs.read(path.read_bytes(), str(path))
    kinds = {operator.kind for operator in graph.operators}
    if "CUSTOM" in kinds:
        names = sorted({operator.name for operator in graph.operators if operator.kind == "CUSTOM"})
        raise ModelError(
            f"{path.name} holds {names[0]}, a block that cannot be taken apart", hint="--ops wants the CPU model"
        )
    if len(graph.subgraphs) > 1:
        raise ModelError(f"{path.name} has {len(graph.subgraphs)} subgraphs: its operators cannot run one by one")
    if any(min((tensor.shape_signature or tensor.shape)[1:], default=1) < 1 for tensor in graph.inputs):
        raise ModelError(f"{path.name} leaves the size of its input open: its operators cannot run one by one")
    groups = _groups(graph.operators, graph.outputs)
    whole = open_interpreter(path, runtime=runtime)
    steps: list[_Step] = []
    try:
        steps = [_Step(group, graph, runtime) for group in groups]
        return _timed(whole, steps, graph, seconds)
    finally:
        for step in steps:
            step.interpreter.close()
        whole.close()


def _groups(operators: Sequence[Operator], outputs: Sequence[Tensor]) -> list[list[Operator]]:
    """The operators one by one, a padding together with its only reader where that comes next."""
    groups: list[list[Operator]] = []
    for operator in operators:
        if groups and groups[-1][-1].kind in _FOLDED:
            padded = groups[-1][-1].outputs[0]
            readers = [other for other in operators if any(tensor is padded for tensor in other.inputs)]
            if readers == [operator] and not any(tensor is padded for tensor in outputs):
                groups[-1].append(operator)
                continue
        groups.append([operator])
    return groups


class _Step:
    """A group of operators as an interpreter of its own."""

    def __init__(self, group: list[Operator], graph: Graph, runtime: str) -> None:
        self.operator = group[-1]
        made = {id(tensor) for operator in group for tensor in operator.outputs}
        self.inputs: list[Tensor] = []
        for operator in group:
            for tensor in operator.inputs:
                if tensor is None or tensor.data is not None or id(tensor) in made:
                    continue
                if not any(tensor is known for known in self.inputs):
                    self.inputs.append(tensor)
        self.outputs = list(self.operator.outputs)
        subgraph = Subgraph([], self.inputs, self.outputs, group)
        subgraph.drop_unused()
        self.interpreter: Interpreter = open_interpreter(
            graphs.write(Graph([subgraph], version=graph.version)), runtime=runtime
        )
        self.times: list[int] = []

    def run(self, values: dict[int, np.ndarray]) -> None:
        """Invoke on what is in `values`, by tensor, and put the outputs there."""
        for position, tensor in enumerate(self.inputs):
            self.interpreter.set_input(values[id(tensor)], position)
        began = time.perf_counter_ns()
        self.interpreter.invoke()
        self.times.append(time.perf_counter_ns() - began)
        for position, tensor in enumerate(self.outputs):
            values[id(tensor)] = self.interpreter.output(position)


def _timed(whole: Interpreter, steps: list[_Step], graph: Graph, seconds: float) -> Operators:
    tensor = whole.inputs[0]
    shape = tuple(max(1, size) for size in tensor.shape)
    picture = np.random.default_rng(0).integers(0, 255, shape, endpoint=True)
    values = (picture / 127.5 - 1 if tensor.dtype.kind == "f" else picture).astype(tensor.dtype)
    whole.set_input(values)
    whole_times: list[int] = []
    end = time.monotonic() + seconds
    rounds = 0
    while rounds <= _LEAST_ROUNDS or time.monotonic() < end:
        began = time.perf_counter_ns()
        whole.invoke()
        whole_times.append(time.perf_counter_ns() - began)
        tensors = {id(graph.inputs[0]): values}
        for step in steps:
            step.run(tensors)
        rounds += 1
    # The first round packs weights and touches memory.
    ratios = [sum(step.times[number] for step in steps) / whole_times[number] for number in range(1, rounds)]
    return Operators(
        [_part(graph, step) for step in steps],
        statistics.median(whole_times[1:]) / 1e6,
        statistics.median(ratios),
        rounds - 1,
    )


def _part(graph: Graph, step: _Step) -> Part:
    operator = step.operator
    output = operator.outputs[0]
    return Part(
        index=next(place for place, other in enumerate(graph.operators) if other is operator),
        operator=operator.name,
        detail=detail(operator),
        name=output.name,
        shape=tuple(output.shape),
        macs=operator_macs(operator),
        ms=statistics.median(step.times[1:]) / 1e6,
    )
