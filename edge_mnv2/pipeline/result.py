"""What the loop makes of one frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np

from edge_mnv2.camera.frame import CameraAnswers, Frame
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.runtime.classifier import Classified, Prediction, Prepared


@dataclass(frozen=True)
class Result:
    """One classified frame. Times are monotonic nanoseconds, `wall_time` is seconds since 1970 (UTC).

    `top` is what passed smoothing and threshold, best first; `ranked` is the same before the threshold, and `raw_row`
    the best row of this frame alone, before smoothing. `latency_ns` runs from capture to result. `fps` counts
    the results of the last second, `dropped` the frames that were captured and never classified so far. `events` is
    what appeared or went with this result, `present` the labels of what is present now, the oldest first. `gated`:
    nothing moved, the scores are those of the last inference, and `inference_ns` is what that one took. `seen` (left,
    top, width, height): the part of the frame's pixels that was classified, None where that is not known. `embedding`:
    float32, what the model saw, where its classifier gives it.
    """

    frame: Frame
    top: tuple[Prediction, ...]
    finished_at: int
    wall_time: float
    uptime_s: float
    latency_ns: int
    inference_ns: int
    fps: float
    dropped: int
    engine: str
    temp_c: Optional[float] = None
    throttled: Optional[tuple[str, ...]] = None
    events: tuple[Event, ...] = ()
    present: tuple[str, ...] = ()
    gated: bool = False
    shown_from: float = 0.0
    ranked: tuple[Prediction, ...] = ()
    raw_row: Optional[int] = None
    seen: Optional[tuple[int, int, int, int]] = None
    embedding: Optional[np.ndarray] = None

    @property
    def shown(self) -> tuple[Prediction, ...]:
        """What people are shown of `top`: measured values, and classes whose score reaches `shown_from`."""
        return tuple(one for one in self.top if one.unit is not None or not one.score < self.shown_from)

    @property
    def unsure(self) -> bool:
        """Nothing is recognized: no class reaches the threshold."""
        return not self.shown


class FrameClassifier(Protocol):
    """What classifies: a `Classifier`, or something that watches over several."""

    def classify(self, pixels: np.ndarray, order: str = "rgb") -> Classified: ...

    def prepare(self, pixels: np.ndarray, order: str = "rgb", place: int = 0) -> Prepared: ...

    def answers(self, prepared: Sequence[Prepared]) -> Iterator[Classified]: ...

    def completed(self, pixels: np.ndarray, answers: CameraAnswers) -> Classified: ...

    def top(self, scores: np.ndarray, k: Optional[int] = None) -> list[Prediction]: ...


def classified(classifier: FrameClassifier, frame: Frame) -> Classified:
    """What `classifier` makes of a frame, or of the answers that came with it."""
    if frame.answers is not None:
        return classifier.completed(frame.region, frame.answers)
    return classifier.classify(frame.region, frame.order)


def seen_in(frame: Frame, answer: Classified) -> Optional[tuple[int, int, int, int]]:
    """The part of the frame's pixels that was classified."""
    if answer.box is None:
        return None
    left, top, width, height = answer.box
    across, down = (0, 0) if frame.roi is None else frame.roi[:2]
    return across + left, down + top, width, height
