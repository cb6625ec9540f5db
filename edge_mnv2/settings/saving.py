"""Write a profile for this board, to be chosen by itself from then on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.board.detect import Board
from edge_mnv2.errors import ProfileError, UsageError
from edge_mnv2.settings.profile_file import parse_profile, read_profile
from edge_mnv2.settings.report import shown_value
from edge_mnv2.settings.schema import KEYS, SECTIONS
from edge_mnv2.settings.store import identity, packaged_places, user_folder, user_places

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def place_for(name: str) -> Path:
    """Where a profile called `name` will be saved. Raises UsageError where the name cannot be taken."""
    if not _NAME.fullmatch(name) or name.endswith((".yaml", ".yml")):
        raise UsageError(f"a profile cannot be called '{name}'", hint="use letters, digits, - and _")
    if name in packaged_places():
        raise UsageError(f"'{name}' is the name of a packaged profile", hint="choose another name")
    target = user_folder() / f"{name}.yaml"
    if name in user_places() and not _was_saved(target):
        raise UsageError(f"{target} was not written by us", hint="choose another name, or remove it")
    return target


def save_profile(
    name: str,
    values: Mapping[str, Any],
    board: Board,
    *,
    extends: str,
    goal: Optional[str] = None,
    versions: Optional[Mapping[str, str]] = None,
    figures: Optional[Mapping[str, float]] = None,
    description: Optional[str] = None,
    now: Optional[datetime] = None,
) -> Path:
    """Write `values` (dotted key → value) as the user's profile `name` for `board`; returns its path.

    `versions` and `figures` are kept beside the date for people to read. A saved profile of the same name is replaced;
    one that somebody wrote by hand, or a packaged name, is not. Raises UsageError for the name, ProfileError where the
    values do not make a valid profile or the file cannot be written.
    """
    target = place_for(name)
    date = (now or datetime.now(timezone.utc)).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"extends: {_text(extends)}", f"description: {_text(description or f'Measured on {board.model}')}"]
    lines += _section("board", {key: _text(value) for key, value in identity(board).items()})
    lines += ["saved:", f'  date: "{date}"', *([f"  goal: {goal}"] if goal else [])]
    for title, table in (("versions", versions), ("figures", figures)):
        written = {_text(key): _plain(value) for key, value in (table or {}).items() if value is not None}
        lines += [f"  {line}" for line in _section(title, written)]
    text = "\n".join([*lines, *_settings(values)]) + "\n"
    # Nothing that we could not read again ever replaces a profile.
    parse_profile(text, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic_write(target, "w") as handle:
            handle.write(text)
    except OSError as error:
        raise ProfileError(f"{target}: {error.strerror or error}") from error
    return target


def _settings(values: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for section in SECTIONS:
        own: dict[str, str] = {}
        controls: dict[str, str] = {}
        for key, value in values.items():
            if key.startswith("camera.controls.") and section == "camera":
                controls[_text(key[len("camera.controls.") :])] = _plain(value)
            elif key in KEYS and key.startswith(f"{section}."):
                own[key.partition(".")[2]] = _value(key, value)
        lines += _section(section, own) or ([f"{section}:"] if controls else [])
        lines += [f"  {line}" for line in _section("controls", controls)]
    unknown = [key for key in values if key not in KEYS and not key.startswith("camera.controls.")]
    if unknown:
        raise ProfileError(f"no setting is called {unknown[0]}")
    return lines


def _section(name: str, entries: Mapping[str, str]) -> list[str]:
    return [f"{name}:", *(f"  {key}: {value}" for key, value in entries.items())] if entries else []


def _value(key: str, value: Any) -> str:
    if isinstance(value, str) and value not in ("auto", "none"):
        return _text(value)
    # "-" is how a value is shown that only null can write.
    return "~" if (text := shown_value(key, value)) == "-" else text


def _plain(value: Any) -> str:
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    """A double-quoted scalar: JSON's escapes are YAML's too."""
    return json.dumps(value, ensure_ascii=False)


def _was_saved(path: Path) -> bool:
    try:
        return bool(read_profile(path).saved)
    except ProfileError:
        return False
