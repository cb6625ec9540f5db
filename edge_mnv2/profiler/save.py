"""The measured settings as a profile of this board."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import __version__
from edge_mnv2.device.detect import Board
from edge_mnv2.device.profile import Settings
from edge_mnv2.device.profile_file import ProfileFile, read_profile
from edge_mnv2.device.saving import save_profile
from edge_mnv2.device.store import load, places

_KEPT = (
    "camera.width", "camera.height", "camera.fps", "camera.rotate", "camera.flip", "camera.roi",
    "preprocess.resize", "runtime.backend", "runtime.delegate", "runtime.model",
)  # fmt: skip
"""Settings that are saved where the command line or the environment gave them: they were part of what was measured. So
are those of a profile that was saved before."""
_ASKED = ("command line", "environment")


def save(
    name: str,
    settings: Settings,
    measured: Mapping[str, Any],
    board: Board,
    *,
    goal: Optional[str],
    runtime: str,
    figures: Mapping[str, Optional[float]],
) -> Path:
    """Write profile `name` with the settings `measured` (by dotted key, None: left to the parent); returns its path.

    Raises UsageError, ProfileError as `save_profile`.
    """
    parent, replaced = _parent(settings)
    values = {
        key: settings.get(key)
        for key in _KEPT
        if settings.origin(key).kind in _ASKED or settings.origin(key).path in replaced
    }
    values.update(measured)
    return save_profile(
        name,
        {key: value for key, value in values.items() if value is not None},
        board,
        extends=parent,
        goal=goal,
        versions={"edge-mnv2": __version__, "runtime": runtime},
        figures={key: value for key, value in figures.items() if value is not None},
    )


def _parent(settings: Settings) -> tuple[str, list[Path]]:
    """(what the new profile extends, the saved profiles that it stands in for).

    That is the profile in force, or the first of its parents that was not itself saved here.
    """
    profile = read_profile(settings.path)
    name: str = settings.profile
    replaced = []
    while profile.saved and profile.extends is not None:
        replaced.append(profile.path)
        name = str(profile.extends.value)
        profile = load(name)
    return (name if _is_known(name, profile) else str(profile.path.absolute())), replaced


def _is_known(name: str, profile: ProfileFile) -> bool:
    place = places().get(name)
    return place is not None and place.path.absolute() == profile.path.absolute()
