"""The model of a run: its classifiers, what depends on their labels, and another model that takes over."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from edge_mnv2.camera.frame import FrameSource
from edge_mnv2.camera.settings import CameraNetwork, Roi
from edge_mnv2.errors import EdgeMnv2Error, UsageError
from edge_mnv2.outputs.live import Live
from edge_mnv2.pipeline.decision import Decider, is_class, rows_named
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.stages import SceneGate
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import Classifiers, open_classifiers
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.zoo.model_facts import MovedThreshold

_SWITCH_S = 10.0


class RunModel:
    """The classifiers that `settings` ask for. A context manager that closes those in use at its end.

    `on_tpu_loss`, `spare`, `shared` and `embeds` as in `open_classifiers`, which also says what is raised.
    """

    def __init__(
        self, settings: Settings, on_tpu_loss: str, spare: int, shared: bool = False, embeds: bool = False
    ) -> None:
        self._settings = settings
        self._asked: dict[str, Any] = {"on_tpu_loss": on_tpu_loss, "spare": spare, "shared": shared, "embeds": embeds}
        self._asked_for = open_classifiers(settings, **self._asked, fastest=True, camera=True)
        self.classifiers: Classifiers = self._asked_for
        self.swaps = 0
        self._former_losses = 0
        # The page, a message and the contest of runtimes switch in threads of their own.
        self._switching = threading.Lock()

    def __enter__(self) -> RunModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.classifiers.__exit__()

    @property
    def first(self) -> Classifier:
        """The classifier of the first worker: all are of one model."""
        return self.classifiers.classifiers[0]

    @property
    def taught(self) -> bool:
        """The model has a class for what it does not know."""
        return "unknown" in self.first.labels

    @property
    def tpu_losses(self) -> int:
        """How often an accelerator was lost, by former models too."""
        return self._former_losses + self.classifiers.tpu_losses

    def camera_network(self) -> Optional[CameraNetwork]:
        """What is to run inside the camera, None where nothing is."""
        path, first = self.classifiers.network, self.first
        if path is None:
            return None
        height, width = first.input_size
        return CameraNetwork(path, (width, height), first.box, first.resize)

    @property
    def seconds(self) -> Optional[dict[str, float]]:
        """Seconds that each engine of the model in use was in use; None where there was no choice."""
        return self.classifiers.seconds

    def open_other(self, model: str, options: ModelOptions = ModelOptions()) -> Classifiers:
        """Classifiers of another model with the settings of this run, but for `options`: what is said about it."""
        runtime = dataclasses.replace(self._settings.runtime, model=model)
        settings = dataclasses.replace(self._settings, runtime=runtime, model=options)
        workers = len(self.classifiers.classifiers)
        opened = open_classifiers(settings, workers=workers, **self._asked, fastest=True, camera=True)
        if opened.network != self.classifiers.network:
            opened.__exit__()
            raise UsageError(f"{model} has another network file than the one in the camera", hint="start a new run")
        if (count := len(opened.classifiers)) != workers:
            opened.__exit__()
            raise UsageError(f"{model} has accelerators for {count} of this run's {workers} workers", hint="begin anew")
        return opened

    def decider(self, classifier: Optional[Classifier] = None, *, forced: bool = False) -> Optional[Decider]:
        """What decides on the classes of `classifier`; None where scores are values and no class can be present.

        Raises UsageError, ProfileError for names in --allow and --deny that are not among its classes; `forced` leaves
        these out.
        """
        classifier, output = classifier or self.first, self._settings.output
        if classifier.task != "classification":
            return None
        labels, allow, deny = classifier.labels, output.allow or (), output.deny or ()
        if forced:
            allow, deny = (tuple(name for name in names if is_class(labels, name)) for names in (allow, deny))
            # Nothing that may be reported is left: that is not the same as no list at all.
            deny = tuple(labels) if output.allow and not allow else deny
        for key, names in (("allow", allow), ("deny", deny)):
            with self._settings.blamed(f"output.{key}"):
                rows_named(labels, names, f"--{key}: class")
        return Decider(labels, on=output.appear, off=output.gone, results=output.consecutive, allow=allow, deny=deny)

    def gate(self, classifier: Optional[Classifier] = None) -> Optional[SceneGate]:
        """The scene gate for `classifier`, None where it is off."""
        output = self._settings.output
        if not output.gate:
            return None
        return SceneGate(output.gate_change, output.gate_refresh_s, (classifier or self.first).seen)

    def take_winner(self, loop: FrameLoop, changed: Callable[[], None]) -> None:
        """Let the runtime that has won the contest take over, with the model that was asked for. Raises as `switch`
        does, also where another model is in use."""
        count = len(self._asked_for.classifiers)
        opened = open_classifiers(self._settings, workers=count, **{**self._asked, "embeds": False}, fastest=True)
        try:
            with self._switching:
                if self.classifiers is not self._asked_for:
                    raise UsageError("another model has taken over meanwhile")
                self._switch(opened, loop, changed, loop.decider)
        except BaseException:
            opened.__exit__()
            raise

    def switch(
        self, classifiers: Classifiers, loop: FrameLoop, changed: Callable[[], None], *, forced: bool = False
    ) -> None:
        """Let `classifiers` take over in `loop` and close the former ones. Any thread but the loop's own.

        `changed` is called in the loop's thread after the last result of the former model and before the first of the
        new one. Raises UsageError where the run does not go on, or a class of --allow or --deny is missing.
        """

        def counted() -> None:
            self.swaps += 1
            changed()

        decider = self.decider(classifiers.classifiers[0], forced=forced)
        with self._switching:
            self._switch(classifiers, loop, counted, decider)

    def _switch(
        self, classifiers: Classifiers, loop: FrameLoop, changed: Callable[[], None], decider: Optional[Decider]
    ) -> None:
        done, former, first = threading.Event(), self.classifiers, classifiers.classifiers[0]
        loop.controls.carry(first.unknown)

        def taken_over() -> None:
            self.classifiers = classifiers
            loop.controls.unknown = first.unknown
            self._former_losses += former.tpu_losses
            changed()
            done.set()

        withdrawn = loop.swap(classifiers.classifiers, decider, self.gate(first), taken_over)
        while not done.wait(_SWITCH_S):
            if withdrawn():
                raise UsageError("the run has ended, or its model hangs: no other one can take over")
        former.__exit__()


class WorkbenchRun:
    """What a workbench needs of a run.

    `check` raises UsageError where an output needs a class that is none of the labels it is given; `changed` makes,
    for a model's name or path, what tells everybody that it has taken over.
    """

    def __init__(
        self,
        model: RunModel,
        loop: FrameLoop,
        source: FrameSource,
        live: Live,
        check: Callable[[Sequence[str]], None],
        changed: Callable[[str], Callable[[], None]],
    ) -> None:
        self._model = model
        self._loop = loop
        self._source = source
        self._live = live
        self._check = check
        self._changed = changed

    @property
    def model(self) -> str:
        return self._model.classifiers.model

    @property
    def frame_ms(self) -> Optional[float]:
        granted = self._source.granted
        rate = granted.fps if granted is not None and self._source.live else None
        return 1000 / rate * len(self._model.classifiers.classifiers) if rate else None

    def open(self, model: str, options: ModelOptions) -> Classifiers:
        return self._model.open_other(model, options)

    def region(self) -> Optional[np.ndarray]:
        result = self._live.latest
        if result is None:
            return None
        region = result.frame.region
        return region if result.frame.order == "rgb" else region[..., ::-1]

    def inference_ms(self) -> Optional[float]:
        return self._loop.statistics.recent_inference_ms()[0]

    def objection(self, classifiers: Classifiers) -> str:
        first = classifiers.classifiers[0]
        try:
            self._check(first.labels)
            self._model.decider(first)
        except EdgeMnv2Error as error:
            return error.message
        return ""

    def switch(self, classifiers: Classifiers, model: str, forced: bool) -> None:
        self._model.switch(classifiers, self._loop, self._changed(model), forced=forced)

    def set_roi(self, roi: Optional[Roi]) -> None:
        self._source.set_roi(roi)

    def carry(self, unknown: Optional[MovedThreshold]) -> None:
        self._loop.controls.carry(unknown)
