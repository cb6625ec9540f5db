"""1500 damaged label files: each is read, or refused in one line."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from edge_mnv2 import paths
from edge_mnv2.errors import LabelsError
from edge_mnv2.zoo.labels import fit_labels, parse_labels

LISTS = {"imagenet": 1000, "inat_bird": 965}
CASES = 1500


def _cut(content: bytearray, dice: random.Random) -> None:
    del content[dice.randrange(len(content)) :]


def _flip(content: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice([1, 8, 200])):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def _zeros(content: bytearray, dice: random.Random) -> None:
    at, length = dice.randrange(len(content)), dice.choice([1, 64, 4096])
    content[at : at + length] = bytes(length)


def _insert(content: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(content))
    piece = [b"\r", b"\n", b"\n\n", b"\0", b"\xef\xbb\xbf", b"\x85", b"\xe2\x80\xa8", b"\x1b[31m", b"background\n"]
    content[at:at] = dice.choice(piece)


def _delete(content: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(content))
    del content[at : at + dice.choice([1, 5, 100])]


def _join(content: bytearray, dice: random.Random) -> None:
    content += content[: dice.randrange(len(content))]


def _other_format(content: bytearray, dice: random.Random) -> None:
    front = [
        b"<!DOCTYPE html>",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"\x89PNG\r\n\x1a\n",
        b"{\n",
        b"\xff\xfe",
        b"\x1c\0\0\0TFL3",
    ]
    content[:0] = dice.choice(front)


def _recode(content: bytearray, dice: random.Random) -> None:
    text = content.decode()
    content[:] = text.encode(dice.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp500"]))


def _number(content: bytearray, dice: random.Random) -> None:
    lines = content.decode().splitlines()
    numbered = [f"{row}{dice.choice([' ', ':', chr(9)])}{line}" for row, line in enumerate(lines)]
    if dice.random() < 0.5:
        del numbered[dice.randrange(len(numbered))]
    dice.shuffle(numbered)
    content[:] = "\r\n".join(numbered).encode()


DAMAGE = [_cut, _flip, _zeros, _insert, _delete, _join, _other_format, _recode, _number]


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTS)
def test_damaged_label_files_are_read_or_refused_in_one_line(name: str) -> None:
    original = paths.packaged("models", "labels", f"{name}.txt").read_bytes()
    outcomes: Counter[str] = Counter()
    for case in range(CASES // len(LISTS)):
        dice = random.Random(f"{name} {case}")
        content = bytearray(original)
        for damage in dice.sample(DAMAGE, dice.choice([1, 1, 2])):
            try:
                damage(content, dice)
            except (UnicodeError, ValueError, IndexError):
                continue
        try:
            labels, _ = fit_labels(parse_labels(bytes(content), "x.txt"), LISTS[name])
        except LabelsError as error:
            assert error.exit_code == 3
            assert len(str(error)) < 300 and str(error).isprintable()
            outcomes["refused"] += 1
            continue
        assert len(labels) == LISTS[name]
        assert all(label == label.strip() and label and "\n" not in label for label in labels)
        outcomes["read"] += 1
    assert outcomes["refused"] > CASES // 8 and outcomes["read"] > CASES // 20


def test_files_of_other_kinds_are_no_labels(data: Path) -> None:
    for path in [*sorted((data / "models").iterdir()), *sorted((data / "images").iterdir())]:
        with pytest.raises(LabelsError):
            parse_labels(path.read_bytes(), path.name)
