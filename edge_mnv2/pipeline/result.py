"""What the loop makes of one frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

import numpy as np

from edge_mnv2.camera.frame import Frame
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.runtime.classifier import Classified, Prediction


@dataclass(frozen=True)
class Result:
    """One classified frame. Times are monotonic nanoseconds, `wall_time` is seconds since 1970 (UTC).

    `top` is what passed smoothing and threshold, best first; `ranked` is the same before the threshold, and `raw_row`
    the best row of this frame alone, before smoothing. `latency_ns` runs from capture to result. `fps` counts
    the results of the last second, `dropped` the frames that were captured and never classified so far. `events` is
    what appeared or went with this result, `present` the labels of what is present now, the oldest first. `gated`:
    nothing moved, the scores are those of the last inference, and `inference_ns` is what that one took.
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
    ranked: tuple[Prediction, ...] = ()
    raw_row: Optional[int] = None

    @property
    def unsure(self) -> bool:
        """No class reaches the threshold."""
        return not self.top


class FrameClassifier(Protocol):
    """What classifies: a `Classifier`, or something that watches over several."""

    def classify(self, pixels: np.ndarray, order: str = "rgb") -> Classified: ...

    def top(self, scores: np.ndarray, k: Optional[int] = None) -> list[Prediction]: ...
