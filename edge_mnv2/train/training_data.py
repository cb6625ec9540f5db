"""A data set for training: its pictures, their truths, which are held out for validation, and random views of them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_mnv2.datasets.classes import LEARNED_COLUMNS, TABLE, Classes
from edge_mnv2.datasets.labelled_pictures import (
    Answers,
    Example,
    check_span,
    class_folders,
    own_answers,
    read_dataset,
)
from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.evaluate.metrics import NEAR_ZERO

TRAIN, VALIDATION = "train", "val"

AUGMENTATIONS = ("crop", "flip", "colour")

_RATIO = (3 / 4, 4 / 3)
_COLOUR = 0.3
_TRIES = 10
_UNBALANCED = 3
_SMALL = 0.05
"""Share of the median value below which a value is named for relative errors; up to `NEAR_ZERO` it is refused."""


@dataclass(frozen=True)
class TrainingData:
    """`classes` are the labels by class index, empty for a measured value; `notes` are sentences for a person."""

    folder: Path
    pictures: Path
    classes: tuple[str, ...]
    train: list[Example]
    validation: list[Example]
    notes: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> int:
        return len(self.classes) or 1

    def digest(self) -> str:
        """What tells this data set from another: names and truths in order, not the pixels."""
        text = repr([[(one.name, one.truth) for one in part] for part in (self.train, self.validation)])
        return hashlib.sha256(text.encode()).hexdigest()

    def class_counts(self) -> np.ndarray:
        """Training pictures of each class."""
        return np.bincount([int(one.truth) for one in self.train if isinstance(one.truth, int)], minlength=self.outputs)

    def values(self) -> np.ndarray:
        """The training values of a regression, float64 (pictures,)."""
        return np.array([one.value for one in self.train])

    def unvalidated(self) -> list[str]:
        """Classes without a validation picture: no figure says how well they are recognized."""
        validated = {one.truth for one in self.validation}
        return [name for index, name in enumerate(self.classes) if index not in validated]


def read_training_data(folder: Path, task: str, share: float, seed: int) -> TrainingData:
    """The pictures below `folder`: `train/` and `val/` if they exist, else one set of which `share` is held out.

    Each set is one folder a class, or a `labels.csv` (`file,label` or `file,class_index`; `file,value` for a
    regression). Raises SourceError without pictures, UsageError for what cannot be learned from.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder}: {'is a file, not a folder' if folder.exists() else 'no such folder'}")
    if not 0 < share < 1:
        raise UsageError(f"--val-share {share:g}", hint="a share above 0 and below 1")
    root = folder / TRAIN if (folder / TRAIN).is_dir() else folder
    if root == folder and (folder / VALIDATION).is_dir():
        raise UsageError(f"{folder} has {VALIDATION}/ but no {TRAIN}/", hint="put the training pictures into train/")
    answers = _answers(root, task)
    notes: list[str] = []
    pictures = _read(root, answers, notes)
    separate = folder / VALIDATION
    if root != folder and separate.is_dir():
        _check_folders(separate, answers)
        train, validation = pictures, _read(separate, answers, notes)
    else:
        train, validation = split(pictures, share, seed)
        notes.append(
            f"no {VALIDATION}/ in {folder}: {len(validation)} of {len(pictures)} pictures, chosen by seed {seed}, "
            "are held out for validation"
        )
    classes = answers.labels if isinstance(answers, Classes) else ()
    data = TrainingData(folder, root, classes, train, validation, notes)
    _check(data, task)
    return data


def split(pictures: list[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(train, validation): `share` of each class for validation, one at least where a class has two pictures.

    The choice depends on the seed and on the order of the pictures, on nothing else.
    """
    groups: dict[object, list[int]] = {}
    for position, picture in enumerate(pictures):
        groups.setdefault(picture.truth if isinstance(picture.truth, int) else None, []).append(position)
    chance = np.random.default_rng([seed, len(pictures)])
    held_out: set[int] = set()
    for positions in groups.values():
        count = min(len(positions) - 1, max(1, round(share * len(positions))))
        held_out.update(chance.permutation(positions)[:count].tolist())
    parts: tuple[list[Example], list[Example]] = ([], [])
    for position, picture in enumerate(pictures):
        parts[position in held_out].append(picture)
    return parts


def _read(root: Path, answers: Answers, notes: list[str]) -> list[Example]:
    dataset = read_dataset(root, answers, LEARNED_COLUMNS)
    notes.extend(dataset.notes)
    once = {picture.name: picture for picture in dataset.examples}
    if len(once) < len(dataset.examples):
        notes.append(f"{root / TABLE} names {len(dataset.examples) - len(once)} pictures more than once: used once")
    return list(once.values())


def _answers(root: Path, task: str) -> Answers:
    answers = own_answers(root, task)
    if not isinstance(answers, Classes):
        if not (root / TABLE).is_file() and class_folders(root):
            raise UsageError(f"{root} has no {TABLE}, and one folder a class", hint=f"write {TABLE} (file,value)")
        return answers
    twins = [name for name, count in Counter(_key(name) for name in answers.labels).items() if count > 1]
    if twins and not (root / TABLE).is_file():
        names = [name for name in answers.labels if _key(name) == twins[0]]
        raise UsageError(
            f"{root}: the folders {' and '.join(names)} are the same label", hint="put their pictures into one folder"
        )
    return answers


def _key(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _check_folders(separate: Path, answers: Answers) -> None:
    if not isinstance(answers, Classes) or (separate / TABLE).is_file():
        return
    known = {_key(name) for name in answers.labels}
    for entry in class_folders(separate):
        if _key(entry.name) not in known:
            raise UsageError(
                f"{entry}: no folder {TRAIN}/{entry.name}", hint="both sets need the same classes, one folder each"
            )


def _check(data: TrainingData, task: str) -> None:
    if task == "classification":
        _check_classes(data)
    for name, part in ((TRAIN, data.train), (VALIDATION, data.validation)):
        if not part:
            raise UsageError(f"{data.folder}: no pictures are left for {name}", hint="two pictures a class at least")
    if task == "regression":
        if float(np.ptp(data.values())) == 0:
            raise UsageError(f"{data.folder}: every training value is {data.values()[0]:g}", hint="nothing to learn")
        check_span(data.folder, [one.value for one in (*data.train, *data.validation)])


def _check_classes(data: TrainingData) -> None:
    if len(data.classes) < 2:
        name = data.classes[0] if data.classes else "none"
        raise UsageError(
            f"{data.folder} has one class only ({name})",
            hint="two at least; to tell one thing from all else, add a folder of all else",
        )
    counts = data.class_counts()
    empty = [name for name, count in zip(data.classes, counts) if not count]
    if empty:
        raise UsageError(f"{data.folder}: class {empty[0]} has no training picture", hint="add some, or remove it")
    unvalidated = data.unvalidated()
    if data.validation and len(data.classes) - len(unvalidated) < 2:
        raise UsageError(
            f"{data.folder}: no validation picture of {', '.join(unvalidated[:5])}: with one class left, an accuracy "
            "means nothing",
            hint="give every class two pictures at least",
        )
    if unvalidated:
        data.notes.append(
            f"no validation picture of {', '.join(unvalidated[:5])}{', ...' if len(unvalidated) > 5 else ''}: the "
            "accuracy says nothing about it; give every class two pictures at least"
        )
    if counts.max() > _UNBALANCED * counts.min():
        most, least = data.classes[int(counts.argmax())], data.classes[int(counts.argmin())]
        data.notes.append(
            f"unbalanced: {counts.max()} pictures of {most}, {counts.min()} of {least}; "
            "--class-weights balanced counts every class alike"
        )


def check_relative_values(data: TrainingData) -> None:
    """For a loss that divides by the value. Raises UsageError for a value at or near 0; notes those that dominate.

    A picture counts 1 / |value|: at a thousandth of the median it counts as a thousand pictures, and the network learns
    to answer about 0 everywhere.
    """
    pictures = [*data.train, *data.validation]
    sizes = np.abs([one.value for one in pictures])
    median = float(np.median(sizes))
    smallest = pictures[int(sizes.argmin())]
    if sizes.min() <= NEAR_ZERO * median:
        raise UsageError(
            f"--loss mape divides by the value, and {smallest.name} has {smallest.value:g}",
            hint="--loss rmse or mse, or leave out values at and near 0",
        )
    if sizes.min() < _SMALL * median:
        few = int(np.sum(sizes < _SMALL * median))
        data.notes.append(
            f"--loss mape: {smallest.name} with the value {smallest.value:g} counts as much as "
            f"{median / sizes.min():.0f} pictures of the median value {median:g}; "
            f"{few} of {len(sizes)} values are that small. --loss rmse counts all alike"
        )


def class_weights(counts: np.ndarray) -> np.ndarray:
    """One weight a class so that every class counts alike: pictures / (classes * pictures of the class)."""
    return counts.sum() / (len(counts) * counts)


@dataclass(frozen=True)
class Augmentation:
    """`crop`: a random part of at least `least_area` of the picture, its sides 3:4 to 4:3; `flip`: half of the pictures
    left to right; `colour`: brightness, contrast and saturation times 0.7 to 1.3."""

    crop: bool = True
    flip: bool = True
    colour: bool = True
    least_area: float = 0.35

    @classmethod
    def parse(cls, text: str, least_area: float = 0.35) -> Augmentation:
        """From `crop,flip,colour`, any of them, or `none`. Raises UsageError."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        unknown = [word for word in words if word not in (*AUGMENTATIONS, "none")]
        if unknown or not words or ("none" in words and len(words) > 1):
            raise UsageError(f"--augment {text}", hint=f"some of {','.join(AUGMENTATIONS)}, or none")
        if not 0 < least_area <= 1:
            raise UsageError(f"--least-area {least_area:g}", hint="a share of the picture above 0, at most 1")
        return cls("crop" in words, "flip" in words, "colour" in words, least_area)

    def views(self, pixels: np.ndarray, sizes: Sequence[int], key: Sequence[int]) -> list[np.ndarray]:
        """One view of `pixels` (HxWx3 RGB uint8) as square pictures of each of `sizes`; `key` seeds the chance."""
        from PIL import Image, ImageEnhance, ImageOps

        chance = np.random.default_rng(list(key))
        image = Image.fromarray(pixels)
        box = self._box(image.width, image.height, chance)
        flipped = self.flip and chance.random() < 0.5
        order, factors = chance.permutation(3), chance.uniform(1 - _COLOUR, 1 + _COLOUR, 3)
        views = []
        for size in sizes:
            view = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
            if flipped:
                view = ImageOps.mirror(view)
            if self.colour:
                enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
                for kind in order:
                    view = enhancers[kind](view).enhance(float(factors[kind]))
            views.append(np.asarray(view))
        return views

    def _box(self, width: int, height: int, chance: np.random.Generator) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the part to take (Szegedy et al. 2015, "Going Deeper with Convolutions")."""
        if self.crop:
            for _ in range(_TRIES):
                area = width * height * chance.uniform(self.least_area, 1.0)
                ratio = math.exp(chance.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
                wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
                if wide <= width and high <= height:
                    left, top = chance.uniform(0, width - wide), chance.uniform(0, height - high)
                    return left, top, min(width, left + wide), min(height, top + high)
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
