"""From what a person gives as `--model` to a verified file, its labels and what else is known about it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from edge_mnv2.errors import ModelError
from edge_mnv2.files import sha256_of
from edge_mnv2.paths import finish_writing
from edge_mnv2.zoo import cache, latest, registry
from edge_mnv2.zoo.entry import Entry
from edge_mnv2.zoo.model_facts import Measured, OpenSet, Preprocess
from edge_mnv2.zoo.sidecar import Sidecar, read_sidecar

log = logging.getLogger(__name__)

_MAGIC = b"TFL3"


@dataclass(frozen=True)
class Resolved:
    """A model file that is there and, where the registry knows it, is what the registry says.

    `name`: the registry's name, or the file's where the registry does not know it. `labels`: names as the list has
    them (`fit_labels` fits them to the outputs), None where there are none. `background`: "first", "last", "none" or
    None (not known). `sha256` is empty for a file that is no TensorFlow Lite model. `registry`: None for ours, else the
    team's address. `task` is None where nobody says it. `origin`: who says "labels", "task" and "preprocess", "sidecar"
    or "registry". `open_set` and `errors` are what `teach` measured (see `Measured`).
    """

    name: str
    path: Path
    sha256: str
    entry: Optional[Entry]
    labels: Optional[list[str]]
    background: Optional[str] = None
    task: Optional[str] = None
    preprocess: Preprocess = field(default_factory=Preprocess)
    unit: Optional[str] = None
    origin: Mapping[str, str] = field(default_factory=dict)
    open_set: Optional[OpenSet] = None
    errors: tuple[tuple[float, ...], ...] = ()

    @property
    def registry(self) -> Optional[str]:
        return self.entry.registry if self.entry is not None else None


def resolve(name_or_path: str) -> Resolved:
    """The model that `name_or_path` means. A registry's name comes first; write ./NAME for a file of the same name.

    Nothing is downloaded. The file's size and sha256 are checked (the hash only when the file has changed since it was
    last checked). Raises ModelError for an unknown name, a missing file or a damaged one, LabelsError for labels
    that cannot be read, ProfileError for a wrong team registry.
    """
    if not name_or_path.strip():
        raise ModelError("the model's name is empty", hint="`edge-mnv2 models list` shows the known names")
    if (newest := latest.name_of(name_or_path)) is not None:
        name_or_path = str(latest.home_of(newest))
        if not latest.home_of(newest).is_file():
            raise ModelError(
                f"{newest}@latest is not on this device yet", hint=f"`edge-mnv2 run --model {newest}@latest` fetches it"
            )
    known = registry.load()
    if name_or_path in known:
        return _by_name(known.get(name_or_path))
    path = Path(name_or_path).expanduser()
    try:
        finish_writing(path)
        there = path.exists() or path.is_symlink()
    except (OSError, ValueError):
        there = False
    if there:
        return _by_path(path, known)
    if os.sep in name_or_path or name_or_path.endswith(".tflite"):
        raise ModelError(f"{name_or_path}: no such file", hint=_instead(path, known))
    if known.near(name_or_path):
        raise ModelError(f"no model and no file is called '{name_or_path}'", hint=known.suggestion(name_or_path))
    return _by_name(known.get(name_or_path))


def _instead(path: Path, known: registry.Registry) -> str:
    if str(path).startswith(("http:/", "https:/")):
        return "a model is a file on this device: download it first"
    entry = known.by_file(path.name)
    if entry is not None:
        return f"`--model {entry.name}` means the model of that name"
    return known.suggestion(path.name[: -len(".tflite")] if path.name.endswith(".tflite") else path.name)


def _by_name(entry: Entry) -> Resolved:
    if entry.kind != "model":
        kind = "a clip" if entry.kind == "clip" else "a set of weights"
        raise ModelError(f"'{entry.name}' is {kind}, not a model", hint="`edge-mnv2 models list`")
    copy, damaged = cache.find(entry)
    if copy is not None:
        for bad in damaged:
            log.warning("%s is damaged (%s); %s is used instead", bad.copy.path, bad.problem, copy.path)
    if copy is None:
        packaged = entry.package_file is not None
        again = "install edge-mnv2 again" if packaged else f"edge-mnv2 pull {entry.name}"
        if damaged:
            raise ModelError(f"{damaged[0].copy.path} is damaged: {damaged[0].problem}", hint=again)
        if packaged:
            raise ModelError(f"{cache.copies(entry)[0].path} ships with edge-mnv2 and is missing", hint=again)
        verb = "built" if entry.recipe else "downloaded"
        raise ModelError(f"{entry.name} has not been {verb} on this device yet", hint=f"edge-mnv2 pull {entry.name}")
    if copy.place in ("mirror", "registry"):
        log.info("%s is used in place: %s (`edge-mnv2 pull %s` makes a copy)", entry.name, copy.path, entry.name)
    digest = entry.sha256 or sha256_of(copy.path)
    return _known(entry.name, copy.path, digest, entry, None)


def _by_path(path: Path, known: registry.Registry, *, again: bool = False) -> Resolved:
    if path.is_dir():
        saved = (path / "saved_model.pb").exists()
        hint = "convert it with TFLiteConverter" if saved else "name the .tflite file in it"
        raise ModelError(f"{path} is a {'TensorFlow SavedModel' if saved else 'folder'}, not a model file", hint=hint)
    if not path.exists():
        raise ModelError(f"{path} is a link to a file that is not there")
    if not path.is_file():
        raise ModelError(f"{path} is not a regular file")
    try:
        with path.open("rb") as handle:
            head = handle.read(8)
        digest = sha256_of(path) if head[4:] == _MAGIC else ""
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    entry = known.by_sha256(digest) if digest else None
    # A version that was stepped back to is known to be another one.
    if entry is None and not latest.is_home(path):
        _compare_with_namesake(path, size, known)
    sidecar = read_sidecar(path)
    if sidecar is not None and sidecar.sha256 and (digest or sha256_of(path)) not in sidecar.sha256:
        if not again:
            # Both files may just have been replaced, one of them after it was read.
            return _by_path(path, known, again=True)
        raise ModelError(
            f"{path} is not the model that {sidecar.path} was written for: its sha256 is another",
            hint="copy both files again, or remove the line `sha256:` if the labels still fit",
        )
    return _known(entry.name if entry else path.name, path, digest, entry, sidecar)


def _compare_with_namesake(path: Path, size: int, known: registry.Registry) -> None:
    namesake = known.by_file(path.name)
    if namesake is not None and namesake.bytes is not None:
        differs = f"{size} of {namesake.bytes} bytes" if size < namesake.bytes else "another sha256"
        log.warning("%s is not the registry's %s (%s)", path, namesake.name, differs)


def _known(name: str, path: Path, digest: str, entry: Optional[Entry], sidecar: Optional[Sidecar]) -> Resolved:
    labels = cache.entry_labels(entry) if entry is not None and (sidecar is None or sidecar.labels is None) else None
    task = entry.task if entry is not None else None
    preprocess, unit = (entry.preprocess, entry.unit) if entry is not None else (Preprocess(), None)
    background = entry.background if entry is not None else None
    origin = dict.fromkeys(("labels", "task", "preprocess"), "registry")
    measured = entry.measured if entry is not None else Measured()
    if sidecar is not None:
        own = {"labels": sidecar.labels, "task": sidecar.task, "preprocess": sidecar.preprocess != Preprocess()}
        origin.update((key, "sidecar") for key, value in own.items() if value)
        labels = sidecar.labels if sidecar.labels is not None else labels
        task, unit = sidecar.task or task, sidecar.unit or unit
        measured = sidecar.measured if sidecar.measured != Measured() else measured
        preprocess = sidecar.preprocess if sidecar.preprocess != Preprocess() else preprocess
    return Resolved(
        name,
        path,
        digest,
        entry,
        labels,
        background,
        task,
        preprocess,
        unit,
        origin,
        measured.open_set,
        measured.errors,
    )
