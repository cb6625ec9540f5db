"""Learning rates as a function of the step alone, so that a resumed run needs no state of a scheduler."""

from __future__ import annotations

import math

from edge_mnv2.errors import UsageError

SCHEDULES = ("cosine", "step", "constant")

_WARMUP = 0.05
_DROPS, _DROP = (0.5, 0.8), 0.1


def check_schedule(name: str) -> None:
    """Raises UsageError for an unknown name."""
    if name not in SCHEDULES:
        raise UsageError(f"--schedule {name}", hint=f"one of {', '.join(SCHEDULES)}")


def rate_at(name: str, peak: float, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`.

    The first twentieth of every schedule rises linearly. "cosine" then falls along half a cosine to 0 (Loshchilov and
    Hutter 2017); "step" falls to a tenth after half and again after four fifths; "constant" stays.
    """
    warmup = max(1, int(steps * _WARMUP))
    if step < warmup:
        return peak * (step + 1) / warmup
    if name == "constant":
        return peak
    if name == "step":
        return peak * _DROP ** sum(step >= share * steps for share in _DROPS)
    done = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
