"""An interpreter whose model runs on an Edge TPU, in a process that can be left behind."""

from __future__ import annotations

import time
from typing import Any, Optional

import numpy as np

from edge_mnv2.runtime.edgetpu.contact import Target, first_contact
from edge_mnv2.runtime.edgetpu.worker import views
from edge_mnv2.runtime.interpreter import TensorSpec

STALL_S = 0.75
"""The longest that an inference may take, or `_STALL_FACTOR` times a normal one where that is longer."""
_STALL_FACTOR = 8


class TpuInterpreter:
    """The interface of `edge_mnv2.runtime.interpreter.Interpreter` over a worker process.

    `invoke` raises AcceleratorLost where the device fails, hangs or takes the worker along; the inputs last set can
    still be read from `inputs_set` then. `cpu_operators` is how many operators of the compiled graph the CPU runs.
    """

    engine = "tpu"

    def __init__(self, target: Target, limits: Optional[dict[str, float]] = None) -> None:
        self._worker = first_contact(target, limits)
        ready = self._worker.ready
        self.runtime: str = ready["runtime"]
        self.library_version: str = ready["version"]
        self.cpu_operators: int = ready["cpu_operators"]
        self.threads = target.threads
        self.delegate = target.name
        self.inputs = [_spec(described) for described in ready["inputs"]]
        self.outputs = [_spec(described) for described in ready["outputs"]]
        arrays = views(self._worker.memory(), self.inputs + self.outputs)
        self.inputs_set = arrays[: len(self.inputs)]
        self._results = arrays[len(self.inputs) :]
        # The worker's own first inference uploaded the weights; the second tells what is normal for this model.
        started = time.monotonic()
        self._worker.invoke(_STALL_FACTOR * STALL_S)
        self._limit_s = max(STALL_S, _STALL_FACTOR * (time.monotonic() - started))

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
