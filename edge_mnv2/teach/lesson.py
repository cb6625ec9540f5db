"""From a folder of pictures to a taught model file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.datasets.dataset import TABLE
from edge_mnv2.datasets.lesson_pictures import (
    CLASSIFICATION,
    REGRESSION,
    Picture,
    PictureSet,
    class_folders,
    digest,
    read_pictures,
)
from edge_mnv2.errors import ModelError, SourceError, UsageError
from edge_mnv2.teach import nothing
from edge_mnv2.teach.embedding import Embedder, Layer
from edge_mnv2.teach.memory import Memory, recall
from edge_mnv2.teach.optimizers import OPTIMIZERS
from edge_mnv2.teach.split import hold_out, hold_out_values
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved, resolve

HEADS = ("softmax", "imprint")
Say = Callable[[str], None]
Progress = Callable[[int, int], None]

_VARIATIONS = 3
_MANY = 400
"""With more pictures than this each gets fewer variations: time on a small board goes into embedding."""
_SPANS, _MOST_SPANS = (1e-12, 1e12), 1e5
"""How far values may lie apart, and how many times that from zero: more is beyond what a model's numbers resolve."""
_MANY_MEASURED = (80, 160)
"""With more pictures of a value than this one variation each, and none: maps are large, and memory small."""


@dataclass(frozen=True)
class Request:
    """What to teach. None: by the pictures, by the model that is extended, or the usual."""

    folder: Path
    out: Optional[Path] = None
    model: Optional[str] = None
    task: Optional[str] = None
    head: Optional[str] = None
    optimizer: Optional[str] = None
    holdout: float = 0.2
    seed: int = 0
    add: Optional[Path] = None
    variations: bool = True
    unknown: Optional[bool] = None
    unit: Optional[str] = None
    compiled: Optional[Path] = None
    resize: Optional[str] = None
    runtime: str = "auto"
    threads: int = 1


@dataclass
class Lesson:
    """Everything that was seen. Arrays have one entry a picture, except `codes` and `picture`: one an embedding.

    The first embedding of a picture is of the picture as it is. `layers` says what a row of `codes` holds.
    """

    request: Request
    found: Resolved
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
    nothing: np.ndarray
    """`codes` of pictures that show nothing (none for a value)."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return len(self.classes) if self.task == CLASSIFICATION else 1

    @property
    def first(self) -> np.ndarray:
        """For each picture the place of its own embedding in `codes`."""
        return np.unique(self.picture, return_index=True)[1]

    def places(self, pictures: np.ndarray) -> np.ndarray:
        """Places in `codes` of every embedding of `pictures`."""
        return np.flatnonzero(np.isin(self.picture, pictures))

    def memory(self, about: dict[str, Any], layer: Layer) -> Memory:
        """What the file shall remember: the embeddings of the layer that its head reads."""
        codes, picture = layer.of(self.codes), self.picture
        if self.task == REGRESSION:
            # Maps are large; their variations are not worth the room.
            codes, picture = codes[self.first], np.arange(len(self.truth))
        return Memory(about, codes, picture, self.truth, self.held_out, self.names, self.digests)


def check(request: Request) -> None:
    """Raises UsageError for what cannot be asked for."""
    if request.head is not None and request.head not in HEADS:
        raise UsageError(f"--head {request.head}", hint=f"one of {', '.join(HEADS)}")
    if request.optimizer is not None and request.optimizer not in ("closed", *OPTIMIZERS):
        raise UsageError(f"--optimizer {request.optimizer}", hint=f"one of {', '.join(('closed', *OPTIMIZERS))}")
    if not 0 <= request.holdout < 1:
        raise UsageError(f"--holdout {request.holdout:g}", hint="a share from 0 to below 1")
    try:
        (request.unit or "").encode()
    except UnicodeEncodeError:
        raise UsageError("--unit is no text in UTF-8") from None


def learn(request: Request, say: Say, progress: Progress) -> tuple[Lesson, Embedder]:
    """Read and embed the pictures; `progress` is called with pictures done and their number.

    The caller closes the embedder. Raises as `read_pictures`, `resolve` and `recall`.
    """
    check(request)
    before = recall(request.add) if request.add is not None else None
    about = before.about if before is not None else {}
    pictures = read_pictures(request.folder, _task(request, about), 1 if before is not None else 2)
    if before is not None and pictures.task != about["task"]:
        raise UsageError(f"--add {request.add} is a {about['task']}, and {request.folder} holds a {pictures.task}")
    found = _backbone(request, about)
    resize = request.resize or about.get("resize") or found.preprocess.resize or "crop"
    if resize != about.get("resize", resize):
        raise UsageError(
            f"--resize {resize}: --add {request.add} was taught with {about['resize']}", hint="leave --resize out"
        )
    if request.out is not None and request.out.exists() and request.out.samefile(found.path):
        raise UsageError(f"--out {request.out} is the backbone itself", hint="give another name")
    unknown = about.get("unknown", True) if request.unknown is None else request.unknown
    request = replace(request, unit=request.unit or about.get("unit"), unknown=unknown)
    for note in pictures.notes:
        say(note)
    embedder = Embedder(
        found,
        operators=about.get("operators"),
        # A compiled extractor ends in the average pool; maps cannot be had from it.
        maps=pictures.task == REGRESSION and request.compiled is None and before is None,
        resize=resize,
        runtime=request.runtime,
        threads=request.threads,
    )
    try:
        return _embed(request, pictures, found, resize, embedder, before, say, progress), embedder
    except BaseException:
        embedder.close()
        raise


def _task(request: Request, about: dict[str, Any]) -> Optional[str]:
    """What the pictures are for, None where they say so themselves. Raises UsageError where they cannot extend."""
    if request.task is not None or not about or (request.folder / TABLE).is_file():
        return request.task
    if about["task"] == REGRESSION and request.folder.is_dir() and class_folders(request.folder):
        raise UsageError(
            f"--add {request.add} is a regression, and {request.folder} holds one folder a class",
            hint="give --task regression if its file names begin with values",
        )
    return str(about["task"])


def _backbone(request: Request, about: dict[str, Any]) -> Resolved:
    taught_on = about.get("backbone", {})
    name = request.model or DEFAULT_MODEL
    if taught_on and request.model is None:
        name = taught_on["path"] if Path(taught_on["path"]).is_file() else taught_on["model"]
    found = resolve(name)
    if taught_on and found.sha256 != taught_on["sha256"]:
        raise ModelError(
            f"--add {request.add} was taught on {taught_on['model']} with sha256 {taught_on['sha256'][:12]}, "
            f"and {name} now has {found.sha256[:12]}",
            hint="give the old backbone with --model, or teach again from all pictures",
        )
    return found


def _embed(
    request: Request,
    pictures: PictureSet,
    found: Resolved,
    resize: str,
    embedder: Embedder,
    before: Optional[Memory],
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
    total = len(pictures.pictures)
    if request.variations:
        variations = _VARIATIONS if total <= _MANY else 1
        if pictures.task == REGRESSION:
            variations = (_VARIATIONS, 1, 0)[sum(total > many for many in _MANY_MEASURED)]
    for number, one in enumerate(pictures.pictures):
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
        truth.append(renumbered[int(one.truth)] if pictures.task == CLASSIFICATION else one.truth)
        names.append(one.name)
        digests.append(content)
        paths.append(one.path)
        hashes.append(sample.hash)
        brightness.append(sample.brightness)
    progress(total, total)
    truths = np.array(truth, np.float64)
    _check_left(request, pictures.task, classes, truths, failures)
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
        found,
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
        _of_nothing(embedder, pictures.task),
        failures,
    )


def _of_nothing(embedder: Embedder, task: str) -> np.ndarray:
    shown = nothing.pictures() if task == CLASSIFICATION else []
    return np.array([embedder.codes(one) for one in shown])


def _same_again(
    place: int, one: Picture, truth: list[float], names: list[str], classes: tuple[str, ...], renumbered: list[int]
) -> None:
    """Raises UsageError where a picture that was taught before is now something else."""
    now = renumbered[int(one.truth)] if classes else one.truth
    if now == truth[place]:
        return
    was, becomes = (classes[int(known)] if classes else f"{known:g}" for known in (truth[place], now))
    raise UsageError(
        f"{one.name} is '{becomes}', and the same picture was taught as '{was}' ({names[place]})",
        hint="keep the one that is right",
    )


def _check_left(
    request: Request, task: str, classes: tuple[str, ...], truth: np.ndarray, failures: list[tuple[str, str]]
) -> None:
    if not len(truth):
        raise SourceError(f"{request.folder}: none of its {len(failures)} pictures could be read")
    if task == REGRESSION:
        if len(np.unique(truth)) < 2:
            raise UsageError(f"{request.folder} has pictures of one value only", hint="teach at least two values")
        if not _SPANS[0] < float(np.ptp(truth)) < _SPANS[1] or np.abs(truth).max() > _MOST_SPANS * np.ptp(truth):
            raise UsageError(
                f"{request.folder} has values from {truth.min():g} to {truth.max():g}",
                hint="give them in a unit in which they differ by something between 1e-12 and 1e12, near to zero",
            )
        return
    for row, name in enumerate(classes):
        if not np.any(truth == row):
            raise SourceError(f"none of the pictures of class '{name}' could be read")
