"""What a taught model's file remembers of its lesson, so that it can be extended without the old pictures."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import ModelError
from edge_mnv2.tflite import graph

KEY = "edge-mnv2.taught"
"""The model's metadata entry that remembers its lesson."""

_FORMAT = 1
_ARRAYS = ("codes", "picture", "truth", "held_out", "others")


@dataclass(frozen=True)
class LessonMemory:
    """`about` says what was taught (task, head, classes, backbone). `codes` (pictures, size) are the embeddings in the
    backbone's integers, variations included; `picture` is the picture that each belongs to, and one a picture are
    `truth` (class or value), `held_out` and `names`. `others` and `other_digests` are of pictures of no class."""

    about: dict[str, Any]
    codes: np.ndarray
    picture: np.ndarray
    truth: np.ndarray
    held_out: np.ndarray
    names: Sequence[str]
    digests: Sequence[str]
    others: Optional[np.ndarray] = None
    other_digests: Sequence[str] = ()

    def packed(self) -> bytes:
        """The content of the model's metadata entry `KEY`: the length of a JSON header, the header, the arrays."""
        arrays = {name: np.ascontiguousarray(part) for name in _ARRAYS if (part := getattr(self, name)) is not None}
        header = {
            "format": _FORMAT,
            "about": self.about,
            "names": list(self.names),
            "digests": list(self.digests),
            "other_digests": list(self.other_digests),
            "arrays": {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()},
        }
        text = json.dumps(header).encode()
        content = b"".join(array.tobytes() for array in arrays.values())
        return len(text).to_bytes(4, "little") + text + zlib.compress(content, 6)


def recall(path: Path) -> LessonMemory:
    """The memory of the taught model `path`. Raises ModelError where it has none."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"--add {path} cannot be read: {error.strerror or error}") from error
    packed = graph.read(content, str(path)).metadata.get(KEY)
    if packed is None:
        raise ModelError(
            f"--add {path}: this model remembers no lesson", hint="give a file that `teach` wrote as extendable"
        )
    try:
        end = 4 + int.from_bytes(packed[:4], "little")
        header = json.loads(packed[4:end])
        if header["format"] != _FORMAT:
            raise ModelError(f"--add {path} was taught by another version of edge-mnv2", hint="teach it again")
        values, start, arrays = zlib.decompress(packed[end:]), 0, {}
        for name, (dtype, shape) in header["arrays"].items():
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(values, dtype, count, start).reshape(shape)
            start += arrays[name].nbytes
        lists = {name: header.get(name, ()) for name in ("names", "digests", "other_digests")}
        return LessonMemory(about=header["about"], **lists, **arrays)
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        if isinstance(error, ModelError):
            raise
        hint = "teach it again from its pictures"
        raise ModelError(f"--add {path}: what it remembers is damaged", hint=hint) from error
