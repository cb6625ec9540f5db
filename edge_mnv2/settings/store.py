"""Where profiles are: those that ship with the package, and the user's, which come first."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from edge_mnv2 import paths
from edge_mnv2.errors import ProfileError
from edge_mnv2.settings.profile_file import ProfileFile, read_profile

BASE = "base"
"""The profile that all others extend; it describes no board and is never chosen by itself."""

FALLBACK = "generic"
"""The profile for a board that no other matches."""


@dataclass(frozen=True)
class Place:
    """A profile's file, unread. `origin` is "packaged" or "user"."""

    name: str
    path: Path
    origin: str


def user_folder() -> Path:
    return paths.config_dir() / "devices"


def packaged_places() -> dict[str, Place]:
    return _places(paths.packaged("devices"), "packaged")


def user_places() -> dict[str, Place]:
    return _places(user_folder(), "user")


def places() -> dict[str, Place]:
    """Every profile by name, sorted; a user's profile hides a packaged one of the same name."""
    found = {**packaged_places(), **user_places()}
    return {name: found[name] for name in sorted(found)}


def _places(folder: Path, origin: str) -> dict[str, Place]:
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return {}
    return {
        file.stem: Place(file.stem, file, origin)
        for file in files
        if file.suffix == ".yaml" and not file.name.startswith(".")
    }


def is_path(text: str) -> bool:
    """Whether `--device TEXT` names a file rather than a profile."""
    return "/" in text or text.endswith((".yaml", ".yml"))


def load(name_or_path: Union[str, Path]) -> ProfileFile:
    """Read a profile by name, the user's before the packaged one, or by path (anything with a slash or `.yaml`).

    Raises ProfileError for an unknown name, a missing file, or whatever is wrong in it.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or is_path(text):
        return read_profile(Path(text).expanduser())
    known = places()
    if text not in known:
        raise unknown_profile(text, list(known))
    return read(known[text])


def read(place: Place) -> ProfileFile:
    return read_profile(place.path, place.origin)


def unknown_profile(name: str, known: list[str], where: str = "") -> ProfileError:
    """An error that names what was probably meant."""
    if (user_folder() / f"{name}.yml").is_file():
        hint = f"rename {user_folder() / name}.yml to {name}.yaml"
    elif Path(name).is_file():
        hint = f"to name the file, write ./{name}"
    elif close := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        hint = f"did you mean {' or '.join(close)}?"
    else:
        hint = f"known are {', '.join(known)}"
    return ProfileError(f"{where}unknown profile '{name}'", hint=hint)
