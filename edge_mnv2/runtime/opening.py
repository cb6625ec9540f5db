"""What classifies the frames of a run: one classifier a worker, all of one model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional

from edge_mnv2.board.cpus import resolve_threads
from edge_mnv2.errors import AcceleratorError, ModelError
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.interpreter import AnyInterpreter
from edge_mnv2.settings.profile import Settings
from edge_mnv2.tflite import model_file
from edge_mnv2.zoo.labels import read_labels
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved, resolve

if TYPE_CHECKING:
    from edge_mnv2.runtime.edgetpu.choice import DelegateSpec, Plan

log = logging.getLogger(__name__)


@dataclass
class Engines:
    """The engines of a run and what its summary says about them. A context manager that closes them."""

    engines: Sequence[Classifier]
    model: str
    notes: list[str] = field(default_factory=list)

    @property
    def runtime(self) -> str:
        return self.engines[0].interpreter.runtime

    @property
    def delegate(self) -> str:
        return self.engines[0].interpreter.delegate

    @property
    def threads(self) -> int:
        return self.engines[0].interpreter.threads

    @property
    def tpu_losses(self) -> int:
        """How often an accelerator was lost."""
        return sum(getattr(engine.interpreter, "losses", 0) for engine in self.engines)

    @property
    def seconds(self) -> Optional[dict[str, float]]:
        """Seconds that "tpu" and "cpu" were in use, summed over the workers; None where there was no choice."""
        used = [engine.interpreter.seconds for engine in self.engines if hasattr(engine.interpreter, "seconds")]
        return {name: round(sum(each[name] for each in used), 1) for name in ("tpu", "cpu")} if used else None

    @property
    def description(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return f"{self.model} on {self.runtime}, {self.delegate}, {self.threads} thread{plural}"

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *exc: object) -> None:
        for engine in self.engines:
            engine.close()


@dataclass(frozen=True)
class _Common:
    """What the classifiers of a run have in common, whatever their model and interpreter."""

    labels: Optional[Sequence[str]]
    runtime: str = "auto"
    threads: int = 1
    resize: Optional[str] = None
    top_k: int = 5
    gpu: bool = True

    def on_cpu(self, found: Resolved) -> Classifier:
        """The model of `found` by the runtime alone."""
        return Classifier.open(
            found.path,
            self.labels or found.labels,
            background=found.background,
            runtime=self.runtime,
            threads=self.threads,
            gpu=self.gpu,
            resize=self.resize or found.preprocess.resize or "crop",
            top_k=self.top_k,
            task=found.task,
            mean=found.preprocess.mean,
            std=found.preprocess.std,
            unit=found.unit,
        )

    def over(self, interpreter: AnyInterpreter, found: Resolved, facts: model_file.ModelFile) -> Classifier:
        """What `found` says about labels and preprocessing, over an open interpreter."""
        return Classifier(
            interpreter,
            facts,
            self.labels or found.labels,
            background=found.background,
            resize=self.resize or found.preprocess.resize or "crop",
            top_k=self.top_k,
            task=found.task,
            mean=found.preprocess.mean,
            std=found.preprocess.std,
            unit=found.unit,
        )


def open_classifier(
    model: Optional[str],
    labels: Optional[str] = None,
    *,
    runtime: str = "auto",
    threads: int = 1,
    resize: Optional[str] = None,
    top_k: int = 5,
) -> tuple[Classifier, Resolved, list[str]]:
    """A CPU classifier for a registry name or a path, with the labels that belong to it.

    `labels` is a label file that replaces them; `resize` overrides what the model's sidecar or the registry asks for.
    Returns also what was resolved and the notes to say once. Raises ModelError, LabelsError, RuntimeMissing.
    """
    found = resolve(model or DEFAULT_MODEL)
    names = read_labels(labels) if labels else None
    classifier = _Common(names, runtime, threads, resize, top_k).on_cpu(found)
    return classifier, found, _label_notes(classifier)


def chosen_resize(settings: Settings) -> Optional[str]:
    """The resize policy that somebody asked for; None leaves it to what the model itself says."""
    return None if settings.origin("preprocess.resize").kind == "default" else settings.preprocess.resize


def open_engines(
    settings: Settings,
    labels: Optional[str],
    on_tpu_loss: str = "cpu",
    *,
    workers: Optional[int] = None,
    spare: int = 0,
) -> Engines:
    """The engines that the settings ask for. `on_tpu_loss`: "cpu" or "exit"; `workers` overrides the settings; `auto`
    threads leave `spare` CPUs to others.

    Raises as `open_classifier`, UsageError, and AcceleratorError where an accelerator was asked for by name and cannot
    be used.
    """
    from edge_mnv2.runtime.edgetpu.choice import Zoo, choose, parse, worth_trying

    threads, note = resolve_threads(settings.runtime.threads, spare=spare)
    spec = parse(settings.runtime.delegate)
    if workers is None:
        workers = 1 if settings.runtime.workers == "auto" else int(settings.runtime.workers)
    names = read_labels(labels) if labels else None
    common = _Common(
        names,
        settings.runtime.backend,
        threads,
        chosen_resize(settings),
        settings.output.top_k,
        gpu=spec.mode != "none",
    )
    notes = [note] if note else []
    fall_back = on_tpu_loss != "exit"
    request = settings.runtime.model
    plan = choose(request, spec, spec.mode == "auto" and worth_trying(), Zoo(), fall_back=fall_back)
    if plan.tpu is not None:
        try:
            opened = _on_tpu(plan, spec, common, workers)
        except AcceleratorError as error:
            if spec.required:
                raise
            notes.append(f"no Edge TPU: {error}")
            try:
                plan = choose(request, spec, False, Zoo())
            except ModelError:
                # Nothing but the TPU can run it: then the TPU's trouble is what has to be told.
                raise error from None
        else:
            return Engines(opened.engines, opened.model, notes + opened.notes)
    assert plan.cpu is not None
    with settings.blamed("runtime.backend"):
        opened = _on_cpu(plan, common, workers)
    return Engines(opened.engines, opened.model, notes + opened.notes)


def _on_cpu(plan: Plan, common: _Common, workers: int) -> Engines:
    assert plan.cpu is not None
    classifiers: list[Classifier] = []
    try:
        for _ in range(workers):
            classifiers.append(common.on_cpu(plan.cpu))
            classifiers[-1].warm_up()
    except BaseException:
        for classifier in classifiers:
            classifier.close()
        raise
    return Engines(classifiers, plan.cpu.name, [*plan.notes, *_label_notes(classifiers[0])])


def _on_tpu(plan: Plan, spec: DelegateSpec, common: _Common, workers: int) -> Engines:
    """One classifier a device, on up to `workers` of them. Raises AcceleratorError where none can be used."""
    from edge_mnv2.runtime.edgetpu.opening import open_supervised

    assert plan.tpu is not None
    # What the file says about its output is hidden in a compiled one.
    facts = model_file.check((plan.cpu or plan.tpu).path)
    described = plan.cpu if plan.tpu.labels is None and plan.cpu is not None else plan.tpu
    interpreters = open_supervised(
        spec,
        plan.tpu.path,
        plan.cpu.path if plan.cpu is not None else None,
        runtime=common.runtime,
        threads=common.threads,
        count=workers,
    )
    try:
        classifiers = [common.over(interpreter, described, facts) for interpreter in interpreters]
    except BaseException:
        for interpreter in interpreters:
            interpreter.close()
        raise
    notes = [*plan.notes, *interpreters[0].notes]
    if len(interpreters) < workers:
        notes.append(f"{len(interpreters)} of {workers} workers: there is one Edge TPU for each")
    return Engines(classifiers, plan.model.name, [*notes, *_label_notes(classifiers[0])])


def _label_notes(classifier: Classifier) -> list[str]:
    return [classifier.labels_note] if classifier.labels_note else []
