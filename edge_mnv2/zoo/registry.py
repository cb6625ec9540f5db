"""The registry: everything that is known by name, ours and a team's own."""

from __future__ import annotations

import difflib
import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional
from urllib.parse import unquote, urldefrag, urlsplit

from edge_mnv2 import paths
from edge_mnv2.errors import DownloadError, ModelError, ProfileError
from edge_mnv2.strict_yaml import REGISTRY_BYTES, parse_plain, read_plain
from edge_mnv2.zoo.entry import Entry, parse_entries, without_credentials

log = logging.getLogger(__name__)

_ALIKE = 0.62
DEFAULT_MODEL = "mobilenet_v2_1.0_224_int8"


class Registry:
    """Entries by name. Iterating gives them in the order of the registry, ours first."""

    def __init__(self, entries: Iterable[Entry], unreachable: Optional[DownloadError] = None) -> None:
        self._entries = {entry.name: entry for entry in entries}
        self._unreachable = unreachable

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(self, name: str) -> Entry:
        """The entry called `name`.

        Raises ModelError with the nearest names, or DownloadError where the team's registry, which may know it, could
        not be fetched.
        """
        entry = self._entries.get(name)
        if entry is None:
            if self._unreachable is not None:
                raise DownloadError(f"'{name}' is no model of edge-mnv2's own, and {self._unreachable}")
            raise ModelError(f"unknown model '{name}'", hint=self.suggestion(name))
        return entry

    def by_sha256(self, sha256: str) -> Optional[Entry]:
        """The entry whose file has this sha256."""
        return next((entry for entry in self if entry.sha256 == sha256), None)

    def by_file(self, file: str) -> Optional[Entry]:
        """The entry whose file has this name."""
        return next((entry for entry in self if entry.file == file), None)

    def models(self) -> list[Entry]:
        """The entries that are models (no clips, no weights)."""
        return [entry for entry in self if entry.kind == "model"]

    def downloadable_models(self) -> list[Entry]:
        """The models that can be pulled as files: what `pull --all` means."""
        return [entry for entry in self.models() if entry.sources]

    def near(self, name: str) -> list[str]:
        """Up to three names that look like `name`."""
        likeness = {known: _likeness(name.casefold(), known.casefold()) for known in self._entries}
        best = sorted(self._entries, key=lambda known: -likeness[known])[:3]
        return [known for known in best if likeness[known] >= _ALIKE]

    def suggestion(self, name: str) -> str:
        """What to do about an unknown name, in one sentence."""
        near = self.near(name)
        return f"did you mean {' or '.join(near)}?" if near else "`edge-mnv2 models list` shows the known names"


def _likeness(name: str, known: str) -> float:
    """0..1; a beginning or another part of a long name counts nearly as much as the whole."""
    if len(name) >= 3 and name in known:
        return 0.9
    whole = difflib.SequenceMatcher(None, name, known).ratio()
    beginning = difflib.SequenceMatcher(None, name, known[: len(name)]).ratio()
    return max(whole, 0.95 * beginning if len(name) >= 3 else 0.0)


@functools.lru_cache(maxsize=1)
def packaged_entries() -> tuple[Entry, ...]:
    """The entries of the registry that ships with the package. Raises ProfileError."""
    path = paths.packaged("models", "registry.yaml")
    return tuple(parse_entries(read_plain(path, ProfileError), str(path)))


def load(*, refresh: bool = False) -> Registry:
    """Our registry and, where `EDGE_MNV2_REGISTRY` names one, the team's.

    A registry at a URL is read from its last good copy; `refresh` fetches it anew first. A team's entry never replaces
    one of ours: with the same sha256 it adds its sources, else it is left out and said. Raises ProfileError.
    """
    entries = list(packaged_entries())
    theirs = read_shared(refresh=refresh)
    for entry in theirs.entries:
        row = next((row for row, ours in enumerate(entries) if ours.name == entry.name), None)
        if row is None:
            entries.append(entry)
        elif entries[row].sha256 == entry.sha256:
            entries[row] = replace(entries[row], sources=(*entry.sources, *entries[row].sources))
        else:
            theirs.notes.append(
                f"{entry.registry}: '{entry.name}' is a name of edge-mnv2's own for another file and is left out; "
                "give it another name"
            )
    for note in theirs.notes:
        _say_once(note)
    return Registry(entries, theirs.unreachable)


@functools.lru_cache(maxsize=64)
def _say_once(note: str) -> None:
    log.warning("%s", note)


VARIABLE = "EDGE_MNV2_REGISTRY"


@dataclass
class SharedRegistry:
    """The team's entries, what there is to say about them, and why they could not be fetched (None where they were)."""

    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreachable: Optional[DownloadError] = None


def read_shared(*, refresh: bool = False) -> SharedRegistry:
    """The registry that `EDGE_MNV2_REGISTRY` names; an empty one where it is not set.

    A URL may end with `#sha256=HEX` to pin the registry itself. Without `refresh` nothing is fetched: the copy of the
    last fetch serves. Raises ProfileError for a registry that is there and wrong.
    """
    address = os.environ.get(VARIABLE, "").strip()
    if not address:
        return SharedRegistry()
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return _from_url(address, refresh)
    path = Path(unquote(urlsplit(address).path)) if scheme == "file" else Path(address).expanduser()
    if path.is_dir():
        path = path / "registry.yaml"
    if not path.is_file():
        raise ProfileError(f"{VARIABLE}={address}: no such file", hint="give a registry's YAML file or its URL")
    path = path.resolve()
    return SharedRegistry(parse_entries(read_plain(path, ProfileError), str(path), str(path), f"{path.parent}/"))


def _from_url(address: str, refresh: bool) -> SharedRegistry:
    url, pin = urldefrag(address)
    shown = without_credentials(url)
    if pin and not pin.startswith("sha256="):
        raise ProfileError(f"{VARIABLE}: '#{pin}' is not understood", hint="pin a registry with #sha256=HEX")
    wanted = pin[len("sha256=") :] or None
    copy = paths.cache_dir() / "registries" / f"{slug(shown)}.yaml"
    registry = SharedRegistry()
    data = _copy(copy, wanted)
    if refresh:
        try:
            data = _fetched(url, shown, wanted)
            _keep(copy, data)
            parts = urlsplit(url)
            if parts.scheme == "http" and wanted is None and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
                registry.notes.append(
                    f"{shown} comes unencrypted, so anybody on the way can change it: use https, or pin it with "
                    f"#sha256={hashlib.sha256(data).hexdigest()}"
                )
        except DownloadError as error:
            registry.unreachable = error if data is None else None
            registry.notes.append(f"{error.message}{'; the copy of the last time serves' if data else ''}")
    elif data is None:
        registry.unreachable = DownloadError(
            f"the registry {shown} has not been fetched yet", hint="`edge-mnv2 models list` fetches it"
        )
    if data is not None:
        registry.entries = parse_entries(parse_plain(data, shown, ProfileError), shown, shown, url)
    return registry


def slug(text: str) -> str:
    """A short stable name for an address."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _copy(path: Path, wanted: Optional[str]) -> Optional[bytes]:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return None if wanted is not None and hashlib.sha256(data).hexdigest() != wanted else data


def _fetched(url: str, shown: str, wanted: Optional[str]) -> bytes:
    from edge_mnv2.zoo.web import read_small

    data = read_small(url, REGISTRY_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if wanted is not None and digest != wanted:
        raise DownloadError(f"{shown} is not the registry that {VARIABLE} pins: its sha256 is {digest}")
    try:
        parse_entries(parse_plain(data, shown, ProfileError), shown, shown, url)
    except ProfileError as error:
        raise DownloadError(f"{shown} sent something that is no registry: {error}") from None
    return data


def _keep(copy: Path, data: bytes) -> None:
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic_write(copy) as handle:
            handle.write(data)
    except OSError:
        return  # a read-only cache: it is fetched again the next time
