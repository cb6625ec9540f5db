"""Exponential smoothing of the scores over time."""

from __future__ import annotations

from typing import Optional

import numpy as np

from edge_mnv2.errors import UsageError


class Smoother:
    """`s = past * s + (1 - past) * scores`; `past` from 0 (off) to just under 1. The first scores are taken whole."""

    def __init__(self, past: float = 0.0) -> None:
        self._state: Optional[np.ndarray] = None
        self.past = past

    @property
    def past(self) -> float:
        """The weight of the past; it may be changed between two calls."""
        return self._past

    @past.setter
    def past(self, past: float) -> None:
        if not 0.0 <= past < 1.0:
            raise UsageError(f"smoothing of {past}", hint="a number from 0 (off) up to, not including, 1")
        self._past = past
        if not past:
            self.reset()

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Smoothed scores, float32, same shape. The result is valid until the next call."""
        if not self._past:
            return scores
        if self._state is None:
            self._state = scores.astype(np.float32)
        else:
            self._state *= np.float32(self._past)
            self._state += np.float32(1 - self._past) * scores
        return self._state

    def reset(self) -> None:
        """Forget the past, as after a camera was lost."""
        self._state = None
