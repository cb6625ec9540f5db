"""Mean activations of a trained network, from its batch normalization alone.

Before an activation function, a normalized channel has the trained mean and standard deviation; taken as a normal
distribution, the mean after clipping follows (Nagel et al. 2019, "Data-Free Quantization through Weight Equalization
and Bias Correction", appendix C). Only elementwise additions, multiplications and divisions are used, no library
function whose last digit differs between machines.
"""

from __future__ import annotations

import numpy as np

from edge_mnv2.builder.inference import INPUT, Operation

_UPPER = {"relu": None, "relu6": 6.0}


def expected_activations(steps: list[Operation]) -> dict[str, np.ndarray]:
    """Tensor name → float64 mean of each channel, for everything that `steps` make. The input's mean is 0."""
    means: dict[str, np.ndarray] = {INPUT: np.zeros(3)}
    for step in steps:
        first = means[step.inputs[0]]
        if step.kind in ("pad", "mean"):
            means[step.output] = first
        elif step.kind == "add":
            total = first + means[step.inputs[1]]
            # The spread of a sum is not known; a clipped one has at least this mean.
            means[step.output] = total if step.activation == "linear" else np.maximum(total, 0.0)
        elif step.centre is not None and step.spread is not None:
            means[step.output] = clipped_mean(step.centre, step.spread, step.activation)
        else:
            means[step.output] = np.zeros(step.shape[2])
    return means


def clipped_mean(centre: np.ndarray, spread: np.ndarray, activation: str) -> np.ndarray:
    """Mean of a normal variable (mean `centre`, standard deviation `spread`) after `activation`."""
    if activation == "linear":
        return centre
    upper = _UPPER[activation]
    mean = _above(centre, spread, 0.0)
    return mean if upper is None else mean - _above(centre, spread, upper)


def _above(centre: np.ndarray, spread: np.ndarray, level: float) -> np.ndarray:
    """E[max(z - level, 0)] = (centre - level) * Phi(t) + spread * phi(t), with t = (centre - level) / spread."""
    narrow = spread < 1e-12
    distance = centre - level
    t = distance / np.where(narrow, 1.0, spread)
    cumulative, density = _normal(np.clip(t, -12.0, 12.0))
    smooth = distance * cumulative + spread * density
    return np.where(narrow, np.where(distance > 0, distance, 0.0), smooth)


def _normal(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative distribution and density of the standard normal at -12 <= t <= 12, to about 1e-15 absolute."""
    square = t * t
    density = 0.3989422804014327 * _exp_negative(square * 0.5)
    # Phi(t) = 1/2 + phi(t) * (t + t^3/3 + t^5/15 + ...): every term has the same sign, so nothing cancels.
    term, total = t.copy(), t.copy()
    for k in range(1, 260):
        term = term * square / (2 * k + 1)
        total = total + term
    return np.clip(0.5 + density * total, 0.0, 1.0), density


def _exp_negative(x: np.ndarray) -> np.ndarray:
    """exp(-x) for 0 <= x <= 80: a Taylor series of exp(x / 1024), squared ten times, inverted."""
    small = x / 1024.0
    total = np.ones_like(small)
    for k in range(12, 0, -1):
        total = 1.0 + total * small / k
    for _ in range(10):
        total = total * total
    return 1.0 / total
