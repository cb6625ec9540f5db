"""One collected picture, its look, the answer that a person gave, and both as lines of a collection's index."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import math
import re
import sys
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

ID = re.compile(r"[0-9a-f]{16}")
_MOST_NAME = 100


@dataclass(frozen=True)
class Answer:
    """What a person said of a picture: the name of a class, None for none of the classes; `bad`: not worth teaching."""

    label: Optional[str]
    bad: bool = False


@dataclass(frozen=True)
class Item:
    """One collected picture.

    `why` names the reasons, `value` (0..1) says how much an answer is worth, `top` is what the model said as in a log
    line, `model` the first 16 digits of its sha256, `t` when it was taken (ISO 8601, UTC), `bytes` the picture's size.
    `look` is float32 (LOOK_SIZE,) of length 1, or None.
    """

    id: str
    t: str
    why: tuple[str, ...]
    value: float
    top: tuple[dict[str, Any], ...]
    model: str
    bytes: int
    look: Optional[np.ndarray] = None
    answer: Optional[Answer] = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON output; without the look."""
        answer = None if self.answer is None else {"class": self.answer.label, "bad": self.answer.bad}
        return {
            "id": self.id,
            "t": self.t,
            "why": list(self.why),
            "value": round(self.value, 3),
            "top": list(self.top),
            "model": self.model,
            "bytes": self.bytes,
            "answer": answer,
        }


def identity_of(jpeg: bytes) -> str:
    """The name of a picture, which its content gives."""
    return hashlib.sha256(jpeg).hexdigest()[:16]


def class_problem(name: object) -> Optional[str]:
    """Why `name` cannot be that of a class; None where it can."""
    if not isinstance(name, str) or not name.strip() or len(name) > _MOST_NAME or not name.isprintable():
        return f"a class has a name of 1 to {_MOST_NAME} printable characters, or is null"
    if name.strip().startswith(".") or any(sign in name for sign in "/\\"):
        return "a class's name has no slash and no dot at its beginning"
    return None


def line_of(item: Item) -> dict[str, Any]:
    """What the index says of `item`, as JSON."""
    line = item.as_dict()
    if item.look is not None:
        line["look"] = base64.b64encode(item.look.astype(np.float16).tobytes()).decode()
    return line


def item_of(line: dict[str, Any]) -> Item:
    """The item of a line; what another program has put there may raise KeyError, TypeError, ValueError."""
    return Item(
        line["id"],
        str(line["t"]),
        tuple(map(str, line["why"])),
        min(1.0, max(0.0, float(line["value"]))),
        tuple(filter(_is_prediction, line["top"])),
        str(line["model"]),
        int(line["bytes"]),
        read_look(line.get("look")),
    )


def answer_of(said: Optional[dict[str, Any]]) -> Optional[Answer]:
    """The answer of a line. Raises ValueError where it names what is no class."""
    if said is None:
        return None
    if said["class"] is not None and (problem := class_problem(said["class"])):
        raise ValueError(problem)
    return Answer(said["class"], bool(said["bad"]))


def _is_prediction(one: Any) -> bool:
    score = one.get("score") if isinstance(one, dict) else None
    return isinstance(score, (int, float)) and math.isfinite(score) and isinstance(one.get("label"), str)


def shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # Labels once. Python 3.12 never frees what is interned.
    return {key: sys.intern(value) if key in ("label", "model") else value for key, value in pairs}


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
