"""Everything that one profile found, and its JSON document."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import __version__
from edge_mnv2.board.detect import Board
from edge_mnv2.board.health import HealthSample
from edge_mnv2.profiler.advice import Advice
from edge_mnv2.profiler.expectation import Judgement
from edge_mnv2.profiler.goal import Goal
from edge_mnv2.profiler.measurement import Measurement
from edge_mnv2.profiler.operators import Operators
from edge_mnv2.profiler.setting import Setting
from edge_mnv2.profiler.soak_points import Soak
from edge_mnv2.profiler.sweep import Row, Swept
from edge_mnv2.runtime.opening import chosen_resize
from edge_mnv2.settings.profile import Settings
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
        return self.delegate.startswith("edgetpu")


@dataclass(frozen=True)
class Looks:
    """The board before and after measuring, the highest temperature and every word of throttling in between."""

    before: HealthSample
    after: HealthSample
    max_temp_c: Optional[float]
    throttled: Optional[tuple[str, ...]]

    def document(self) -> dict[str, Any]:
        after = self.after
        return {
            "temp_c": after.temp_c,
            "temp_before_c": self.before.temp_c,
            "max_temp_c": self.max_temp_c,
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
            "expected": None if self.judgement is None else _expected(self.judgement),
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


def _expected(judgement: Judgement) -> dict[str, Any]:
    return {
        "verdict": judgement.verdict,
        "ratio": judgement.ratio,
        "expected_ms": judgement.expected_ms,
        "source": judgement.source,
        "causes": list(judgement.causes),
        "text": str(judgement),
    }


def _with_size(swept: Swept) -> Row:
    """The winner, in the size that was best where a camera was asked."""
    if swept.best_size is None:
        return swept.winner
    return dataclasses.replace(swept.winner, size=swept.best_size.size)
