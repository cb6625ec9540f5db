"""A data set for training: which pictures, what is true of them, and what is kept for validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

import numpy as np

from edge_mnv2.datasets.classes import Classes
from edge_mnv2.datasets.dataset import TABLE, Dataset, Example, read_dataset, read_table
from edge_mnv2.datasets.lesson_pictures import class_folders
from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.zoo.labels import read_labels

TRAIN, VALIDATION = "train", "val"
VALUE = "value"

_UNBALANCED = 3


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
        return np.array([one.truth[0] for one in self.train if not isinstance(one.truth, int)])


def read_training_data(folder: Path, task: str, share: float, seed: int) -> TrainingData:
    """The pictures below `folder`: `train/` and `val/` where they are, else one set of which `share` is kept.

    Each set is one folder a class, or a `labels.csv` (`file,label` or `file,class_index`; `file,value` for a
    regression). Raises SourceError where there is nothing, UsageError for what cannot be learned from.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder}: {'is a file, not a folder' if folder.exists() else 'no such folder'}")
    if not 0 < share < 1:
        raise UsageError(f"--val-share {share:g}", hint="a share above 0 and below 1")
    root = folder / TRAIN if (folder / TRAIN).is_dir() else folder
    if root == folder and (folder / VALIDATION).is_dir():
        raise UsageError(f"{folder} has {VALIDATION}/ but no {TRAIN}/", hint="put the training pictures into train/")
    classes = _classes(root) if task == "classification" else None
    notes: list[str] = []
    pictures = _read(root, classes, notes)
    kept = folder / VALIDATION
    if root != folder and kept.is_dir():
        _check_folders(kept, classes)
        train, validation = pictures, _read(kept, classes, notes)
    else:
        train, validation = split(pictures, share, seed)
        notes.append(
            f"no {VALIDATION}/ in {folder}: {len(validation)} of {len(pictures)} pictures, chosen by seed {seed}, "
            "are kept for validation"
        )
    data = TrainingData(folder, root, classes or (), train, validation, notes)
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
    kept: set[int] = set()
    for positions in groups.values():
        count = min(len(positions) - 1, max(1, round(share * len(positions))))
        kept.update(chance.permutation(positions)[:count].tolist())
    parts: tuple[list[Example], list[Example]] = ([], [])
    for position, picture in enumerate(pictures):
        parts[position in kept].append(picture)
    return parts


def _read(root: Path, classes: Optional[tuple[str, ...]], notes: list[str]) -> list[Example]:
    answers: Union[Classes, list[str]] = Classes(classes, 0, len(classes)) if classes is not None else [VALUE]
    dataset: Dataset = read_dataset(root, answers)
    notes.extend(dataset.notes)
    once = {picture.name: picture for picture in dataset.examples}
    if len(once) < len(dataset.examples):
        notes.append(f"{root / TABLE} names {len(dataset.examples) - len(once)} pictures more than once: used once")
    return list(once.values())


def _classes(root: Path) -> tuple[str, ...]:
    if (root / TABLE).is_file():
        return _classes_of_table(root)
    names = [entry.name for entry in class_folders(root)]
    same = [name for name, count in Counter(_key(name) for name in names).items() if count > 1]
    if same:
        twins = [name for name in names if _key(name) == same[0]]
        raise UsageError(
            f"{root}: the folders {' and '.join(twins)} are the same label", hint="put their pictures into one folder"
        )
    return tuple(name.strip() for name in names)


def _key(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _classes_of_table(root: Path) -> tuple[str, ...]:
    """The label column's names in order, or for class indices the names in `labels.txt` beside the table."""
    columns, rows = read_table(root / TABLE)
    if "label" in columns:
        return tuple(sorted({row["label"] for _, row in rows if row.get("label")}))
    if "class_index" not in columns:
        hint = "--task regression learns the value" if VALUE in columns else "it needs file,label or file,class_index"
        raise UsageError(f"{root / TABLE} has no column label or class_index", hint=hint)
    named = root / "labels.txt"
    if named.is_file():
        return tuple(read_labels(named))
    indices = [int(row["class_index"]) for _, row in rows if row.get("class_index", "").isdecimal()]
    return tuple(str(index) for index in range(max(indices, default=-1) + 1))


def _check_folders(kept: Path, classes: Optional[tuple[str, ...]]) -> None:
    if classes is None or (kept / TABLE).is_file():
        return
    known = {_key(name) for name in classes}
    for entry in sorted(kept.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and _key(entry.name) not in known:
            raise UsageError(
                f"{entry}: no folder {TRAIN}/{entry.name}", hint="both sets need the same classes, one folder each"
            )


def _check(data: TrainingData, task: str) -> None:
    if task == "classification":
        _check_classes(data)
    for name, part in ((TRAIN, data.train), (VALIDATION, data.validation)):
        if not part:
            raise UsageError(f"{data.folder}: no pictures are left for {name}", hint="two pictures a class at least")
    if task == "regression" and float(np.ptp(data.values())) == 0:
        raise UsageError(f"{data.folder}: every training value is {data.values()[0]:g}", hint="nothing to learn")


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
        raise UsageError(f"{data.folder}: class {empty[0]} has no training picture", hint="add some, or take it away")
    if counts.max() > _UNBALANCED * counts.min():
        most, least = data.classes[int(counts.argmax())], data.classes[int(counts.argmin())]
        data.notes.append(
            f"unbalanced: {counts.max()} pictures of {most}, {counts.min()} of {least}; "
            "--class-weights balanced counts every class alike"
        )


def class_weights(counts: np.ndarray) -> np.ndarray:
    """One weight a class so that every class counts alike: pictures / (classes * pictures of the class)."""
    return counts.sum() / (len(counts) * counts)
