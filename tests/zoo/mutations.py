"""Damage done to model files, the same for the same number: what cards, networks and tools do to them."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Optional
from unittest import mock

from edge_mnv2.tflite import model_file
from edge_mnv2.tflite.wire_formats import Flatbuffer

_EXTREMES = (0, 1, 2, 3, 5, 7, 255, 256, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FRONTS = (b"<!DOCTYPE html><html>", b"PK\x03\x04", b"\x1f\x8b\x08", b"\x89PNG\r\n\x1a\n", b"GGUF", b"\0\0\0\0TFL2")


def skeleton(model: bytes) -> list[int]:
    """The positions of the offsets and counts that hold a model together, where damage matters most."""
    seen: set[int] = set()
    plain = Flatbuffer.read

    def noted(self: Flatbuffer, form: str, position: int) -> int:
        seen.update(range(position, position + struct.calcsize(form)))
        return plain(self, form, position)

    with mock.patch.object(Flatbuffer, "read", noted):
        model_file.check_bytes(model)
    return sorted(seen)


class Damager:
    """Damaged forms of `models`: some big, some small, each equally often a base.

    `skeletons` are the positions in each where damage matters most; those of a .tflite are found.
    """

    def __init__(self, models: Sequence[bytes], skeletons: Optional[Sequence[Sequence[int]]] = None) -> None:
        self._models = models
        self._skeletons = skeletons if skeletons is not None else [skeleton(model) for model in models]

    def damaged(self, number: int) -> tuple[str, bytes]:
        """(what was done, the file) of damage number `number`."""
        dice = random.Random(number)
        row = dice.randrange(len(self._models))
        content = bytearray(self._models[row])
        kind = dice.choice(sorted(set(_KINDS)))
        _KINDS[kind](content, dice, self._skeletons[row])
        if kind == "joined":
            content += dice.choice(self._models)[: dice.randrange(1, 50_000)]
        return kind, bytes(content)


def _flip(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    for _ in range(dice.choice([1, 4, 64])):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def _flip_bones(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    for _ in range(dice.choice([1, 1, 2, 8])):
        content[dice.choice(bones)] ^= 1 << dice.randrange(8)


def _extremes(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    for _ in range(dice.choice([1, 1, 2])):
        at = min(dice.choice(bones), len(content) - 4)
        struct.pack_into("<I", content, at, dice.choice([*_EXTREMES, dice.getrandbits(32)]))


def _near_bones(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    """Shapes, quantization and options lie between the offsets."""
    for _ in range(dice.choice([1, 1, 3, 10])):
        at = min(len(content) - 1, max(0, dice.choice(bones) + dice.randrange(-48, 48)))
        content[at] = dice.choice([0, 1, 127, 128, 255, dice.randrange(256)])


def _cut(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    del content[dice.randrange(len(content)) :]


def _zeros(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    at, length = dice.randrange(len(content)), dice.choice([4, 64, 4096])
    content[at : at + length] = bytes(len(content[at : at + length]))


def _swapped(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    length = min(dice.choice([64, 512, 4096]), len(content) // 4)
    first, second = dice.randrange(len(content) - length), dice.randrange(len(content) - length)
    piece = content[first : first + length]
    content[first : first + length] = content[second : second + length]
    content[second : second + length] = piece


def _inserted(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    at = dice.randrange(len(content))
    content[at:at] = dice.choice([b"\r", bytes(3), bytes(64)])


def _deleted(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    at = dice.randrange(len(content))
    del content[at : at + dice.choice([1, 4, 512])]


def _text_mode(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    """What a copy as text does to a binary file."""
    content[:] = content.replace(b"\n", b"\r\n") if dice.random() < 0.5 else content.replace(b"\r", b"")


def _other_format(content: bytearray, dice: random.Random, bones: Sequence[int]) -> None:
    front = dice.choice(_FRONTS)
    content[: len(front)] = front


_KINDS = {
    "bits flipped": _flip,
    "skeleton flipped": _flip_bones,
    "skeleton overwritten": _extremes,
    "between the skeleton": _near_bones,
    "cut": _cut,
    "zeros": _zeros,
    "swapped": _swapped,
    "inserted": _inserted,
    "deleted": _deleted,
    "copied as text": _text_mode,
    "another format": _other_format,
    "joined": lambda content, dice, bones: None,
}
