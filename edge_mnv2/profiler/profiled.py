"""The result of one profile: its JSON document, and the device profile that is saved from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import __version__
from edge_mnv2.board.accelerators import automatic
from edge_mnv2.board.detect import Board
from edge_mnv2.board.health import HealthSample
from edge_mnv2.profiler.judgement import Advice, Judgement
from edge_mnv2.profiler.measurement import Goal, Measurement, Setting
from edge_mnv2.profiler.operators import Operators
from edge_mnv2.profiler.soak import Soak
from edge_mnv2.profiler.sweep import Row, Swept
from edge_mnv2.runtime.opening import chosen_resize
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.profile_file import ProfileFile, read_profile
from edge_mnv2.settings.report import save_profile
from edge_mnv2.settings.store import load, places
from edge_mnv2.zoo.resolve import Resolved


@dataclass(frozen=True)
class Measured:
    """What ran: `setting` as it was asked for, and how results name it. `size` is the frames', where it is known."""

    setting: Setting
    model: Resolved
    model_name: str
    runtime: str
    delegate: str
    source: str
    size: Optional[tuple[int, int]]

    @property
    def accelerated(self) -> bool:
        return automatic(self.delegate) is not None


@dataclass(frozen=True)
class Looks:
    """The board before and after measuring; in between the highest temperatures and load, every word of throttling."""

    before: HealthSample
    after: HealthSample
    max_temp_c: Optional[float]
    throttled: Optional[tuple[str, ...]]
    npu_max_temp_c: Optional[float]
    npu_load: Optional[list[int]]

    def document(self) -> dict[str, Any]:
        after = self.after
        return {
            "temp_c": after.temp_c,
            "temp_before_c": self.before.temp_c,
            "max_temp_c": self.max_temp_c,
            "npu_max_temp_c": self.npu_max_temp_c,
            "npu_load": self.npu_load,
            "cpu_mhz": after.cpu_mhz,
            "governor": after.governor,
            "power_mode": after.power_mode,
            "throttled": None if self.throttled is None else list(self.throttled),
            "throttled_since_boot": after.throttled_since_boot,
            "memory_available_mb": after.memory_available_mb,
        }


@dataclass
class Profiled:
    """`usable` CPUs, and why there are no more (`limited_by`). `notes` are sentences for a person."""

    board: Board
    settings: Settings
    goal: Goal
    measured: Measured
    measurement: Measurement
    looks: Looks
    usable: int
    limited_by: Optional[str]
    swept: Optional[Swept] = None
    advice: Optional[Advice] = None
    operators: Optional[Operators] = None
    soak: Optional[Soak] = None
    judgement: Optional[Judgement] = None
    notes: list[str] = field(default_factory=list)
    saved: Optional[Path] = None
    date: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def document(self) -> dict[str, Any]:
        """The JSON document of the command line's contract."""
        measured, swept = self.measured, self.swept
        width, height = measured.size or (None, None)
        own_resize = measured.model.preprocess.resize
        return {
            "board": self.board.model,
            "settings": {
                "profile": self.settings.profile,
                "model": measured.model_name,
                "runtime": measured.runtime,
                "delegate": measured.delegate,
                "threads": measured.setting.threads,
                "workers": measured.setting.workers,
                "resize": chosen_resize(self.settings) or own_resize or "crop",
                "source": measured.source,
                "width": width,
                "height": height,
            },
            **self.measurement.document(),
            "goal": self.goal.name,
            "goal_means": self.goal.meaning,
            "sweep": [row.document() for row in [*swept.rows, *swept.sizes]] if swept else [],
            "sweep_rounds": swept.rounds if swept else None,
            "winner": _with_size(swept).document() if swept else None,
            "accelerator": self.advice.document() if self.advice else None,
            "expected": self.judgement.document() if self.judgement else None,
            "health": self.looks.document(),
            "ops": self.operators.document() if self.operators else None,
            "soak": self.soak.document() if self.soak else None,
            "notes": self.notes,
            "arch": self.board.arch,
            "os": self.board.os,
            "cpus_usable": self.usable,
            "cpus_limited_by": self.limited_by,
            "version": __version__,
            "date": self.date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "saved": None if self.saved is None else str(self.saved),
        }


def _with_size(swept: Swept) -> Row:
    """The winner, in the size that was best where a camera was asked."""
    if swept.best_size is None:
        return swept.winner
    return dataclasses.replace(swept.winner, size=swept.best_size.size)


_SAVED_KEYS = (
    "camera.width", "camera.height", "camera.fps", "camera.rotate", "camera.flip", "camera.roi",
    "preprocess.resize", "runtime.backend", "runtime.delegate", "runtime.model",
)  # fmt: skip
"""Settings that are saved where the command line or the environment gave them: they were part of what was measured. So
are those of a profile that was saved before."""
_ASKED = ("command line", "environment")


def save(name: str, result: Profiled) -> Path:
    """Write what was measured as profile `name`; returns its path.

    Raises UsageError, ProfileError as `save_profile`.
    """
    parent, replaced = _parent(result.settings)
    origins = {key: result.settings.origin(key) for key in _SAVED_KEYS}
    values = {
        key: result.settings.get(key)
        for key, origin in origins.items()
        if origin.kind in _ASKED or origin.path in replaced
    }
    values.update(_measured(result))
    document = result.document()
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
        result.board,
        extends=parent,
        goal=result.goal.name if result.swept is not None else None,
        versions={"edge-mnv2": __version__, "runtime": result.measured.runtime},
        figures={key: value for key, value in figures.items() if value is not None},
    )


def _measured(result: Profiled) -> dict[str, Any]:
    setting, swept = result.measured.setting, result.swept
    values: dict[str, Any] = {"runtime.threads": setting.threads, "runtime.workers": setting.workers}
    if setting.model is not None and (result.measured.accelerated or result.settings.runtime.model is not None):
        values["runtime.model"] = _lasting(setting.model)
    if swept is not None and result.advice is not None:
        # "auto" takes it while it is there; with its name the day it is unplugged would end in an error.
        values["runtime.delegate"] = "auto" if setting.accelerated else "none"
        if setting.accelerated:
            values["runtime.threads"] = _best_on_cpu(swept.rows).threads
    if setting.runtime != "auto" and not setting.accelerated:
        values["runtime.backend"] = setting.runtime
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
