"""One run from its settings to its summary: model, source, outputs, loop, signals."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Optional

from edge_mnv2.app.health_limits import HealthLimits
from edge_mnv2.app.outputs import Outputs, ServedPage
from edge_mnv2.app.run_model import RunModel
from edge_mnv2.app.source_choice import ChosenSource, choose_source, reads_file
from edge_mnv2.board.cpus import no_spare_cpu
from edge_mnv2.board.health import HealthMonitor, HealthSample
from edge_mnv2.camera.frame import FrameSource
from edge_mnv2.camera.settings import parse
from edge_mnv2.errors import PARTIAL, AcceleratorError, EdgeMnv2Error
from edge_mnv2.outputs.live import Facts
from edge_mnv2.outputs.status import status_text
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.controls import Controls
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.statistics import Statistics
from edge_mnv2.runtime.classifier import simulated_inference_ns
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.signals import on_signals
from edge_mnv2.zoo.registry import DEFAULT_MODEL

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunRequest:
    """What `run` was asked for; `settings` are the device profile's keys with everything that overrides them.

    `page` is one that is served already, where `outputs` ask for one.
    """

    settings: Settings
    source: Optional[str] = None
    camera: Optional[str] = None
    on_tpu_loss: str = "cpu"
    every_frame: bool = False
    repeat: bool = False
    max_frames: Optional[int] = None
    duration_s: Optional[float] = None
    give_up_s: Optional[float] = None
    outputs: OutputValues = field(default_factory=OutputValues)
    notes: Sequence[str] = field(default_factory=tuple)
    page: Optional[ServedPage] = None


@dataclass(frozen=True)
class RunOutcome:
    """The summary by the names of the command line's contract, the exit code, and the error that ended the run."""

    summary: dict[str, Any]
    exit_code: int
    error: Optional[EdgeMnv2Error] = None


class _Stopped(BaseException):
    """A signal came before the loop had begun. No error: nothing that deals with errors may take it for one."""


class _Signals:
    """SIGINT, SIGTERM and SIGHUP end the run; before there is a loop, they end what is being opened."""

    def __init__(self) -> None:
        self.loop: Optional[FrameLoop] = None
        self.came = False

    def __call__(self, _number: int, _frame: Optional[FrameType]) -> None:
        self.came = True
        if self.loop is None:
            raise _Stopped
        self.loop.stop()


def run(request: RunRequest) -> RunOutcome:
    """Run until the source, a limit or a signal ends it.

    Raises the leaf of EdgeMnv2Error that fits where the run cannot begin (unusable output path, model, source) and
    ModelError where the model fails on the way; a source or an accelerator that is lost for good is in the outcome,
    with the summary.
    """
    signals = _Signals()
    session = Session(request)
    with on_signals(signals):
        try:
            with contextlib.ExitStack() as stack:
                session.open(stack)
                signals.loop = session.loop
                if signals.came:
                    raise _Stopped
                session.work()
        except _Stopped:
            session.ended = "signal"
        except Exception:
            # What a library makes of a signal in the middle of its import.
            if not signals.came or session.loop is not None:
                raise
            session.ended = "signal"
    return session.outcome()


class Session:
    """One run: `open`, `work`, then its `outcome`."""

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.loop: Optional[FrameLoop] = None
        self.model: Optional[RunModel] = None
        self.chosen: Optional[ChosenSource] = None
        self.health: Optional[HealthMonitor] = None
        self.outputs = Outputs(request.outputs, request.settings.camera.ca, request.page)
        self.failed: Optional[AcceleratorError] = None
        self.ended = "signal"
        self._taught: Optional[str] = None

    def open(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(self.outputs)
        self.request = request = replace(self.request, settings=_with_newest_model(self.request.settings))
        settings = self._with_taught_model(request.settings)
        # With every frame it is throughput that counts, and a decoder needs a CPU of its own.
        spare, embeds = int(request.every_frame), self.outputs.live.collector is not None
        shared = request.every_frame and reads_file(request.source, request.camera, settings.camera)
        self.model = model = stack.enter_context(RunModel(settings, request.on_tpu_loss, spare, shared, embeds))
        self._check_source()
        self.chosen = choose_source(
            request.source,
            request.camera,
            settings.camera,
            give_up_s=request.give_up_s,
            hurry=request.every_frame,
            least_side=self._least_side(),
            network=model.camera_network(),
        )
        source = stack.enter_context(self.chosen.source)
        for note in (*request.notes, *model.classifiers.notes, *self.chosen.notes):
            log.info("%s", note)
        limits, output = HealthLimits(settings.health), settings.output
        self.health = stack.enter_context(HealthMonitor(listener=lambda sample: self._watch(limits, sample)))
        self.loop = FrameLoop(
            source,
            model.classifiers.classifiers,
            every_frame=request.every_frame,
            # The page of a run that nobody gave a source shall be there for longer than the demo clip lasts.
            repeat=request.repeat or (self.chosen.fallback and self.outputs.serves_page),
            max_frames=request.max_frames,
            duration_s=request.duration_s,
            controls=Controls(output.least_score, output.smooth, output.shown_from(model.taught), model.first.unknown),
            health=self.health.latest,
            max_fps=lambda: limits.max_fps,
            decider=model.decider(),
            gate=model.gate(),
            inline=no_spare_cpu(len(model.classifiers.classifiers)),
            bursts=request.every_frame,
        )
        self.outputs.attach(self.loop, self._facts(), source, self._describe, model, model.first.labels)
        contest = model.classifiers.contest
        if contest is not None:
            # The results of one file come from one runtime.
            contest.take_over = self._take_winner if source.live else None
            stack.enter_context(contest)
        self._join_workbench(stack, source)

    def _take_winner(self) -> None:
        model, loop = self.model, self.loop
        assert model is not None and loop is not None
        model.take_winner(loop, lambda: self.outputs.changed(self._facts(), model.first.labels))

    def _join_workbench(self, stack: contextlib.ExitStack, source: FrameSource) -> None:
        """What the page can do with the model, where there is a page or pictures are collected."""
        live, model, loop = self.outputs.live, self.model, self.loop
        if not (self.outputs.serves_page or live.collector or live.remote) or model is None or loop is None:
            return
        from edge_mnv2.app.board_models import embedder_of
        from edge_mnv2.app.run_model import WorkbenchRun
        from edge_mnv2.app.workbench import ModelWorkbench
        from edge_mnv2.files import sha256_of
        from edge_mnv2.zoo.resolve import resolve

        def changed(name: str) -> Callable[[], None]:
            digest = sha256_of(resolve(name).path)[:16] if live.collector else ""

            def tell() -> None:
                self.outputs.changed(self._facts(), model.first.labels)
                if live.collector:
                    live.collector.use(digest, lambda: embedder_of(name))

            return tell

        name = self.request.settings.runtime.model or DEFAULT_MODEL
        in_use = self._taught or name
        collection = live.collector.collection if live.collector else None
        running = WorkbenchRun(model, loop, source, live, self.outputs.check, changed)
        said = self.request.settings.model
        bench = live.workbench = ModelWorkbench(collection, name, running, options=said, in_use=in_use)
        stack.callback(bench.close)
        if live.collector:
            live.collector.use(sha256_of(resolve(in_use).path)[:16], lambda: embedder_of(in_use))

    def _with_taught_model(self, settings: Settings) -> Settings:
        """With the model that the page put in place of the one asked for, in an earlier run over the collection."""
        folder = self.request.outputs["collect"]
        if folder is None:
            return settings
        from edge_mnv2.app.board_models import taught_in_place_of

        asked = settings.runtime.model or DEFAULT_MODEL
        self._taught = taught_in_place_of(asked, Path(folder))
        if self._taught is None:
            return settings
        log.info("the model taught in %s runs in place of %s; /review steps back", folder, asked)
        return replace(settings, runtime=replace(settings.runtime, model=self._taught), model=ModelOptions())

    def _check_source(self) -> None:
        request, settings = self.request, self.request.settings
        asked = request.camera is not None or request.source not in (None, "auto")
        if not asked and settings.camera.source is not None:
            with settings.blamed("camera.source"):
                parse(settings.camera.source)

    def _least_side(self) -> Optional[int]:
        """The shorter side of the smallest picture that serves, None where somebody looks at the whole of it."""
        assert self.model is not None
        if self.outputs.want_pictures or self.request.settings.camera.roi is not None:
            return None
        return self.model.first.least_side

    def _facts(self) -> Facts:
        assert self.model is not None and self.chosen is not None
        model = self.model.classifiers
        return Facts(
            model=_text(model.model),
            runtime=model.runtime,
            delegate=model.delegate,
            threads=model.threads,
            workers=len(model.classifiers),
            device=self.request.settings.profile,
            source=_text(self.chosen.source.description),
        )

    def _watch(self, limits: HealthLimits, sample: HealthSample) -> None:
        frames = self.loop.statistics.frames if self.loop else 0
        for line in limits.update(sample, self.loop.statistics.recent_fps() if self.loop and frames else None):
            log.warning("%s", line)

    def work(self) -> None:
        assert self.loop is not None and self.model is not None and self.chosen is not None
        log.info(
            "%s | %s | %s",
            self.model.classifiers.description,
            self.chosen.source.description,
            self.request.settings.profile,
        )
        # What was loaded stays: from here on nobody looks for garbage among it.
        gc.freeze()
        gc.enable()
        try:
            self.ended = self.loop.run()
            self.outputs.hurry = self.ended == "signal"
        except AcceleratorError as error:
            self.failed, self.ended = error, "tpu_lost"

    def outcome(self) -> RunOutcome:
        loop, source = self.loop, self.chosen.source if self.chosen else None
        lost = self.failed or (loop.lost if loop else None)
        write_errors = self.outputs.errors
        bad_inputs = len(source.errors) if source else 0
        statistics = loop.statistics if loop else Statistics()
        if lost is not None:
            code = lost.exit_code
        elif bad_inputs and not statistics.frames and self.ended == "eof":
            code = 4
        elif write_errors or bad_inputs:
            code = PARTIAL
        else:
            code = 0
        return RunOutcome(self._summary(statistics, write_errors), code, lost)

    def _summary(self, statistics: Statistics, write_errors: int) -> dict[str, Any]:
        chosen, loop = self.chosen, self.loop
        model = self.model.classifiers if self.model else None
        measured = statistics.measured()
        rss = measured.pop("rss_mb")
        heat, throttled = self.health.worst() if self.health else (None, None)
        return {
            "model": model.model if model else None,
            "runtime": model.runtime if model else None,
            "delegate": model.delegate if model else None,
            "threads": model.threads if model else None,
            "workers": len(model.classifiers) if model else None,
            "device": self.request.settings.profile,
            "source": chosen.source.description if chosen else None,
            "view": chosen.source.view.as_dict() if chosen and chosen.source.view is not None else None,
            "fallback": chosen.fallback if chosen else False,
            "frames": measured.pop("frames"),
            "dropped": loop.dropped if loop else 0,
            "gated": statistics.gated,
            **measured,
            "rss_mb": rss,
            "max_temp_c": heat,
            "throttled": None if throttled is None else list(throttled),
            "reconnects": chosen.source.reconnects if chosen else 0,
            "tpu_losses": self.model.tpu_losses if self.model else 0,
            "engine_seconds": model.seconds if model else None,
            "write_errors": write_errors,
            **self.outputs.counts,
            "swaps": self.model.swaps if self.model else 0,
            "ended": self.ended,
        }

    def _describe(self, latest: Any, classes: bool = True) -> str:
        assert self.loop is not None and self.chosen is not None
        simulated = simulated_inference_ns()
        note = f"simulated: at least {simulated / 1e6:g} ms" if simulated else ""
        return status_text(
            self.loop.statistics,
            latest,
            dropped=self.loop.dropped,
            state=self.chosen.source.state,
            note=note,
            classes=classes,
        )


def _with_newest_model(settings: Settings) -> Settings:
    """With the newest model of the registry where NAME@latest asks for it."""
    from edge_mnv2.zoo.latest import name_of

    name = name_of(settings.runtime.model)
    if name is None:
        return settings
    from edge_mnv2.app.board_models import newest

    return replace(settings, runtime=replace(settings.runtime, model=str(newest(name))))


def _text(name: str) -> str:
    """A file's name may be no text, and pages and messages are."""
    return name.encode(errors="backslashreplace").decode()
