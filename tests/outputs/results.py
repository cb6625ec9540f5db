"""Results as the loop makes them, for tests of what takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_mnv2.camera.frame import Frame
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Prediction

NOON = 1795600800.1234


def result(index: int = 0, label: str = "tabby, tabby cat", **more: Any) -> Result:
    """A result of frame `index`; `more` replaces any field."""
    fields: dict[str, Any] = {
        "frame": Frame(np.full((48, 64, 3), index % 256, np.uint8), "rgb", 0, index),
        "top": (Prediction(label, 281, 0.83), Prediction("lynx", 287, 0.1)),
        "finished_at": index * 33_000_000,
        "wall_time": NOON + index / 30,
        "uptime_s": 1.5,
        "latency_ns": 5_000_000,
        "inference_ns": 3_700_000,
        "fps": 29.97,
        "dropped": 3,
        "engine": "cpu",
    }
    return Result(**{**fields, **more})


def event(kind: str = "appeared", label: str = "tabby, tabby cat", frame: int = 0) -> Event:
    """`frame` makes its start distinct."""
    ended = NOON + frame + 5 if kind == "gone" else None
    return Event(kind, label, 281, NOON + frame, 0.93, frame, ended)
