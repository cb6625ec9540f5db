"""A lesson: pictures as embeddings with their truths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.datasets.classes import TABLE
from edge_mnv2.datasets.labelled_pictures import (
    CLASSIFICATION,
    REGRESSION,
    Dataset,
    Example,
    class_folders,
    digest,
)
from edge_mnv2.errors import ModelError, SourceError, UsageError
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.teach.embedding import Embedder, Layer
from edge_mnv2.teach.lesson_memory import LessonMemory, recall
from edge_mnv2.teach.lesson_request import LessonRequest, check, check_truths, hold_out, hold_out_values, read_lesson
from edge_mnv2.teach.open_set import KNOWN, negative_pictures
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved, resolve

Say = Callable[[str], None]
Progress = Callable[[int, int], None]

_VARIATIONS = 3
_MANY = 400
"""With more pictures than this each gets fewer variations: time on a small board goes into embedding."""
_MANY_MEASURED = (80, 160)
"""With more pictures of a value than this one variation each, and none: maps are large, and memory small."""


@dataclass
class Lesson:
    """Pictures, embeddings and truths. Arrays have one entry a picture, except `codes` and `picture`: one an embedding.

    The first embedding of a picture is of the picture as it is. `layers` says what a row of `codes` holds.
    """

    request: LessonRequest
    backbone: Resolved
    resize: str
    task: str
    head: str
    classes: tuple[str, ...]
    layers: list[Layer]
    codes: np.ndarray
    picture: np.ndarray
    truth: np.ndarray
    held_out: np.ndarray
    names: list[str]
    digests: list[str]
    paths: list[Optional[Path]]
    hashes: list[int]
    brightness: list[float]
    negatives: np.ndarray
    """`codes` of pictures without any object (none for a value)."""
    others: dict[str, np.ndarray] = field(default_factory=dict)
    """By their sha256, `codes` of pictures of which a person said that they show none of the classes."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.classes) if self.task == CLASSIFICATION else 1

    @property
    def first(self) -> np.ndarray:
        """For each picture the place of its own embedding in `codes`."""
        return np.unique(self.picture, return_index=True)[1]

    @property
    def mirrored(self) -> np.ndarray:
        """For each of `codes` whether it is of a mirrored variation: every other one of a picture of a class."""
        number = np.arange(len(self.picture)) - self.first[self.picture]
        return (number % 2 == 1) & (self.task == CLASSIFICATION)

    def places(self, pictures: np.ndarray) -> np.ndarray:
        """Places in `codes` of every embedding of `pictures`."""
        return np.flatnonzero(np.isin(self.picture, pictures))

    def memory(self, about: dict[str, Any], layer: Layer) -> LessonMemory:
        """What the file remembers: the embeddings of the layer that its head reads."""
        codes, picture = layer.of(self.codes), self.picture
        if self.task == REGRESSION:
            # Maps are large; their variations are not worth the room.
            codes, picture = codes[self.first], np.arange(len(self.truth))
        others = layer.of(np.stack(list(self.others.values()))) if self.others else None
        return LessonMemory(
            about, codes, picture, self.truth, self.held_out, self.names, self.digests, others, list(self.others)
        )


def learn(request: LessonRequest, say: Say, progress: Progress) -> tuple[Lesson, Embedder]:
    """Read and embed the pictures; `progress` is called with pictures done and their number.

    The caller closes the embedder. Raises as `read_pictures`, `resolve` and `recall`.
    """
    check(request)
    before = recall(request.add) if request.add is not None else None
    about = before.about if before is not None else {}
    extending, task = before is not None, _task(request, about)
    pictures = read_lesson(request.folder, task, extending=extending, collected=request.collected)
    if before is not None and pictures.task != about["task"]:
        raise UsageError(f"--add {request.add} is a {about['task']}, and {request.folder} holds a {pictures.task}")
    backbone = _backbone(request, about)
    resize = request.resize or about.get("resize") or backbone.preprocess.resize or "crop"
    if resize != about.get("resize", resize):
        raise UsageError(
            f"--resize {resize}: --add {request.add} was taught with {about['resize']}", hint="leave --resize out"
        )
    if request.out is not None and request.out.exists() and request.out.samefile(backbone.path):
        raise UsageError(f"--out {request.out} is the backbone itself", hint="give another name")
    unknown = about.get("unknown", True) if request.unknown is None else request.unknown
    known = request.known or about.get("known") or KNOWN
    request = replace(request, unit=request.unit or about.get("unit"), unknown=unknown, known=known)
    for note in pictures.notes:
        say(note)
    scaling = request.scaling
    if saved := about.get("scaling"):
        scaling = ModelOptions(mean=tuple(saved["mean"]), std=tuple(saved["std"]))
    embedder = Embedder(
        backbone,
        scaling=scaling,
        operators=about.get("operators"),
        # A compiled extractor ends in the average pool; maps cannot be had from it.
        maps=pictures.task == REGRESSION and request.compiled is None and before is None,
        resize=resize,
        runtime=request.runtime,
        threads=request.threads,
    )
    for note in embedder.notes:
        say(note)
    try:
        return _embed(request, pictures, embedder.model, resize, embedder, before, say, progress), embedder
    except BaseException:
        embedder.close()
        raise


def _task(request: LessonRequest, about: dict[str, Any]) -> Optional[str]:
    """What the pictures are for, None where they say so themselves. Raises UsageError where they cannot extend."""
    if request.collected:
        return CLASSIFICATION
    if request.task is not None or not about or (request.folder / TABLE).is_file():
        return request.task
    if about["task"] == REGRESSION and request.folder.is_dir() and class_folders(request.folder):
        raise UsageError(
            f"--add {request.add} is a regression, and {request.folder} holds one folder a class",
            hint="give --task regression if its file names begin with values",
        )
    return str(about["task"])


def _backbone(request: LessonRequest, about: dict[str, Any]) -> Resolved:
    taught_on = about.get("backbone", {})
    name = request.model or DEFAULT_MODEL
    if taught_on and request.model is None:
        name = taught_on["path"] if Path(taught_on["path"]).is_file() else taught_on["model"]
    backbone = resolve(name)
    if taught_on and backbone.sha256 != taught_on["sha256"]:
        raise ModelError(
            f"--add {request.add} was taught on {taught_on['model']} with sha256 {taught_on['sha256'][:12]}, "
            f"and {name} now has {backbone.sha256[:12]}",
            hint="give the old backbone with --model, or teach again from all pictures",
        )
    return backbone


def _embed(
    request: LessonRequest,
    pictures: Dataset,
    backbone: Resolved,
    resize: str,
    embedder: Embedder,
    before: Optional[LessonMemory],
    say: Say,
    progress: Progress,
) -> Lesson:
    from edge_mnv2.camera.still import read_still

    about = before.about if before is not None else {}
    classes = tuple(about.get("classes", ()))
    classes += tuple(name for name in pictures.classes if name not in classes)
    renumbered = [classes.index(name) for name in pictures.classes]
    codes: list[np.ndarray] = list(before.codes) if before is not None else []
    picture: list[int] = before.picture.tolist() if before is not None else []
    truth: list[float] = before.truth.tolist() if before is not None else []
    names, digests = (list(before.names), list(before.digests)) if before is not None else ([], [])
    old = len(truth)
    paths: list[Optional[Path]] = [None] * old
    hashes, brightness = [0] * old, [0.0] * old
    failures: list[tuple[str, str]] = []
    random = np.random.default_rng(request.seed)
    variations = 0
    total = len(pictures.examples) + len(pictures.others)
    if request.variations:
        variations = _VARIATIONS if total <= _MANY else 1
        if pictures.task == REGRESSION:
            variations = (_VARIATIONS, 1, 0)[sum(total > many for many in _MANY_MEASURED)]
    for number, one in enumerate(pictures.examples):
        progress(number, total)
        try:
            content = digest(one.path)
            if content in digests:
                _same_again(digests.index(content), one, truth, names, classes, renumbered)
                say(f"{one.name} was taught before: it counts once")
                continue
            measured = pictures.task == REGRESSION
            sample = embedder.sample(read_still(one.path), variations, random, measured=measured)
        except SourceError as error:
            failures.append((one.name, str(error)))
            say(f"edge-mnv2: error: {error}")
            continue
        place = len(truth)
        codes += [sample.codes, *sample.variations]
        picture += [place] * (1 + len(sample.variations))
        truth.append(renumbered[int(one.value)] if pictures.classes else one.value)
        names.append(one.name)
        digests.append(content)
        paths.append(one.path)
        hashes.append(sample.hash)
        brightness.append(sample.brightness)
    others = _others(pictures, before, digests, embedder, failures, say)
    progress(total, total)
    truths = np.array(truth, np.float64)
    check_truths(request, pictures.task, classes, truths, failures)
    new = truths[old:]
    if pictures.task == CLASSIFICATION:
        held = hold_out(new, request.holdout, request.seed)
    else:
        held = hold_out_values(new, request.holdout, request.seed)
    held_out = np.zeros(len(truths), bool)
    held_out[old + held] = True
    if before is not None:
        held_out[:old] = before.held_out
    head = request.head or about.get("head") or "softmax"
    return Lesson(
        request,
        backbone,
        resize,
        pictures.task,
        head if pictures.task == CLASSIFICATION else "linear",
        classes,
        embedder.layers,
        np.stack(codes),
        np.array(picture),
        truths,
        held_out,
        names,
        digests,
        paths,
        hashes,
        brightness,
        np.array([embedder.codes(one) for one in (negative_pictures() if pictures.classes else [])]),
        others,
        failures,
    )


def _others(
    pictures: Dataset,
    before: Optional[LessonMemory],
    taught: Sequence[str],
    embedder: Embedder,
    failures: list[tuple[str, str]],
    say: Say,
) -> dict[str, np.ndarray]:
    """`Lesson.others`, those of the model that is extended included. What is `taught` a class by now is none of them.

    Raises UsageError for a picture that was taught as one of the classes.
    """
    from edge_mnv2.camera.still import read_still

    known = set(taught)
    others: dict[str, np.ndarray] = {}
    if before is not None and before.others is not None:
        others = dict(zip(before.other_digests, before.others))
    for path in pictures.others:
        try:
            content = digest(path)
            if content in known:
                raise UsageError(
                    f"{path.name} is none of the classes, and the same picture was taught as one of them",
                    hint="keep the answer that is right",
                )
            if content not in others:
                others[content] = embedder.codes(read_still(path))
        except SourceError as error:
            failures.append((path.name, str(error)))
            say(f"edge-mnv2: error: {error}")
    return {content: codes for content, codes in others.items() if content not in known}


def _same_again(
    place: int, one: Example, truth: list[float], names: list[str], classes: tuple[str, ...], renumbered: list[int]
) -> None:
    """Raises UsageError if a picture that was taught before now has another truth."""
    now = renumbered[int(one.value)] if classes else one.value
    if now == truth[place]:
        return
    was, becomes = (classes[int(known)] if classes else f"{known:g}" for known in (truth[place], now))
    raise UsageError(
        f"{one.name} is '{becomes}', and the same picture was taught as '{was}' ({names[place]})",
        hint="keep the one that is right",
    )
