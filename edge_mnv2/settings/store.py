"""Where profiles are: those that ship with the package and the user's, which come first; which one a board gets."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional, Union

from edge_mnv2 import paths
from edge_mnv2.board.detect import Board
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
    profiles = {**packaged_places(), **user_places()}
    return {name: profiles[name] for name in sorted(profiles)}


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


def unknown_profile(name: str, known: list[str], place: str = "") -> ProfileError:
    """An error that names what was probably meant."""
    if (user_folder() / f"{name}.yml").is_file():
        hint = f"rename {user_folder() / name}.yml to {name}.yaml"
    elif Path(name).is_file():
        hint = f"to name the file, write ./{name}"
    elif close := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        hint = f"did you mean {' or '.join(close)}?"
    else:
        hint = f"known are {', '.join(known)}"
    return ProfileError(f"{place}unknown profile '{name}'", hint=hint)


def choose(board: Board) -> tuple[ProfileFile, str]:
    """The profile for `board` and why it was chosen.

    The newest user profile whose saved board identity is this board's, else one whose `match` fits (the user's before
    the packaged ones), else `generic`. Raises ProfileError where one of the user's profiles is broken: a mistake in it
    must not silently bring other settings.
    """
    user = [read(place) for place in user_places().values()]
    saved = [profile for profile in user if is_same_board(profile.board, board)]
    if saved:
        newest = max(saved, key=_saved_at)
        date = newest.saved.get("date")
        return newest, f"saved on this board{f' on {date[:10]}' if date else ''}"
    packaged = packaged_places()
    possible = [place for name, place in packaged.items() if name not in user_places() and may_match(place, board)]
    for candidates in (user, [read(place) for place in possible]):
        ranked = []
        for profile in candidates:
            match = profile.match
            if not match and profile.origin == "user" and profile.name in packaged:
                # It replaces the packaged profile of its name, so it stands for the same boards.
                match = read(packaged[profile.name]).match
            rank = match_rank(match, board)
            if rank is not None and profile.name != BASE:
                ranked.append((rank, profile.name, profile))
        if ranked:
            return min(ranked)[2], f"matches {board.model or board.compatible[0]}"
    return load(FALLBACK), "no profile matches this board"


def may_match(packaged: Place, board: Board) -> bool:
    """Whether reading a packaged profile can be worth the time (tens of milliseconds each on a small board).

    In our own files every pattern of `match` stands in double quotes: a text without a fitting one cannot match.
    """
    names = [*board.compatible, *([board.model] if board.model else [])]
    try:
        patterns = re.findall(r'"(([^"\n*?[]*)[^"\n]*)"', packaged.path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    # Most differ before their first wildcard already, and each pattern's compilation takes 0.1 ms on a PC.
    return any(
        name.startswith(beginning) and fnmatch.fnmatchcase(name, pattern)
        for name in names
        for pattern, beginning in patterns
    )


def match_rank(match: Mapping[str, tuple[str, ...]], board: Board) -> Optional[tuple[int, int]]:
    """How well `match` fits a board, smaller is better, or None.

    Patterns are shell globs. A board's compatible list goes from the most specific name to the least, so an early one
    is the better match; after them the model whose pattern has the most fixed letters.
    """
    for index, name in enumerate(board.compatible):
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in match.get("compatible", ())):
            return 0, index
    model = board.model or ""
    fitting = [pattern for pattern in match.get("model", ()) if fnmatch.fnmatchcase(model, pattern)]
    if model and fitting:
        return 1, -max(len(pattern.replace("*", "").replace("?", "")) for pattern in fitting)
    return None


def is_same_board(identity: Mapping[str, str], board: Board) -> bool:
    """Whether a saved identity (`board: {model, serial}`) is this board's.

    An identity without a serial stands for every board of its model, so that a fleet can share one profile.
    """
    if not identity:
        return False
    model, serial = identity.get("model"), identity.get("serial")
    return (model is None or model == board.model) and (serial is None or serial == board.serial)


def identity(board: Board) -> dict[str, str]:
    """What a saved profile keeps of a board, to be known again by `is_same_board`."""
    known = {"model": board.model, "serial": board.serial}
    return {name: value for name, value in known.items() if value is not None}


def _saved_at(profile: ProfileFile) -> tuple[float, str]:
    date = profile.saved.get("date", "")
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(date.rstrip("Z")).replace(tzinfo=timezone.utc).timestamp(), profile.name
    with contextlib.suppress(OSError):
        return profile.path.stat().st_mtime, profile.name
    return 0.0, profile.name
