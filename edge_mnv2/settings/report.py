"""Profiles and boards as rows and documents, for `devices list`, `show`, `detect` and `check`; and a profile for this
board, written to be chosen by itself from then on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.addresses import redact
from edge_mnv2.board.cpus import AUTO_THREADS, limits
from edge_mnv2.board.detect import Board
from edge_mnv2.errors import ProfileError, UsageError
from edge_mnv2.settings.profile import DEFAULT, Settings, chain, resolve_profile
from edge_mnv2.settings.profile_file import ProfileFile, parse_profile, read_profile
from edge_mnv2.settings.schema import KEYS, SECTIONS
from edge_mnv2.settings.store import (
    choose,
    identity,
    is_path,
    load,
    packaged_places,
    places,
    read,
    user_folder,
    user_places,
)

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
    document: dict[str, Any] = {
        "extends": _text(extends),
        "description": _text(description or f"Measured on {board.model}"),
        "board": {key: _text(value) for key, value in identity(board).items()},
        "saved": {"date": _text(date), **({"goal": goal} if goal else {})},
    }
    for title, table in (("versions", versions), ("figures", figures)):
        document["saved"][title] = {_text(key): _plain(value) for key, value in (table or {}).items()}
    text = "\n".join(_lines({**document, **_sections(values)})) + "\n"
    # Nothing that we could not read again ever replaces a profile.
    parse_profile(text, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic_write(target, "w") as handle:
            handle.write(text)
    except OSError as error:
        raise ProfileError(f"{target}: {error.strerror or error}") from error
    return target


def _sections(values: Mapping[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {section: {} for section in SECTIONS}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if key.startswith("camera.controls."):
            sections[section].setdefault("controls", {})[_text(name.partition(".")[2])] = _plain(value)
        elif key in KEYS:
            sections[section][name] = _value(key, value)
        else:
            raise ProfileError(f"no setting is called {key}")
    return sections


def _lines(table: Mapping[str, Any]) -> list[str]:
    """Keys with their values, which are YAML already, or tables, of which empty ones are left out."""
    lines: list[str] = []
    for key, value in table.items():
        if not isinstance(value, dict):
            lines.append(f"{key}: {value}")
        elif value:
            lines += [f"{key}:", *(f"  {line}" for line in _lines(value))]
    return lines


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


def listed(board: Board) -> tuple[list[dict[str, Any]], Optional[str], Optional[ProfileError]]:
    """(one document a profile, the name and reason of the one for `board`, the first error).

    A profile that cannot be read is listed with its error; then none is chosen.
    """
    rows: list[dict[str, Any]] = []
    first: Optional[ProfileError] = None
    for place in places().values():
        row: dict[str, Any] = {"name": place.name, "from": place.origin, "path": str(place.path)}
        try:
            profile = read(place)
            settings = resolve_profile(profile)
            row.update(
                {
                    "description": profile.description,
                    "extends": profile.extends.value if profile.extends else None,
                    "expected_ms": settings.expected.inference_ms,
                    "precision": settings.expected.precision,
                    "delegate": settings.expected.delegate,
                    "error": None,
                }
            )
        except ProfileError as error:
            first = first or error
            unknown = dict.fromkeys(("description", "extends", "expected_ms", "precision", "delegate"))
            row.update({**unknown, "error": str(error)})
        rows.append(row)
    try:
        chosen, reason = choose(board)
    except ProfileError as error:
        return rows, None, first or error
    for row in rows:
        row["chosen"] = row["name"] == chosen.name and row["path"] == str(chosen.path)
    return rows, reason, first


def own(profile: ProfileFile) -> dict[str, Any]:
    """What one profile's file says, without its parents."""
    return {
        "name": profile.name,
        "path": str(profile.path),
        "extends": profile.extends.value if profile.extends else None,
        "description": profile.description,
        "match": {name: list(patterns) for name, patterns in profile.match.items()},
        "board": dict(profile.board),
        "saved": dict(profile.saved),
        "values": {
            key: redact(item.value) if isinstance(item.value, str) else item.value
            for key, item in profile.values.items()
        },
    }


def resolved(settings: Settings) -> dict[str, Any]:
    """Every setting in force with where it came from."""
    values = {}
    for key, value in settings.values().items():
        origin = settings.origin(key)
        values[key] = {
            "value": redact(value) if isinstance(value, str) else value,
            "from": origin.kind,
            "file": str(origin.path) if origin.path else None,
            "line": origin.line,
            "variable": origin.name,
        }
    return {
        "name": settings.profile,
        "path": str(settings.path),
        "extends": list(settings.parents),
        "reason": settings.reason,
        "values": values,
    }


def resolved_rows(settings: Settings, usable: int) -> list[tuple[str, str, str]]:
    """(key, value, origin) of every setting, in words."""
    rows = []
    for key, value in settings.values().items():
        text = redact(shown_value(key, value))
        if key == "runtime.threads" and value == "auto":
            text = f"auto ({min(usable, AUTO_THREADS)} here)"
        elif key == "runtime.threads" and isinstance(value, int) and value > usable:
            text = f"{value} ({usable} here)"
        rows.append((key, text, str(settings.origin(key))))
    return rows


def shown_value(key: str, value: Any) -> str:
    """A value as it would be written in a profile."""
    if value is None:
        known = KEYS.get(key)
        return str(getattr(known.kind, "word", "-")) if known is not None else "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (float, int)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, (list, tuple)) and any(isinstance(item, str) for item in value):
        return json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return json.dumps([int(item) if float(item).is_integer() else item for item in value])
    return str(value)


def detected(board: Board, root: str) -> dict[str, Any]:
    """The document of `devices detect`. Raises ProfileError where one of the user's profiles is broken."""
    profile, reason = choose(board)
    return {
        "board": board.model,
        "profile": profile.name,
        "arch": board.arch,
        "os_bits": board.os_bits,
        "python_bits": board.python_bits,
        "cpus_usable": board.cpus_usable,
        "memory_mb": board.memory_mb,
        "kernel_bits": board.kernel_bits,
        "os": board.os,
        "release": board.release,
        "container": board.container,
        "compatible": list(board.compatible),
        "reason": reason,
        "cpus_limited_by": limits(root),
    }


def checked(name_or_path: str) -> dict[str, Any]:
    """Read a profile with its parents, without any hardware: `{"file", "extends"}`. Raises ProfileError."""
    profile = load(name_or_path)
    settings = resolve_profile(profile)
    ancestors = chain(profile)
    return {
        "file": str(profile.path),
        "extends": [ancestor.name for ancestor in ancestors[1:]],
        "values": sum(1 for key in settings.values() if settings.origin(key) != DEFAULT),
        "named_by_path": is_path(name_or_path),
    }
