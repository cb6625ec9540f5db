"""The registry: everything that is known by name, ours and a team's own."""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Optional

from edge_mnv2 import paths
from edge_mnv2.errors import DownloadError, ModelError, ProfileError
from edge_mnv2.strict_yaml import read_plain
from edge_mnv2.zoo import team_registry
from edge_mnv2.zoo.entry import Entry, parse_entries

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
    theirs = team_registry.read(refresh=refresh)
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
