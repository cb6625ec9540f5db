"""The same loop as `litert`, over tflite-runtime, its predecessor."""

from __future__ import annotations

from loop import Classify
from tflite_loop import over
from tflite_runtime.interpreter import Interpreter


def open_peer(model: str, threads: int) -> Classify:
    return over(Interpreter(model_path=model, num_threads=threads))
