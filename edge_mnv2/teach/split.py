"""Which pictures are held out, and whether what is held out was as good as taught."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST = 5
"""A class with fewer pictures gives none of them away."""

_NEAR_BITS = 4


def hold_out(truth: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places of the held-out pictures: `share` of each class, rounded, of classes with at least `LEAST` pictures.

    At least one picture of such a class is held out (where `share` is above 0), and one is taught.
    """
    random = np.random.default_rng(seed)
    chosen: list[int] = []
    for row in np.unique(truth):
        members = random.permutation(np.flatnonzero(truth == row))
        if len(members) >= LEAST and share > 0:
            count = min(max(1, round(len(members) * share)), len(members) - 1)
            chosen += members[:count].tolist()
    return np.array(sorted(chosen), np.int64)


def hold_out_values(values: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places of held-out pictures of a regression: one at random out of each run of neighbours in value.

    The lowest and the highest value are taught, so that nothing held out lies beyond what was taught.
    """
    if len(values) < LEAST or share <= 0:
        return np.zeros(0, np.int64)
    random = np.random.default_rng(seed)
    inner = np.argsort(values, kind="stable")[1:-1]
    count = min(max(1, round(len(values) * share)), len(inner))
    return np.array(sorted(int(random.choice(run)) for run in np.array_split(inner, count)), np.int64)


def near_duplicates(hashes: Sequence[int], held_out: np.ndarray) -> list[tuple[int, int]]:
    """(held out, taught) pairs of places whose difference hashes are nearly the same."""
    held = set(held_out.tolist())
    taught = [place for place in range(len(hashes)) if place not in held]
    pairs = []
    for place in sorted(held):
        for other in taught:
            if bin(hashes[place] ^ hashes[other]).count("1") <= _NEAR_BITS:
                pairs.append((place, other))
                break
    return pairs
