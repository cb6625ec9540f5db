"""The look of a picture: a short vector by which pictures of one scene are known."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from typing import Optional

import numpy as np

LOOK_SIZE = 64
"""Numbers that describe the look of a picture."""
SAME_LOOK = 0.06
"""Pictures whose looks are nearer than this (cosine distance) show the same scene."""


def read_look(text: Optional[str]) -> Optional[np.ndarray]:
    """A look from its base64 text; None where it is none."""
    if not text:
        return None
    try:
        look = np.frombuffer(base64.b64decode(text, validate=True), np.float16).astype(np.float32)
    except (binascii.Error, ValueError):
        return None
    return look if look.shape == (LOOK_SIZE,) and np.isfinite(look).all() else None


def projected(embedding: np.ndarray) -> np.ndarray:
    """The look of a picture: float32 (LOOK_SIZE,) of length 1 from an embedding of any size.

    A fixed projection on random signs keeps angles to about 1/sqrt(LOOK_SIZE) (Achlioptas 2003, "Database-friendly
    random projections"). The signs are a hash's, so that they are the same on every board and with every numpy.
    """
    look = _directions(embedding.size) @ embedding.astype(np.float32).reshape(-1)
    return look / max(float(np.linalg.norm(look)), 1e-12)


@functools.lru_cache(1)
def _directions(size: int) -> np.ndarray:
    bits = np.frombuffer(hashlib.shake_128(b"look").digest(LOOK_SIZE * size // 8), np.uint8)
    return np.where(np.unpackbits(bits).reshape(LOOK_SIZE, size), np.float32(1), np.float32(-1))
