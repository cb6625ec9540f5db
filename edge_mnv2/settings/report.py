"""Profiles and boards as rows and documents, for `devices list`, `show`, `detect` and `check`."""

from __future__ import annotations

import json
from typing import Any, Optional

from edge_mnv2.addresses import redact
from edge_mnv2.board.cpus import AUTO_THREADS, limits
from edge_mnv2.board.detect import Board
from edge_mnv2.errors import ProfileError
from edge_mnv2.settings.profile import DEFAULT, Settings, chain, resolve_profile
from edge_mnv2.settings.profile_file import ProfileFile
from edge_mnv2.settings.schema import KEYS
from edge_mnv2.settings.store import choose, is_path, load, places, read


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
