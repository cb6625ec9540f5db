"""One profile from its request to its document: sweep, measurement, operators, soak, judgement, saved profile."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional, Union

from edge_mnv2 import __version__
from edge_mnv2.device.cpus import limits, online_cpus, resolve_threads, usable_cpus
from edge_mnv2.device.detect import Board, detect
from edge_mnv2.device.expectation import Judgement
from edge_mnv2.device.health import HealthSample
from edge_mnv2.device.profile import Settings
from edge_mnv2.device.saving import place_for
from edge_mnv2.device.throttling import explain
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.loop.engines import chosen_resize
from edge_mnv2.outputs.log_file import Every, LogFile
from edge_mnv2.outputs.sink import Isolated
from edge_mnv2.profiler import feed as feeds
from edge_mnv2.profiler import operators, reference
from edge_mnv2.profiler.advice import Advice, advise
from edge_mnv2.profiler.goal import Goal
from edge_mnv2.profiler.measurement import Measurement, measure
from edge_mnv2.profiler.open_engines import OpenEngines
from edge_mnv2.profiler.save import save
from edge_mnv2.profiler.setting import Setting
from edge_mnv2.profiler.soak import Soak, soak
from edge_mnv2.profiler.sweep import Row, Swept, candidates, sweep, sweep_sizes
from edge_mnv2.profiler.watch import Watch
from edge_mnv2.runtime.classifier import Classifier, simulated_inference_ns
from edge_mnv2.zoo.resolve import Resolved, resolve

log = logging.getLogger(__name__)

SECONDS = 8.0
SWEEP_SECONDS = 70.0
_OPERATORS_S = 6.0
_BUSY_CPUS = 0.25


@dataclass(frozen=True)
class Request:
    """What `profile` was asked for. `models` has several only with `sweep`.

    `seconds` is the time for measuring, without operators and soak; None takes the usual. `root` holds the board's
    identity and sensors.
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


@dataclass
class Profiled:
    """Everything that was found. `document` is the JSON document of the command line's contract."""

    board: Board
    goal: Goal
    setting: Setting
    measurement: Measurement
    swept: Optional[Swept] = None
    advice: Optional[Advice] = None
    operators: Optional[operators.Operators] = None
    soak: Optional[Soak] = None
    judgement: Optional[Judgement] = None
    notes: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)


def profile(request: Request) -> Profiled:
    """Measure. Raises the leaf of EdgeMnv2Error that fits where something asked for cannot be done."""
    goal = Goal(request.goal)
    if request.save is not None:
        place_for(request.save)
    if request.report is not None and (request.report.is_dir() or not request.report.absolute().parent.is_dir()):
        raise UsageError(f"--report {request.report}: not a file in an existing folder")
    if request.soak_log is not None and request.soak_minutes is None:
        raise UsageError("--log without --soak", hint="give --soak MINUTES too")
    if len(request.models) > 1 and not request.sweep:
        raise UsageError("several models without --sweep", hint="add --sweep to compare them")
    session = _Session(request, goal)
    found = session.measure()
    if request.save is not None:
        found.document["saved"] = str(session.save(request.save, found))
    if request.report is not None:
        from edge_mnv2.profiler.report import write_report

        write_report(request.report, found)
    return found


class _Session:
    def __init__(self, request: Request, goal: Goal) -> None:
        self.request = request
        self.settings = request.settings
        self.board = detect(request.root)
        self.feed = feeds.choose(request.source, self.settings.camera)
        self.notes: list[str] = []
        self.goal = goal
        self.usable = usable_cpus()
        self.threads = self._threads()
        if str(request.root) != "/":
            self.notes.append(f"the board's identity and sensors are those of {request.root}")
        if simulated := simulated_inference_ns():
            self.notes.append(f"simulated: each inference takes at least {simulated / 1e6:g} ms")

    def measure(self) -> Profiled:
        request = self.request
        with OpenEngines(self.settings) as engines:
            with Watch(request.root) as watch:
                self.goal = dataclasses.replace(self.goal, measured_power=watch.measures_power)
                swept = self._sweep(engines, watch) if request.sweep else None
                setting = swept.winner.setting if swept else self._own_setting()
                classifiers = engines.get(setting)
                found = self._measured(engines, classifiers, setting, swept, watch)
                worst = watch.worst()
                health = (watch.before, watch.latest, worst)
            self.notes += [note for note in engines.notes if note not in self.notes]
            if request.soak_minutes is not None:
                found.soak = self._soak(classifiers, request.soak_minutes)
            model = _resolved(classifiers[0])
            if request.operators:
                found.operators = self._operators(model)
            self._judge(found, model, engines.name(setting), health)
            found.document = self._document(found, engines.name(setting), model, health)
        return found

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
        runtime = self.settings.runtime
        workers = 1 if runtime.workers == "auto" else int(runtime.workers)
        model = next(iter(self.request.models)) or runtime.model
        return Setting(model, runtime.delegate, self.threads, workers)

    def _sweep(self, engines: OpenEngines, watch: Watch) -> Swept:
        request = self.request
        options = candidates(self.settings, request.models, self.usable, self.notes)
        seconds = (request.seconds or SWEEP_SECONDS) * 0.75
        log.info("comparing %d settings for up to %.0f s: %s", len(options), seconds, self.goal.meaning)
        swept = sweep(self.settings, options, self.goal, self.feed, engines, watch, seconds=seconds, notes=self.notes)
        log.info("best: %s", swept.winner.setting.words)
        swept.sizes, swept.best_size = sweep_sizes(
            self.settings,
            swept.winner,
            self.goal,
            self.feed,
            request.source,
            engines.get(swept.winner.setting),
            self.notes,
        )
        if swept.best_size is not None and swept.best_size.size is not None:
            width, height = swept.best_size.size
            camera = dataclasses.replace(self.settings.camera, width=width, height=height)
            self.feed = feeds.choose(request.source, camera)
        if len({row.model for row in swept.rows if not row.setting.accelerated}) > 1:
            self.notes.append("models are compared by speed alone; for their accuracy: edge-mnv2 evaluate")
        return swept

    def _measured(
        self,
        engines: OpenEngines,
        classifiers: Sequence[Classifier],
        setting: Setting,
        swept: Optional[Swept],
        watch: Watch,
    ) -> Profiled:
        usual = SWEEP_SECONDS / 4 if swept else SECONDS
        seconds = usual if self.request.seconds is None else self.request.seconds * (0.25 if swept else 1)
        log.info("measuring %s for %.0f s", setting.words, seconds)
        measurement = measure(classifiers, self.feed, watch, seconds=seconds, load_ms=engines.load_ms(setting))
        if measurement.others is not None and measurement.others > _BUSY_CPUS:
            self.notes.append(
                f"other programs kept {measurement.others:.1f} CPUs busy meanwhile: the board can do better than this"
            )
        words = watch.worst()[1]
        if words:
            self.notes.append(f"throttled while measuring: {explain(words)}")
        return Profiled(
            self.board,
            self.goal,
            setting,
            measurement,
            swept,
            advise(swept.rows) if swept else None,
            notes=self.notes,
        )

    def _soak(self, classifiers: Sequence[Classifier], minutes: float) -> Soak:
        log.info("soak: %g minutes on %s", minutes, self.feed.description)
        with contextlib.ExitStack() as stack:
            sinks = []
            if self.request.soak_log is not None:
                sinks.append(Isolated(LogFile(self.request.soak_log, Every(seconds=1.0))))
                stack.callback(sinks[0].close)
            return soak(classifiers, self.feed, minutes, root=self.request.root, sinks=sinks)

    def _operators(self, model: Resolved) -> Optional[operators.Operators]:
        log.info("measuring the operators of %s", model.name)
        try:
            return operators.measure(model.path, seconds=_OPERATORS_S, runtime=self.settings.runtime.backend)
        except ModelError as error:
            self.notes.append(str(error))
            return None

    def _judge(self, found: Profiled, model: Resolved, names: tuple[str, str, str], health: _Health) -> None:
        _, sample, (_, words) = health
        if words:
            sample = dataclasses.replace(sample, throttled=list(words))
        found.judgement = reference.compare(
            model,
            found.measurement.document()["model_ms"]["p50"],
            self.settings.expected,
            board=self.board,
            sample=sample,
            threads=found.setting.threads,
            delegate=names[2],
            others=found.measurement.others,
            root=self.request.root,
        )

    def _document(
        self, found: Profiled, names: tuple[str, str, str], model: Resolved, health: _Health
    ) -> dict[str, Any]:
        before, after, (max_temp_c, throttled) = health
        swept = found.swept
        granted = self.feed.source.granted
        width, height = self.feed.size or ((granted.width, granted.height) if granted else (None, None))
        return {
            "board": self.board.model,
            "settings": {
                "profile": self.settings.profile,
                "model": names[0],
                "runtime": names[1],
                "delegate": names[2],
                "threads": found.setting.threads,
                "workers": found.setting.workers,
                "resize": chosen_resize(self.settings) or model.preprocess.resize or "crop",
                "source": self.feed.description,
                "width": width,
                "height": height,
            },
            **found.measurement.document(),
            "goal": self.goal.name,
            "goal_means": self.goal.meaning,
            "sweep": [row.document() for row in [*swept.rows, *swept.sizes]] if swept else [],
            "sweep_rounds": swept.rounds if swept else None,
            "winner": (_with_size(swept)).document() if swept else None,
            "accelerator": found.advice.document() if found.advice else None,
            "expected": reference.document(found.judgement),
            "health": {
                "temp_c": after.temp_c,
                "temp_before_c": before.temp_c,
                "max_temp_c": max_temp_c,
                "cpu_mhz": after.cpu_mhz,
                "governor": after.governor,
                "power_mode": after.power_mode,
                "throttled": None if throttled is None else list(throttled),
                "throttled_since_boot": after.throttled_since_boot,
                "memory_available_mb": after.memory_available_mb,
            },
            "ops": found.operators.document() if found.operators else None,
            "soak": found.soak.document() if found.soak else None,
            "notes": self.notes,
            "arch": self.board.arch,
            "os": self.board.os,
            "cpus_usable": self.usable,
            "cpus_limited_by": limits(),
            "version": __version__,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "saved": None,
        }

    def save(self, name: str, found: Profiled) -> Path:
        """Write the measured settings as profile `name`."""
        setting, swept, document = found.setting, found.swept, found.document
        values: dict[str, Any] = {"runtime.threads": setting.threads, "runtime.workers": setting.workers}
        if setting.model is not None and (setting.accelerated or self._model_was_asked()):
            values["runtime.model"] = _saved_model(setting.model)
        if swept is not None and found.advice is not None:
            # "auto" takes the TPU while it is there; with "edgetpu" the day it is unplugged would end in an error.
            values["runtime.delegate"] = "auto" if setting.accelerated else "none"
            if setting.accelerated:
                values["runtime.threads"] = _best_on_cpu(swept.rows).threads
        if swept is not None and swept.best_size is not None and swept.best_size.size is not None:
            values["camera.width"], values["camera.height"] = swept.best_size.size
        figures = {
            "model_p50_ms": document["model_ms"]["p50"],
            "end_to_end_p50_ms": document["end_to_end_ms"]["p50"],
            "fps": document["fps"],
            "cpu_ms_per_frame": document["cpu"]["ms_per_frame"],
            "energy_mj": document["energy_mj"],
            "max_temp_c": document["health"]["max_temp_c"],
        }
        return save(
            name,
            self.settings,
            values,
            self.board,
            goal=self.goal.name if swept is not None else None,
            runtime=document["settings"]["runtime"],
            figures=figures,
        )

    def _model_was_asked(self) -> bool:
        return any(model is not None for model in self.request.models)


_Health = tuple[HealthSample, HealthSample, tuple[Optional[float], Optional[tuple[str, ...]]]]


def _resolved(classifier: Classifier) -> Resolved:
    return resolve(str(classifier.facts.path))


def _saved_model(model: str) -> str:
    """A name as it is; a path so that it holds wherever `run` is started."""
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_file() else model


def _best_on_cpu(rows: Sequence[Row]) -> Setting:
    """What to use while the TPU is away."""
    return min((row for row in rows if not row.setting.accelerated), key=lambda row: row.entrant.ratio).setting


def _with_size(swept: Swept) -> Row:
    """The winner, in the size that was best where a camera was asked."""
    if swept.best_size is None:
        return swept.winner
    return dataclasses.replace(swept.winner, size=swept.best_size.size)
