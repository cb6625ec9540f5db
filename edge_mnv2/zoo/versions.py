"""Former versions of a model of the user's own: kept beside it, listed, and taken back.

`NAME.tflite` has its versions in `NAME.versions/N/`, each with the model and the files that belong to it (labels,
sidecar, document). The newest one is what stands beside that folder, under the model's own name.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.files import sha256_of

KEEP = 5
"""How many versions are kept, the one in use among them."""

_SUFFIXES = (".labels.txt", ".yaml", ".json", ".tflite")
"""What belongs to a model, the model itself last."""


@dataclass(frozen=True)
class Version:
    """One version: `accuracy` (held-out top-1, 0..1) and `pictures` from the model's document, None where unknown."""

    number: int
    date: str
    sha256: str
    accuracy: Optional[float]
    pictures: Optional[int]
    current: bool
    path: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON output."""
        return asdict(self)


def folder_of(model: Path) -> Path:
    """Where the versions of `model` are."""
    return model.with_suffix(".versions")


def versions(model: Path) -> list[Version]:
    """What is listed of `model`, the oldest first, the one in use marked. Raises ModelError where there is no model."""
    if not model.exists():
        raise ModelError(f"{model}: no such file", hint="name the .tflite file that `teach` wrote")
    if not model.is_file():
        raise ModelError(f"{model} is not a model file", hint="name a .tflite file")
    current = sha256_of(model)
    listed = [
        _described(number, folder / model.name, sha256_of(folder / model.name) == current)
        for number, folder in _numbered(model)
    ]
    if not any(version.current for version in listed):
        listed.append(_described(listed[-1].number + 1 if listed else 1, model, True))
    return listed


def keep(model: Path, most: int = KEEP) -> None:
    """Keep the files of `model` as a version, where they are not kept already; the oldest go above `most`.

    Raises UsageError where they cannot be copied.
    """
    if not model.is_file():
        return
    numbered = _numbered(model)
    current = sha256_of(model)
    if not any(sha256_of(folder / model.name) == current for _, folder in numbered):
        number = numbered[-1][0] + 1 if numbered else 1
        try:
            _copy(model, folder_of(model), number)
        except OSError as error:
            raise UsageError(
                f"the former version of {model} cannot be kept: {error.strerror or error}",
                hint="make room, or use --out",
            ) from error
        numbered = _numbered(model)
    # The one in use is among them, and stays.
    others = [folder for _, folder in numbered if sha256_of(folder / model.name) != current]
    for folder in others[: max(0, len(numbered) - most)]:
        shutil.rmtree(folder, ignore_errors=True)


def use(model: Path, number: int) -> Version:
    """Make version `number` the one in use; the one in use until now is kept. All its files switch together.

    Raises ModelError where there is no such version, UsageError where the files cannot be written.
    """
    known = {version.number: version for version in versions(model)}
    if number not in known:
        numbers = ", ".join(map(str, known))
        raise ModelError(f"{model} has no version {number}", hint=f"one of {numbers}; see `edge-mnv2 models versions`")
    if known[number].current:
        return known[number]
    # One more than usual: what is wanted must not go while what is in use is kept.
    keep(model, KEEP + 1)
    put(folder_of(model) / str(number) / model.name, model)
    return next(version for version in versions(model) if version.current)


def put(source: Path, model: Path) -> None:
    """The model `source` and the files that belong to it take the places of `model` and its files, all at once.

    Raises UsageError where they cannot be written.
    """
    pairs = [(model.with_suffix(suffix), source.with_suffix(suffix)) for suffix in _SUFFIXES]
    try:
        paths.write_together([(target, one.read_bytes()) for target, one in pairs if one.is_file()])
    except OSError as error:
        raise UsageError(f"{error.filename or model} cannot be written: {error.strerror or error}") from error


def _numbered(model: Path) -> list[tuple[int, Path]]:
    with contextlib.suppress(OSError):
        entries = [one for one in folder_of(model).iterdir() if one.name.isdecimal() and (one / model.name).is_file()]
        return sorted((int(entry.name), entry) for entry in entries)
    return []


def _copy(model: Path, folder: Path, number: int) -> None:
    """Whole or not at all: the files are on the disk before their folder gets its number."""
    folder.mkdir(exist_ok=True)
    for torn in folder.glob(".new-*"):
        shutil.rmtree(torn, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        for suffix in _SUFFIXES:
            source = model.with_suffix(suffix)
            if source.is_file():
                with paths.atomic_write(part / source.name) as file:
                    file.write(source.read_bytes())
        part.chmod(0o755)
        part.rename(folder / str(number))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _described(number: int, model: Path, current: bool) -> Version:
    document: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        document = json.loads(model.with_suffix(".json").read_bytes())
    document = document if isinstance(document, dict) else {}
    metrics = document.get("metrics")
    accuracy = metrics.get("top1") if isinstance(metrics, dict) else None
    pictures = document.get("pictures")
    changed = datetime.fromtimestamp(model.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
    return Version(
        number,
        str(document.get("date") or changed),
        sha256_of(model),
        accuracy if isinstance(accuracy, float) else None,
        pictures if isinstance(pictures, int) else None,
        current,
        str(model),
    )
