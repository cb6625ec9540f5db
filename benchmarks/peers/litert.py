"""A plain LiteRT loop, as its image classification example writes it, with the resize done by OpenCV."""

from __future__ import annotations

from ai_edge_litert.interpreter import Interpreter
from loop import Classify
from tflite_loop import over


def open_peer(model: str, threads: int) -> Classify:
    return over(Interpreter(model_path=model, num_threads=threads))
