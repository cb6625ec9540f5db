"""What a taught head is worth: on pictures that were held out, by its own integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.builder.backbone import Backbone
from edge_mnv2.builder.taught_head import head_alone
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.tflite import graph


@dataclass(frozen=True)
class Answers:
    """`scores` (pictures, rows) as the model gives them, "unknown" included; `logits` of the taught classes alone."""

    scores: np.ndarray
    logits: Optional[np.ndarray] = None


def answers(backbone: Backbone, codes: np.ndarray, *, logits: bool = True, runtime: str = "auto") -> Answers:
    """What the appended head answers to embeddings `codes` (pictures, size), dequantized, by the integer kernels."""
    also = ("logits",) if logits else ()
    found: list[list[np.ndarray]] = [[], []]
    with open_interpreter(graph.write(head_alone(backbone, *also)), runtime=runtime) as interpreter:
        spec = interpreter.inputs[0]
        for code in codes:
            interpreter.set_input(code.reshape(spec.shape))
            interpreter.invoke()
            for place, output in enumerate(interpreter.outputs):
                found[place].append(output.dequantize(interpreter.output(place)).reshape(-1))
    return Answers(np.stack(found[0]), np.stack(found[1]) if logits else None)


def wilson(right: int, count: int, z: float = 1.96) -> Optional[tuple[float, float]]:
    """The 95 % interval of a share (Wilson, 1927). None without pictures."""
    if not count:
        return None
    share = right / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def confusion(truth: Sequence[int], answered: Sequence[int]) -> dict[tuple[int, int], int]:
    """(true row, answered row) → pictures."""
    cells: dict[tuple[int, int], int] = {}
    for pair in zip(truth, answered):
        cells[pair] = cells.get(pair, 0) + 1
    return cells
