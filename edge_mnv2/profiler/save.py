"""The measured settings as a profile of this board."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_mnv2 import __version__
from edge_mnv2.profiler.profiled import Profiled
from edge_mnv2.profiler.setting import Setting
from edge_mnv2.profiler.sweep import Row
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.profile_file import ProfileFile, read_profile
from edge_mnv2.settings.saving import save_profile
from edge_mnv2.settings.store import load, places

_KEPT = (
    "camera.width", "camera.height", "camera.fps", "camera.rotate", "camera.flip", "camera.roi",
    "preprocess.resize", "runtime.backend", "runtime.delegate", "runtime.model",
)  # fmt: skip
"""Settings that are saved where the command line or the environment gave them: they were part of what was measured. So
are those of a profile that was saved before."""
_ASKED = ("command line", "environment")


def save(name: str, found: Profiled) -> Path:
    """Write what was measured as profile `name`; returns its path.

    Raises UsageError, ProfileError as `save_profile`.
    """
    parent, replaced = _parent(found.settings)
    origins = {key: found.settings.origin(key) for key in _KEPT}
    values = {
        key: found.settings.get(key)
        for key, origin in origins.items()
        if origin.kind in _ASKED or origin.path in replaced
    }
    values.update(_measured(found))
    document = found.document()
    figures = {
        "model_p50_ms": document["model_ms"]["p50"],
        "end_to_end_p50_ms": document["end_to_end_ms"]["p50"],
        "fps": document["fps"],
        "cpu_ms_per_frame": document["cpu"]["ms_per_frame"],
        "energy_mj": document["energy_mj"],
        "max_temp_c": document["health"]["max_temp_c"],
    }
    return save_profile(
        name,
        {key: value for key, value in values.items() if value is not None},
        found.board,
        extends=parent,
        goal=found.goal.name if found.swept is not None else None,
        versions={"edge-mnv2": __version__, "runtime": found.measured.runtime},
        figures={key: value for key, value in figures.items() if value is not None},
    )


def _measured(found: Profiled) -> dict[str, Any]:
    setting, swept = found.measured.setting, found.swept
    values: dict[str, Any] = {"runtime.threads": setting.threads, "runtime.workers": setting.workers}
    if setting.model is not None and (found.measured.accelerated or found.settings.runtime.model is not None):
        values["runtime.model"] = _lasting(setting.model)
    if swept is not None and found.advice is not None:
        # "auto" takes the TPU while it is there; with "edgetpu" the day it is unplugged would end in an error.
        values["runtime.delegate"] = "auto" if setting.accelerated else "none"
        if setting.accelerated:
            values["runtime.threads"] = _best_on_cpu(swept.rows).threads
    if swept is not None and swept.best_size is not None and swept.best_size.size is not None:
        values["camera.width"], values["camera.height"] = swept.best_size.size
    return values


def _lasting(model: str) -> str:
    """A name as it is; a path so that it holds wherever `run` is started."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_file() else model


def _best_on_cpu(rows: Sequence[Row]) -> Setting:
    """What to use while the TPU is away."""
    return min((row for row in rows if not row.setting.accelerated), key=lambda row: row.entrant.ratio).setting


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
