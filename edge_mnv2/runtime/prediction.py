"""From a raw output to real scores, and what a row of them says, by its label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np

from edge_mnv2.messages import digits
from edge_mnv2.runtime.table import TensorSpec

_FEW = 16
"""So many of the best rows are looked for one by one; more are sorted."""


@dataclass(frozen=True)
class Prediction:
    """One named output: `index` is the model's own output row, `score` a probability.

    In a regression `score` is the measured value and `unit` its unit ("" where none is known), and `error` what it may
    be off by (root mean square of held-out pictures in that part of the range), if that was measured. Else both are
    None.
    """

    label: str
    index: int
    score: float
    unit: Optional[str] = None
    error: Optional[float] = None

    @property
    def rounded(self) -> float:
        """The score as documents have it: a probability to four places, a measured value to seven digits."""
        return round(self.score, 4) if self.unit is None else float(f"{self.score:.7g}")

    @property
    def figure(self) -> str:
        """What a person reads: "93%", or a value with the error to expect and its unit."""
        if self.unit is None:
            return f"{self.score:.0%}"
        off = "" if self.error is None else f" ± {digits(self.error, 2)}"
        return f"{digits(self.score, 4)}{off} {self.unit}".rstrip()


def top_predictions(scores: np.ndarray, labels: Sequence[str], k: int) -> list[Prediction]:
    """The `k` best rows of `scores`, best first; equal scores keep the order of their rows."""
    k = min(k, scores.size)
    left, best = scores.copy(), []
    # Every further function of numpy costs: the model has just emptied the caches. One is called again at no price.
    for _ in range(k if k <= _FEW else 0):
        row = int(left.argmax())
        best.append(Prediction(labels[row], row, left.item(row)))
        left[row] = -np.inf
    if k <= _FEW and (not best or best[-1].score > -np.inf):
        return best
    rows = np.argsort(-scores, kind="stable")[:k].tolist()
    return [Prediction(labels[row], row, scores.item(row)) for row in rows]


def softmax(logits: np.ndarray) -> np.ndarray:
    """`exp(x - max) / sum(exp(x - max))` over the last axis, in the dtype of `logits`."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def score_reader(output: TensorSpec, logits: bool) -> Callable[[np.ndarray], np.ndarray]:
    """What makes real scores float32 of the raw `output` (one axis): dequantized, and with `logits` their softmax."""
    if output.dtype.name in ("int8", "uint8") and output.scale > 0:
        looked_up = _ByteScores(output)
        return looked_up.softmax if logits else looked_up.real

    def read(raw: np.ndarray) -> np.ndarray:
        scores = output.dequantize(raw)
        if not logits:
            return scores
        with np.errstate(invalid="ignore"):
            return softmax(scores)

    return read


class _ByteScores:
    """What the integers of an output of 8 bits stand for, looked up: the bits are those of the arithmetic."""

    def __init__(self, spec: TensorSpec) -> None:
        self._real = spec.dequantize(np.arange(256, dtype=np.uint8).view(spec.dtype))
        self._exp: dict[int, np.ndarray] = {}

    def real(self, raw: np.ndarray) -> np.ndarray:
        """As `TensorSpec.dequantize`."""
        return self._real.take(raw.view(np.uint8))

    def softmax(self, raw: np.ndarray) -> np.ndarray:
        """As `softmax` of `real`."""
        greatest = raw.item(raw.argmax())
        exp = self._exp.get(greatest)
        if exp is None:
            exp = np.exp(np.minimum(self._real - self._real[greatest & 255], 0))
            self._exp[greatest] = exp
        shifted = exp.take(raw.view(np.uint8))
        shifted /= np.add.reduce(shifted)
        return shifted
