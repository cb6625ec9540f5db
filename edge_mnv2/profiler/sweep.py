"""Settings against each other: threads, workers, delegates, models, and the sizes that frames are captured in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.board.accelerators import Accelerator, automatic
from edge_mnv2.errors import AcceleratorError, EdgeMnv2Error, ModelError
from edge_mnv2.profiler.burst import (
    PATTERN_SIZE,
    Burst,
    Feed,
    choose_feed,
    loop_burst,
    median,
    pattern_feed,
    percentiles,
    rounded,
)
from edge_mnv2.profiler.measurement import Goal, OpenClassifiers, Setting, cpu_settings, pinned, supervised_settings
from edge_mnv2.profiler.race import Entrant, race
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.contest import Contest, allowed, rivals
from edge_mnv2.runtime.delegate import ask, on_cpu, parse, planned, rival_of_cpu, unless_required
from edge_mnv2.runtime.table import reference
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
    runtime: str = ""

    @property
    def fps(self) -> Optional[float]:
        return median(self.burst.rates)

    def document(self) -> dict[str, Any]:
        """As an entry of `sweep` in the JSON document."""
        width, height = self.size or (None, None)
        return {
            "compares": self.compares,
            "model": self.model,
            "runtime": self.runtime,
            "delegate": self.delegate,
            "threads": self.setting.threads,
            "workers": self.setting.workers,
            "width": width,
            "height": height,
            "fps": rounded(self.fps, 2),
            "end_to_end_ms": percentiles(self.burst.end_to_end),
            "stages_ms": {
                "preprocess": percentiles(self.burst.preprocess, (0.5, 0.95)),
                "inference": percentiles(self.burst.inference, (0.5, 0.95)),
            },
            "cpu_ms_per_frame": rounded(self.burst.cpu_ms_per_frame, 3),
            "energy_mj": rounded(median(self.energies), 3),
            "frames": self.burst.frames,
            "rounds": len(self.entrant.costs),
            "ratio": round(self.entrant.ratio, 4),
            "stopped": self.entrant.why,
        }


@dataclass
class Swept:
    """`winner` is one of `rows`. `sizes`: the winner on frames of other sizes; `best_size`: one of them, of cameras."""

    rows: list[Row]
    winner: Row
    rounds: int
    settled: bool
    sizes: list[Row] = field(default_factory=list)
    best_size: Optional[Row] = None


def candidates(settings: Settings, models: Sequence[Optional[str]], usable: int, notes: list[str]) -> list[Setting]:
    """What to compare: the CPU and, where one can be used, an accelerator, for each of `models`.

    A number of threads or workers, or a delegate, from the command line or the environment is kept. What cannot take
    part is said in `notes`. Raises ModelError for a model that neither can run, AcceleratorError where nothing is left.
    """
    asked = settings.runtime.delegate
    fixed = settings.origin("runtime.delegate").kind in ("command line", "environment") and asked != "auto"
    spec = parse(asked)
    threads, workers = pinned(settings, "runtime.threads"), pinned(settings, "runtime.workers")
    threads = threads and min(threads, usable)
    compiled = set()
    own = {model: supervised_settings(settings.runtime, model, usable, workers) for model in models}
    options = [setting for listed in own.values() for setting in listed]
    models = [model for model in models if not own[model]]
    if not models:
        return options
    if (row := rival_of_cpu(spec, fixed)) is not None:
        asked_for = spec if spec.required else parse("auto")
        with unless_required(row, spec, notes):
            counts = _counts(row, workers)
            for model in models:
                plan = planned(row, lambda module, model=model: module.plan(model, asked_for, False))  # type: ignore[misc]
                if plan.tpu is None:
                    notes += plan.notes
                    continue
                compiled.add(model)
                name = _request(plan.tpu)
                options += [Setting(name, str(spec) if spec.required else row.name, 1, count) for count in counts]
    if not (fixed and spec.required):
        for model in models:
            try:
                plan = on_cpu(model, parse("none"))
            except ModelError as error:
                if model not in compiled:
                    raise
                notes.append(str(error))
                continue
            assert plan.cpu is not None
            notes += [note for note in plan.notes if not options]
            runtimes = _runtimes(settings, plan.cpu.path, accelerate=not (fixed and spec.mode == "none"), notes=notes)
            options += cpu_settings([_request(plan.cpu)], usable, threads, workers, runtimes)
    return options


def _runtimes(settings: Settings, path: Path, accelerate: bool, notes: list[str]) -> list[str]:
    """The runtimes to compare: the one that was asked for, else the reference and those that answer as it does."""
    asked = settings.runtime.backend
    if not allowed() or (
        asked != "auto" and settings.origin("runtime.backend").kind in ("command line", "environment")
    ):
        return [asked]
    equal = []
    for row in rivals(path, accelerate):
        log.info("comparing the answers of %s with those of %s", row.name, reference().name)
        if why := Contest(path, accelerate).equal(row):
            notes.append(f"{row.name} takes no part: {why}")
        else:
            equal.append(row.name)
    return [reference().name, *equal] if equal or asked != "auto" else ["auto"]


def _request(model: Resolved) -> str:
    """What means `model` to `run`: its name where it lies in its own place, else its path."""
    try:
        if resolve(model.name).path == model.path:
            return model.name
    except ModelError:
        pass
    return str(model.path.absolute())


def _counts(row: Accelerator, workers: Optional[int]) -> list[int]:
    """Numbers of workers to try on the accelerators: there is one for each device."""
    attached = max(1, ask(row, lambda module: int(module.count()))) if row.automatic else 1
    return [min(workers, attached)] if workers is not None else list(range(1, attached + 1))


def sweep(
    settings: Settings,
    options: Sequence[Setting],
    goal: Goal,
    feed: Feed,
    opened: OpenClassifiers,
    watch: Watch,
    *,
    seconds: float,
    notes: list[str],
) -> Swept:
    """Race `options` for about `seconds` on frames of `feed` (of a pattern of its size where it waits for a camera).

    Raises what the classifiers and the source raise. An accelerator that cannot be used, or too little memory for all,
    takes settings out of the race and is said in `notes`.
    """
    frames = feed if not feed.waits else pattern_feed(feed.size or PATTERN_SIZE, settings.camera)
    rows = _opened(options, frames, opened, notes)
    length = POWER_BURST_S if goal.name == "power" and goal.measured_power else BURST_S
    length = min(length, seconds / (2 * len(rows)))

    lost: dict[int, AcceleratorError] = {}

    def measure(position: int) -> float:
        row = rows[position]
        try:
            if position in lost:
                return _LOST
            burst = loop_burst(opened.get(row.setting), frames, length)
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
        row.model, row.runtime, row.delegate = opened.name(row.setting)
        if position in lost:
            entrant.why = "lost"
    return Swept(rows, rows[outcome.winner], outcome.rounds, outcome.settled)


def _opened(options: Sequence[Setting], frames: Feed, opened: OpenClassifiers, notes: list[str]) -> list[Row]:
    """The settings whose classifiers open, warm."""
    rows: list[Row] = []
    refused: Optional[EdgeMnv2Error] = None
    without: list[Setting] = []
    for setting in options:
        if rows and not opened.has_room():
            without.append(setting)
            continue
        try:
            loop_burst(opened.get(setting), frames, 0.05)
        except AcceleratorError as error:
            row = automatic(setting.delegate)
            if row is None or row.name != setting.delegate:
                raise
            notes.append(f"no {row.title}: {error}")
            refused = error
            continue
        rows.append(Row(setting, frames.size))
    if without:
        notes.append(f"not enough memory to compare {', '.join(setting.words for setting in without)}")
    if not rows:
        assert refused is not None
        raise refused
    return rows


SIZES = ((640, 480), (1280, 720), (1920, 1080))
CAMERA_BURST_S = 2.5
_SAME_CAMERA = 0.02
_ROUNDS = 6


def sweep_sizes(
    settings: Settings,
    winner: Row,
    goal: Goal,
    feed: Feed,
    source: Optional[str],
    classifiers: Sequence[Classifier],
    notes: list[str],
    *,
    seconds: float,
) -> tuple[list[Row], Optional[Row]]:
    """The winner's classifiers on frames of several sizes, and the best of them where a camera was asked.

    `seconds` bounds the time on test patterns; each size of a camera takes `CAMERA_BURST_S` and its opening.

    The test pattern comes in every size; a camera is asked for each and measured at what it grants. Clips and pictures
    have the size that they have: none is compared.
    """
    if not feed.sizable:
        return [], None
    if feed.waits:
        return _camera_sizes(settings, winner, goal, source, classifiers, notes)
    assert feed.size is not None
    sizes = sorted({*SIZES, feed.size})
    rows = [_size_row(winner, size) for size in sizes]
    seconds = min(seconds, _ROUNDS * BURST_S * len(rows))
    length = min(BURST_S, seconds / (2 * len(rows)))
    patterns = [pattern_feed(size, settings.camera) for size in sizes]

    def measure(position: int) -> float:
        burst = loop_burst(classifiers, patterns[position], length)
        rows[position].burst.add(burst)
        return goal.cost(burst, None)

    outcome = race(measure, len(rows), seconds=seconds, most_rounds=_ROUNDS)
    for row, entrant in zip(rows, outcome.entrants):
        row.entrant = entrant
    _over(rows, next(row for row in rows if row.size == feed.size).entrant.ratio)
    return rows, None


def _over(rows: Sequence[Row], chosen: float) -> None:
    """Make every ratio the cost over that of the chosen size."""
    for row in rows:
        row.entrant.ratio /= chosen


def _size_row(winner: Row, size: Optional[tuple[int, int]]) -> Row:
    return Row(winner.setting, size, winner.model, winner.delegate, compares="sizes", runtime=winner.runtime)


def _camera_sizes(
    settings: Settings,
    winner: Row,
    goal: Goal,
    source: Optional[str],
    classifiers: Sequence[Classifier],
    notes: list[str],
) -> tuple[list[Row], Optional[Row]]:
    rows: list[Row] = []
    own = settings.camera.size
    for size in sorted({*SIZES, *([own] if own else [])}):
        asked = choose_feed(source, replace(settings.camera, width=size[0], height=size[1]))
        try:
            burst = loop_burst(classifiers, asked, CAMERA_BURST_S)
        except EdgeMnv2Error as error:
            notes.append(f"{size[0]}x{size[1]}: {error}")
            continue
        granted = asked.source.granted
        got = (granted.width, granted.height) if granted is not None and granted.width and granted.height else size
        if any(row.size == got for row in rows):
            continue
        row = _size_row(winner, (got[0] or size[0], got[1] or size[1]))
        row.burst.add(burst)
        row.entrant.costs.append(goal.cost(burst, None))
        rows.append(row)
    if not rows:
        return [], None
    cheapest = min(row.entrant.costs[0] for row in rows)
    for row in rows:
        row.entrant.ratio = row.entrant.costs[0] / cheapest
    # One burst each tells no finer, and of two equal sizes the smaller one leaves the CPU more to spare.
    best = next(row for row in rows if row.entrant.ratio <= 1 + _SAME_CAMERA)
    _over(rows, best.entrant.ratio)
    return rows, best
