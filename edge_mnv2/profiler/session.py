"""One profile from its request to its result: sweep, measurement, operators, soak, judgement, saved profile."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.cpus import limits, online_cpus, resolve_threads, usable_cpus
from edge_mnv2.board.detect import detect
from edge_mnv2.board.throttling import explain
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.outputs.log_file import Every, LogFile
from edge_mnv2.outputs.sink import Isolated
from edge_mnv2.profiler import operators
from edge_mnv2.profiler.burst import choose_feed
from edge_mnv2.profiler.judgement import Judgement, advise, judge_model
from edge_mnv2.profiler.measurement import Goal, OpenClassifiers, Setting, measure
from edge_mnv2.profiler.profiled import Looks, Measured, Profiled, save
from edge_mnv2.profiler.soak import soak
from edge_mnv2.profiler.sweep import Swept, candidates, sweep, sweep_sizes
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.runtime.classifier import Classifier, simulated_inference_ns
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.report import place_for
from edge_mnv2.settings.store import user_folder
from edge_mnv2.zoo.resolve import Resolved, resolve

log = logging.getLogger(__name__)

SECONDS = 8.0
SWEEP_SECONDS = 90.0
_SWEEP_SHARE = 0.75
"""Share of the time of a sweep that the race takes; the rest is for the winner alone."""
_SIZES_SHARE = 0.1
_OPERATORS_S = 6.0
_BUSY_CPUS = 0.25


@dataclass(frozen=True)
class Request:
    """What `profile` was asked for. `models` has several only with `sweep`.

    `seconds` is the time for measuring, without operators (which take no longer) and soak; None takes the usual.
    `root` holds the board's identity and sensors.
    """

    settings: Settings
    models: Sequence[Optional[str]] = (None,)
    source: Optional[str] = None
    sweep: bool = False
    goal: str = "latency"
    soak_minutes: Optional[float] = None
    soak_log: Optional[str] = None
    operators: bool = False
    save: Optional[str] = None
    report: Optional[Path] = None
    seconds: Optional[float] = None
    root: Union[str, Path] = "/"


def profile(request: Request) -> Profiled:
    """Measure. Raises the leaf of EdgeMnv2Error that fits where something asked for cannot be done."""
    goal = Goal(request.goal)
    if request.save is not None:
        place_for(request.save)
        _writable("--save", user_folder(), create=True)
    if request.report is not None:
        if request.report.is_dir() or not request.report.absolute().parent.is_dir():
            raise UsageError(f"--report {request.report}: not a file in an existing folder")
        _writable("--report", request.report.absolute().parent)
    if request.soak_log is not None and request.soak_minutes is None:
        raise UsageError("--log without --soak", hint="give --soak MINUTES too")
    if len(request.models) > 1 and not request.sweep:
        raise UsageError("several models without --sweep", hint="add --sweep to compare them")
    with contextlib.ExitStack() as stack:
        sinks = []
        if request.soak_log is not None:
            sinks.append(Isolated(LogFile(request.soak_log, Every(seconds=1.0))))
            stack.callback(sinks[0].close)
        result = _Session(request, goal).measure(sinks)
    if request.save is not None:
        result.saved = save(request.save, result)
    if request.report is not None:
        from edge_mnv2.html_report import write_page
        from edge_mnv2.profiler.report import render

        write_page(request.report, render(result))
    return result


def _writable(option: str, folder: Path, create: bool = False) -> None:
    """Hours of measuring must not end in a file that cannot be written: try before. Raises UsageError."""
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{option}: cannot write in {folder}: {error.strerror or error}") from None


class _Session:
    def __init__(self, request: Request, goal: Goal) -> None:
        self.request = request
        self.settings = request.settings
        self.board = detect(request.root)
        self.feed = choose_feed(request.source, self.settings.camera)
        self.notes: list[str] = []
        self.goal = goal
        self.usable = usable_cpus()
        self.threads = self._threads()
        if str(request.root) != "/":
            self.notes.append(f"the board's identity and sensors are those of {request.root}")
        if simulated := simulated_inference_ns():
            self.notes.append(f"simulated: each inference takes at least {simulated / 1e6:g} ms")

    def measure(self, soak_sinks: Sequence[Isolated] = ()) -> Profiled:
        request = self.request
        with OpenClassifiers(self.settings) as opened:
            with Watch(request.root) as watch:
                self.goal = dataclasses.replace(self.goal, measured_power=watch.measures_power)
                swept = self._sweep(opened, watch) if request.sweep else None
                result = self._measured(opened, swept, watch)
            self.notes += [note for note in opened.notes if note not in self.notes]
            result.judgement = self._judgement(result)
            if request.soak_minutes is not None:
                log.info("soak: %g min on %s", request.soak_minutes, self.feed.description)
                classifiers = opened.get(result.measured.setting)
                result.soak = soak(classifiers, self.feed, request.soak_minutes, root=request.root, sinks=soak_sinks)
            if request.operators:
                result.operators = self._operators(result.measured.model)
        return result

    def _threads(self) -> int:
        threads, note = resolve_threads(self.settings.runtime.threads)
        why = limits()
        if note:
            self.notes.append(note)
        elif why and self.settings.runtime.threads == "auto":
            cpus = f"{self.usable} of {online_cpus()} CPUs may be used"
            self.notes.append(f"threads: at most {threads}, because {cpus} ({why.partition(',')[0]})")
        return threads

    def _own_setting(self) -> Setting:
        """The setting in force, measured without a sweep."""
        asked = self.settings.runtime
        workers = 1 if asked.workers == "auto" else int(asked.workers)
        return Setting(self.request.models[0] or asked.model, asked.delegate, self.threads, workers, asked.backend)

    def _sweep(self, opened: OpenClassifiers, watch: Watch) -> Swept:
        request = self.request
        options = candidates(self.settings, request.models, self.usable, self.notes)
        seconds = (request.seconds or SWEEP_SECONDS) * _SWEEP_SHARE
        log.info("comparing %d settings for up to %.2g s: %s", len(options), seconds, self.goal.meaning)
        swept = sweep(self.settings, options, self.goal, self.feed, opened, watch, seconds=seconds, notes=self.notes)
        winner = swept.winner
        log.info("best: %s", winner.setting.words)
        swept.sizes, swept.best_size = sweep_sizes(
            self.settings,
            winner,
            self.goal,
            self.feed,
            request.source,
            opened.get(winner.setting),
            self.notes,
            seconds=(request.seconds or SWEEP_SECONDS) * _SIZES_SHARE,
        )
        if swept.best_size is not None and swept.best_size.size is not None:
            width, height = swept.best_size.size
            camera = dataclasses.replace(self.settings.camera, width=width, height=height)
            self.feed = choose_feed(request.source, camera)
        if len({row.model for row in swept.rows if not row.setting.accelerated}) > 1:
            self.notes.append("models are compared by speed alone; for their accuracy: edge-mnv2 evaluate")
        return swept

    def _measured(self, opened: OpenClassifiers, swept: Optional[Swept], watch: Watch) -> Profiled:
        setting = swept.winner.setting if swept else self._own_setting()
        usual = SWEEP_SECONDS if swept else SECONDS
        seconds = (self.request.seconds or usual) * (1 - _SWEEP_SHARE if swept else 1)
        classifiers = opened.get(setting)
        log.info("measuring %s for %.2g s", setting.words, seconds)
        measurement = measure(classifiers, self.feed, watch, seconds=seconds, load_ms=opened.load_ms(setting))
        looks = Looks(watch.before, watch.latest, *watch.worst(), watch.npu_max_temp_c, watch.npu_load)
        if measurement.others is not None and measurement.others > _BUSY_CPUS:
            better = "can do better than this" + (", and may then want other settings" if swept else "")
            self.notes.append(f"other programs kept {measurement.others:.1f} CPUs busy meanwhile: the board {better}")
        if looks.throttled:
            self.notes.append(f"throttled while measuring: {explain(looks.throttled)}")
        granted = self.feed.source.granted
        size = (granted.width, granted.height) if granted is not None and granted.width and granted.height else None
        model, runtime, delegate = opened.name(setting)
        measured = Measured(
            setting, _resolved(classifiers[0]), model, runtime, delegate, self.feed.description, self.feed.size or size
        )
        return Profiled(
            self.board,
            self.settings,
            self.goal,
            measured,
            measurement,
            looks,
            self.usable,
            limits(),
            swept,
            advise(swept.rows) if swept else None,
            notes=self.notes,
        )

    def _judgement(self, result: Profiled) -> Optional[Judgement]:
        looks, measured = result.looks, result.measured
        sample = looks.after
        if looks.throttled:
            sample = dataclasses.replace(sample, throttled=list(looks.throttled))
        return judge_model(
            measured.model,
            result.measurement.document()["model_ms"]["p50"],
            self.settings.expected,
            root=self.request.root,
            board=self.board,
            sample=sample,
            threads=measured.setting.threads,
            # XNNPACK is LiteRT's: that another runtime goes without it is no cause of slowness.
            delegate=measured.delegate if measured.setting.runtime in ("auto", "litert") else measured.setting.runtime,
            others=result.measurement.others,
        )

    def _operators(self, model: Resolved) -> Optional[operators.Operators]:
        log.info("measuring the operators of %s", model.name)
        try:
            seconds = min(_OPERATORS_S, self.request.seconds or _OPERATORS_S)
            return operators.measure(model.path, seconds=seconds, runtime=self.settings.runtime.backend)
        except ModelError as error:
            self.notes.append(str(error))
            return None


def _resolved(classifier: Classifier) -> Resolved:
    return resolve(str(classifier.path))
