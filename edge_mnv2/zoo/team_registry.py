"""A team's own registry: `EDGE_MNV2_REGISTRY` is a YAML file or URL, with the model files beside it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional
from urllib.parse import unquote, urldefrag, urlsplit

from edge_mnv2 import paths
from edge_mnv2.errors import DownloadError, ProfileError
from edge_mnv2.strict_yaml import REGISTRY_BYTES, parse_plain, read_plain
from edge_mnv2.zoo.entry import Entry, parse_entries, without_credentials

VARIABLE = "EDGE_MNV2_REGISTRY"


@dataclass
class SharedRegistry:
    """The team's entries, what there is to say about them, and why they could not be fetched (None where they were)."""

    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreachable: Optional[DownloadError] = None


def read(*, refresh: bool = False) -> SharedRegistry:
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
