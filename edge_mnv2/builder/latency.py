"""How long one inference of a new model takes on this machine, for a build's report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Optional

import numpy as np

from edge_mnv2.runtime.interpreter import open_interpreter

_REPEATS = 20


def tflite_ms(model: bytes) -> float:
    """Median milliseconds with one thread, after a warm-up."""
    with open_interpreter(model) as interpreter:
        spec = interpreter.inputs[0]
        interpreter.set_input(np.zeros(spec.shape, spec.dtype))
        return _median_ms(interpreter.invoke)


def onnx_ms(model: bytes) -> Optional[float]:
    """The same in ONNX Runtime, None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    feed = {given.name: np.zeros(given.shape, np.uint8)}
    return _median_ms(lambda: session.run(None, feed))


def _median_ms(once: Callable[[], object]) -> float:
    once()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e3, 3)
