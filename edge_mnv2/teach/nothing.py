"""Pictures that show nothing: what no rule may take for a taught class."""

from __future__ import annotations

import numpy as np

_SIDE = 224
_GRAINS = (1, 4, 16, 56)
_GREYS = (0, 60, 128, 200, 255)


def pictures(seed: int = 0) -> list[np.ndarray]:
    """RGB uint8 224x224x3: noise in grains of 1 to 56 pixels, a dark sensor's noise, plain grey, a gradient."""
    random = np.random.default_rng(seed)
    found = [noise(random, grain) for grain in _GRAINS]
    found.append(random.integers(0, 6, (_SIDE, _SIDE, 3), dtype=np.uint8))
    found += [np.full((_SIDE, _SIDE, 3), grey, np.uint8) for grey in _GREYS]
    ramp = np.linspace(0, 255, _SIDE).astype(np.uint8)
    found.append(np.repeat(np.tile(ramp, (_SIDE, 1))[:, :, np.newaxis], 3, axis=2))
    return found


def noise(random: np.random.Generator, grain: int, height: int = _SIDE, width: int = _SIDE) -> np.ndarray:
    """RGB uint8 of about that size: squares of `grain` pixels, each of a colour of its own."""
    grains = random.integers(0, 256, (height // grain, width // grain, 3), dtype=np.uint8)
    return np.kron(grains, np.ones((grain, grain, 1), np.uint8))
