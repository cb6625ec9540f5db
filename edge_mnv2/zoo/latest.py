"""`NAME@latest`: the newest model of that name in the registry, kept on the board beside its former versions.

It has a home of its own in the cache, with labels and sidecar. What the registry offers is fetched and verified, tried
by whoever asked for it, and only then takes that place; the former model stays as a version (`models use`). A model
that was stepped back from is not taken again at the next start: only another one is.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.files import sha256_of
from edge_mnv2.zoo import cache, registry, versions
from edge_mnv2.zoo.labels import with_background
from edge_mnv2.zoo.sidecar import companions

_MARK = "@latest"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def name_of(model: Optional[str]) -> Optional[str]:
    """NAME of `NAME@latest`; None for everything else."""
    name = (model or "")[: -len(_MARK)]
    return name if (model or "").endswith(_MARK) and _NAME.fullmatch(name) else None


def home_of(name: str) -> Path:
    """Where the model `NAME@latest` is on this board, if it was fetched."""
    return _folder() / f"{name}.tflite"


def is_home(path: Path) -> bool:
    """Whether the model at `path` is one that came by `NAME@latest`."""
    return path.parent == _folder() and path.is_file()


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else on this board fetches, tries or takes `NAME@latest` meanwhile: there is one place for what comes."""
    from edge_mnv2.zoo.pull import removal_lock

    with contextlib.ExitStack() as stack:
        # What cannot be written cannot be taken either.
        with contextlib.suppress(OSError):
            _folder().mkdir(parents=True, exist_ok=True)
            stack.enter_context(removal_lock(home_of(name)))
        yield


def fetch(name: str, *, again: bool = True) -> Optional[Path]:
    """What the registry has under `name` now, fetched, verified and made ready to be tried; not in use yet.

    Call it inside of `alone`, as what is done with the file. None where the board has it already; without `again` also
    where it was taken once and stepped back from. Raises ModelError for an unknown name, DownloadError, LabelsError.
    """
    from edge_mnv2.zoo.pull import pull

    entry = registry.load(refresh=True).get(name)
    if entry.kind != "model" or entry.sha256 is None:
        raise ModelError(f"{name}@latest: '{name}' is no model that can be downloaded", hint="leave @latest out")
    home, note = home_of(name), _note_of(name)
    with contextlib.suppress(OSError):
        if home.is_file() and (sha256_of(home) == entry.sha256 or (not again and note.read_text() == entry.sha256)):
            return None
    pulled = pull(entry)
    candidate = _candidate_of(name)
    try:
        shutil.rmtree(candidate.parent, ignore_errors=True)
        candidate.parent.mkdir(parents=True)
        shutil.copyfile(pulled.path, candidate)
        labels = cache.entry_labels(entry)
        origin = f"{name} of {entry.registry or 'edge-mnv2'}"
        files = companions(
            candidate,
            candidate.read_bytes(),
            origin,
            task=entry.task or "classification",
            # A sidecar has no place for it, and a former version is no entry of the registry any more.
            labels=None if labels is None else with_background(labels, entry.background),
            unit=entry.unit,
            preprocess=entry.preprocess,
            measured=entry.measured,
        )
        document = {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "from": origin}
        for path, content in (*files, (candidate.with_suffix(".json"), json.dumps(document).encode())):
            path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{candidate.parent} cannot be written: {error.strerror or error}") from error
    return candidate


def take(name: str) -> Path:
    """Put what `fetch` has made ready in its place, all its files at once; the former version is kept.

    Raises UsageError where it cannot be written.
    """
    candidate, home = _candidate_of(name), home_of(name)
    versions.keep(home)
    versions.put(candidate, home)
    versions.keep(home)
    with contextlib.suppress(OSError), paths.atomic_write(_note_of(name), "w") as note:
        note.write(sha256_of(home))
    return home


def _folder() -> Path:
    return paths.cache_dir() / "latest"


def _candidate_of(name: str) -> Path:
    return _folder() / "next" / name / f"{name}.tflite"


def _note_of(name: str) -> Path:
    """Holds the sha256 of what was taken last."""
    return _folder() / f".{name}.taken"
