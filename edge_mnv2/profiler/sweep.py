"""Settings against each other: threads, workers, delegates, models, and the sizes that frames are captured in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from edge_mnv2.errors import AcceleratorError, EdgeMnv2Error, ModelError
from edge_mnv2.profiler import feed as feeds
from edge_mnv2.profiler.burst import Burst, loop_burst, middle, percentiles
from edge_mnv2.profiler.feed import Feed
from edge_mnv2.profiler.goal import Goal
from edge_mnv2.profiler.open_engines import OpenEngines
from edge_mnv2.profiler.race import Entrant, race
from edge_mnv2.profiler.setting import Setting, cpu_settings, pinned
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.settings.profile import Settings
from edge_mnv2.zoo.resolve import Resolved, resolve

log = logging.getLogger(__name__)

BURST_S = 0.25
POWER_BURST_S = 1.5
"""A power sensor averages over about a second."""

_LOST = 1e15
"""The cost of a setting whose accelerator is lost: more than any that can be measured."""


@dataclass
class Row:
    """One setting with all that was measured of it. `size` is that of the frames, (width, height)."""

    setting: Setting
    size: Optional[tuple[int, int]]
    model: str = ""
    delegate: str = ""
    burst: Burst = field(default_factory=Burst)
    energies: list[float] = field(default_factory=list)
    entrant: Entrant = field(default_factory=Entrant)
    compares: str = "engines"
    granted_fps: Optional[float] = None

    @property
    def fps(self) -> Optional[float]:
        return middle(self.burst.rates)

    def document(self) -> dict[str, Any]:
        """As an entry of `sweep` in the JSON document."""
        width, height = self.size or (None, None)
        return {
            "compares": self.compares,
            "model": self.model,
            "delegate": self.delegate,
            "threads": self.setting.threads,
            "workers": self.setting.workers,
            "width": width,
            "height": height,
            "fps": _rounded(self.fps, 2),
            "end_to_end_ms": percentiles(self.burst.end_to_end),
            "stages_ms": {
                "preprocess": percentiles(self.burst.preprocess, (0.5, 0.95)),
                "inference": percentiles(self.burst.inference, (0.5, 0.95)),
            },
            "cpu_ms_per_frame": _rounded(self.burst.cpu_ms_per_frame, 3),
            "energy_mj": _rounded(middle(self.energies), 3),
            "frames": self.burst.frames,
            "rounds": len(self.entrant.costs),
            "ratio": round(self.entrant.ratio, 4),
            "stopped": self.entrant.why,
        }


def _rounded(value: Optional[float], digits: int) -> Optional[float]:
    return None if value is None else round(value, digits)


@dataclass
class Swept:
    """`winner` is one of `rows`; `sizes` are rows of the winner's engines on frames of other sizes, `best_size` one of
    them, None where no camera was asked."""

    rows: list[Row]
    winner: Row
    rounds: int
    settled: bool
    sizes: list[Row] = field(default_factory=list)
    best_size: Optional[Row] = None


def candidates(settings: Settings, models: Sequence[Optional[str]], usable: int, notes: list[str]) -> list[Setting]:
    """What to compare: the CPU and, where one can be used, the Edge TPU, for each of `models`.

    A number of threads or workers, or a delegate, from the command line or the environment is kept. What cannot take
    part is said in `notes`. Raises ModelError for a model that neither can run, AcceleratorError where nothing is left.
    """
    from edge_mnv2.runtime.edgetpu.pairs import Zoo, worth_trying
    from edge_mnv2.runtime.edgetpu.pairs import choose as choose_models
    from edge_mnv2.runtime.edgetpu.spec import parse

    asked = settings.runtime.delegate
    fixed = settings.origin("runtime.delegate").kind in ("command line", "environment") and asked != "auto"
    spec = parse(asked)
    threads, workers = pinned(settings, "runtime.threads"), pinned(settings, "runtime.workers")
    if threads is not None:
        threads = min(threads, usable)
    found: list[Setting] = []
    compiled = set()
    if (spec.required and fixed) or (not (fixed and spec.mode == "none") and worth_trying()):
        for model in models:
            plan = choose_models(model, spec if spec.required else parse("auto"), True, Zoo(), fall_back=False)
            if plan.tpu is None:
                notes += plan.notes
                continue
            compiled.add(model)
            name = _request(plan.tpu)
            found += [Setting(name, str(spec) if spec.required else "edgetpu", 1, count) for count in _tpus(workers)]
    if not (fixed and spec.required):
        for model in models:
            try:
                plan = choose_models(model, parse("none"), False, Zoo())
            except ModelError as error:
                if model not in compiled:
                    raise
                notes.append(str(error))
                continue
            assert plan.cpu is not None
            notes += [note for note in plan.notes if not found]
            found += cpu_settings([_request(plan.cpu)], usable, threads, workers)
    return found


def _request(model: Resolved) -> str:
    """What means `model` to `run`: its name where it lies in its own place, else its path."""
    try:
        if resolve(model.name).path == model.path:
            return model.name
    except ModelError:
        pass
    return str(model.path.absolute())


def _tpus(workers: Optional[int]) -> list[int]:
    """Numbers of workers to try on the accelerators: there is one for each device."""
    from edge_mnv2.runtime.edgetpu.discovery import find

    attached = max(1, len(find(held=False)))
    return [min(workers, attached)] if workers is not None else list(range(1, attached + 1))


def sweep(
    settings: Settings,
    options: Sequence[Setting],
    goal: Goal,
    feed: Feed,
    engines: OpenEngines,
    watch: Watch,
    *,
    seconds: float,
    notes: list[str],
) -> Swept:
    """Race `options` for about `seconds` on frames of `feed` (of a pattern of its size where it waits for a camera).

    Raises what the engines and the source raise; an accelerator that cannot be used, or memory that is too small for
    all, takes settings out of the race and is said in `notes`.
    """
    frames = feed if not feed.waits else feeds.pattern(feed.size or feeds.PATTERN_SIZE, settings.camera)
    rows = _opened(options, frames, engines, notes)
    length = POWER_BURST_S if goal.name == "power" and goal.measured_power else BURST_S
    length = min(length, seconds / (2 * len(rows)))

    lost: dict[int, AcceleratorError] = {}

    def measure(position: int) -> float:
        row = rows[position]
        try:
            if position in lost:
                return _LOST
            burst = loop_burst(engines.get(row.setting), frames, length)
        except AcceleratorError as error:
            lost[position] = error
            notes.append(f"{row.setting.words}: {error}")
            return _LOST
        watts = watch.watts(burst.spans)
        energy = watts / burst.rates[0] * 1e3 if watts is not None and burst.rates else None
        if energy is not None:
            row.energies.append(energy)
        row.burst.add(burst)
        return goal.cost(burst, energy)

    outcome = race(measure, len(rows), seconds=seconds, complexity=[row.setting.complexity for row in rows])
    if outcome.winner in lost:
        raise lost[outcome.winner]
    for position, (row, entrant) in enumerate(zip(rows, outcome.entrants)):
        row.entrant = entrant
        row.model, _, row.delegate = engines.name(row.setting)
        if position in lost:
            entrant.why = "lost"
    return Swept(rows, rows[outcome.winner], outcome.rounds, outcome.settled)


def _opened(options: Sequence[Setting], frames: Feed, engines: OpenEngines, notes: list[str]) -> list[Row]:
    """The settings whose engines open, warm."""
    rows: list[Row] = []
    refused: Optional[EdgeMnv2Error] = None
    without: list[Setting] = []
    for setting in options:
        if rows and not engines.has_room():
            without.append(setting)
            continue
        try:
            loop_burst(engines.get(setting), frames, 0.05)
        except AcceleratorError as error:
            if setting.delegate != "edgetpu":
                raise
            notes.append(f"no Edge TPU: {error}")
            refused = error
            continue
        rows.append(Row(setting, frames.size))
    if without:
        notes.append(f"not enough memory to compare {', '.join(setting.words for setting in without)}")
    if not rows:
        assert refused is not None
        raise refused
    return rows
