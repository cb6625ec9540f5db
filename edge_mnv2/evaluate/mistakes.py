"""The pictures that a person wants to see first: the most confident wrong answers, the values furthest off."""

from __future__ import annotations

import heapq
import io
from dataclasses import dataclass

import numpy as np

from edge_mnv2.evaluate.evaluation import Outcome, Subject
from edge_mnv2.evaluate.metrics import Answer

_JPEG_QUALITY = 80


@dataclass(frozen=True, order=True)
class Mistake:
    """`weight` orders them (confidence, or absolute error); `jpeg` is the picture as the model saw it."""

    weight: float
    name: str
    truth: str
    answer: str
    jpeg: bytes


class Mistakes:
    """Keeps the `most` weightiest mistakes of the first model, whatever the size of the data set."""

    def __init__(self, subject: Subject, most: int = 12) -> None:
        self._subject = subject
        self._most = most
        self._heap: list[Mistake] = []

    def add(self, outcome: Outcome) -> None:
        """Look at one picture's outcome."""
        if outcome.error is not None or outcome.image is None:
            return
        answer, truth = outcome.answers[0], outcome.example.truth
        classes = self._subject.classes
        if isinstance(answer, Answer) and classes is not None:
            if answer.rank == 0:
                return
            weight = answer.confidence
            texts = (classes.name(answer.truth), f"{classes.name(answer.predicted)} {answer.confidence:.0%}")
        else:
            truths = truth if isinstance(truth, tuple) else ()
            weight = max((abs(a - b) for a, b in zip(answer, truths)), default=0.0)
            texts = (_values(truths), _values(answer))
        if len(self._heap) == self._most and weight <= self._heap[0].weight:
            return
        mistake = Mistake(weight, outcome.example.name, *texts, _jpeg(outcome.image))
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, mistake)
        else:
            heapq.heapreplace(self._heap, mistake)

    def worst(self) -> list[Mistake]:
        """The weightiest first."""
        return sorted(self._heap, reverse=True)


def _values(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(image).save(target, "JPEG", quality=_JPEG_QUALITY)
    return target.getvalue()
