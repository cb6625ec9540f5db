"""Where the files of the registry are on this machine, and whether they are what the registry says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2 import paths
from edge_mnv2.errors import LabelsError
from edge_mnv2.files import sha256_of
from edge_mnv2.zoo.entry import Entry, FolderSource
from edge_mnv2.zoo.labels import read_labels
from edge_mnv2.zoo.registry import slug

MIRROR = "EDGE_MNV2_MIRROR"
_MOST_FILES = 5000


@dataclass(frozen=True)
class Copy:
    """A file that may hold an entry. `place`: "package", "cache", "registry" (a team's folder) or "mirror"."""

    path: Path
    place: str


@dataclass(frozen=True)
class Damaged:
    """A file in an entry's place that is not what the registry says, and how it differs."""

    copy: Copy
    problem: str


def cached_path(entry: Entry) -> Path:
    """Where `pull` puts the entry's file. Files of a team's registry have a folder of their own."""
    folder = paths.cache_dir() / "models"
    return (folder if entry.registry is None else folder / slug(entry.registry)) / entry.file


def copies(entry: Entry) -> list[Copy]:
    """Where the entry's file is looked for, best place first: what ships, the cache, a team's folder, the mirror."""
    places = []
    if entry.package_file is not None:
        places.append(Copy(paths.packaged("models", entry.package_file), "package"))
    places.append(Copy(cached_path(entry), "cache"))
    places += [Copy(Path(source.path), "registry") for source in entry.sources if isinstance(source, FolderSource)]
    folder = mirror()
    # What a recipe builds has no hash by which a stranger's file could be told from it.
    if folder is not None and entry.sha256 is not None:
        places.append(Copy(folder / entry.file, "mirror"))
    return places


def problem(path: Path, entry: Entry, *, fresh: bool = False) -> Optional[str]:
    """How the file at `path` differs from `entry`; None where it is that file. Raises FileNotFoundError.

    The size is compared first; a file that has not changed since it was last hashed is not hashed again unless `fresh`.
    """
    if not path.is_file():
        if path.exists():
            return "it is not a regular file"
        raise FileNotFoundError(path)
    try:
        if entry.bytes is not None and (size := path.stat().st_size) != entry.bytes:
            return f"{size} of {entry.bytes} bytes" if size < entry.bytes else f"{size} bytes instead of {entry.bytes}"
        wanted = entry.sha256 or built_sha256(path)
        if wanted is None:
            return "nothing says what its sha256 should be"
        if sha256_of(path, fresh=fresh) != wanted:
            return "its sha256 is not the registry's"
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    return None


def find(entry: Entry) -> tuple[Optional[Copy], list[Damaged]]:
    """The first good copy of the entry's file, and the damaged ones that were met before it."""
    damaged: list[Damaged] = []
    for copy in copies(entry):
        try:
            wrong = problem(copy.path, entry)
        except FileNotFoundError:
            continue
        if wrong is None:
            return copy, damaged
        damaged.append(Damaged(copy, wrong))
    return None, damaged


def mirror() -> Optional[Path]:
    """The folder that `EDGE_MNV2_MIRROR` names."""
    name = os.environ.get(MIRROR, "").strip()
    return Path(name).expanduser() if name else None


def mirror_files(entry: Entry) -> Iterator[Path]:
    """Files of the mirror that may hold the entry: the one of its name, then (any depth) those of its size."""
    folder = mirror()
    if folder is None:
        return
    if (folder / entry.file).is_file():
        yield folder / entry.file
    seen = 0
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            seen += 1
            if seen > _MOST_FILES:
                return
            path = Path(place, name)
            if path != folder / entry.file and entry.bytes is not None and _size(path) == entry.bytes:
                yield path


def _size(path: Path) -> Optional[int]:
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None


def built_mark(path: Path) -> Path:
    """Beside a file that a recipe built: the sha256 that it had then."""
    return path.with_name(f".{path.name}.sha256")


def built_sha256(path: Path) -> Optional[str]:
    """The sha256 that was noted when a recipe built `path`."""
    try:
        return built_mark(path).read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def entry_labels(entry: Entry) -> Optional[list[str]]:
    """The entry's names, None where it has none. Raises LabelsError where their file is missing or another one."""
    if entry.labels is None or not isinstance(entry.labels, str):
        return None if entry.labels is None else list(entry.labels)
    if entry.label_file is None:
        return read_labels(paths.packaged("models", "labels", f"{entry.labels}.txt"))
    path = label_path(entry)
    if entry.labels_sha256 is not None and path.is_file():
        try:
            digest = sha256_of(path)
        except OSError as error:
            raise LabelsError(f"{path} cannot be read: {error.strerror or error}") from None
        if digest != entry.labels_sha256:
            raise LabelsError(
                f"{path} is not the label file that {entry.registry} pins", hint=f"edge-mnv2 pull {entry.name}"
            )
    return read_labels(path)


def label_path(entry: Entry) -> Path:
    """Where the label file of a team's entry is: beside a registry in a folder, else in the cache."""
    assert entry.label_file is not None and entry.base is not None
    if entry.base.startswith("/"):
        return Path(entry.base, entry.label_file)
    return cached_path(entry).with_name(entry.label_file)
