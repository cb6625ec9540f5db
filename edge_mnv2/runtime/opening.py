"""From what a person asks for to open classifiers: one for each worker, all of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from edge_mnv2.board.cpus import MemoryReader, resolve_threads
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import AcceleratorError, ModelError, UsageError
from edge_mnv2.runtime import contest
from edge_mnv2.runtime.classifier import Classifier, simulated_inference_ns
from edge_mnv2.runtime.model_graph import read_graph
from edge_mnv2.runtime.model_io import ModelSpec, describe
from edge_mnv2.runtime.table import NamedRuntimeMissing, candidates
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.schema import ModelOptions
from edge_mnv2.zoo.labels import own_labels
from edge_mnv2.zoo.model_facts import MovedThreshold, range_as_mean_and_std
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved, resolve

if TYPE_CHECKING:
    from edge_mnv2.board.accelerators import Accelerator
    from edge_mnv2.runtime.delegate import DelegateSpec, Plan
    from edge_mnv2.runtime.table import Runtime

_LEAST_MIB = 800
"""A smaller board (512 MB) has better use for its memory than more workers."""


def model_spec(model: Resolved, options: ModelOptions = ModelOptions(), resize: Optional[str] = None) -> ModelSpec:
    """What is said about `model`: by options, else its sidecar, else the registry. Raises UsageError, LabelsError."""
    said = model.preprocess
    mean, std = options.mean, options.std
    if options.input_range is not None:
        low, high = options.input_range
        if mean is not None or std is not None or low >= high:
            raise UsageError(f"--input-range {low:g},{high:g}", hint="LOW,HIGH, in order, without --mean and --std")
        mean, std = ((number,) for number in range_as_mean_and_std(low, high))
    scaled = mean is not None or std is not None
    size = options.input_size or said.size
    by_option = {"mean": scaled, "std": scaled, "size": options.input_size, "task": options.task}
    by_option["output"] = options.output
    origin = {key: model.origin.get("preprocess", "sidecar") for key in (*by_option, "layout")}
    origin["task"] = model.origin.get("task", "sidecar")
    origin.update((key, "option") for key, value in by_option.items() if value)
    return ModelSpec(
        own_labels(options.labels) if options.labels else model.labels,
        model.background,
        options.task or model.task,
        model.unit,
        resize or said.resize,
        mean if scaled else said.mean,
        std if scaled else said.std,
        None if size is None else (int(size[1]), int(size[0])),
        said.layout,
        options.output or said.output,
        origin,
        _unknown(model, options.known),
        model.errors,
    )


def _unknown(model: Resolved, known: Optional[float]) -> Optional[MovedThreshold]:
    """Where "unknown" begins by `--known`; None for a model that does not say."""
    if model.open_set is None:
        if known is None:
            return None
        raise UsageError(
            f"--known {known:g}: {model.name} does not say where its 'unknown' begins",
            hint="a classifier that `teach` wrote from several pictures a class does; teach an older one again",
        )
    return MovedThreshold(model.open_set, known)


@dataclass
class Classifiers:
    """The classifiers of a run and what its summary says about them. A context manager that closes them.

    `contest` is to be held beside the run, where it is not known yet which runtime is fastest. `network` is the file
    of the network that a camera is to run.
    """

    classifiers: Sequence[Classifier]
    model: str
    notes: list[str] = field(default_factory=list)
    contest: Optional[contest.BesideRun] = None
    network: Optional[Path] = None

    @property
    def runtime(self) -> str:
        return self.classifiers[0].interpreter.runtime

    @property
    def delegate(self) -> str:
        return self.classifiers[0].interpreter.delegate

    @property
    def threads(self) -> int:
        return self.classifiers[0].interpreter.threads

    @property
    def tpu_losses(self) -> int:
        """How often an accelerator was lost."""
        return sum(getattr(one.interpreter, "losses", 0) for one in self.classifiers)

    @property
    def seconds(self) -> Optional[dict[str, float]]:
        """Seconds that "tpu" and "cpu" were in use, summed over the workers; None where there was no choice."""
        used = [one.interpreter.seconds for one in self.classifiers if hasattr(one.interpreter, "seconds")]
        names = {name for each in used for name in each}
        return {name: round(sum(each.get(name, 0.0) for each in used), 1) for name in sorted(names)} or None

    @property
    def description(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return f"{self.model} on {self.runtime}, {self.delegate}, {self.threads} thread{plural}"

    def __enter__(self) -> Classifiers:
        return self

    def __exit__(self, *exc: object) -> None:
        for one in self.classifiers:
            one.close()


def open_classifier(
    model: Optional[str],
    options: ModelOptions = ModelOptions(),
    *,
    runtime: str = "auto",
    threads: int = 1,
    resize: Optional[str] = None,
    top_k: int = 5,
) -> tuple[Classifier, Resolved, list[str]]:
    """A CPU classifier for a registry name or a path, with the labels that belong to it.

    Returns also what was resolved and the notes to say once. Raises ModelError, LabelsError, UsageError,
    RuntimeMissing.
    """
    resolved = resolve(model or DEFAULT_MODEL)
    notes: list[str] = []
    if runtime != "auto":
        runtime, notes = contest.chosen(resolved.path, runtime, threads)
    classifier = Classifier.open(
        resolved.path,
        spec=model_spec(resolved, options, resize),
        runtime=runtime,
        threads=threads,
        top_k=top_k,
        verified=_verified(resolved),
    )
    return classifier, resolved, [*notes, *classifier.notes]


def _verified(model: Resolved) -> bool:
    """Whether its sha256 is that of a registry: then its structure needs no second look."""
    return model.entry is not None and model.entry.runs_on == "cpu"


def chosen_resize(settings: Settings) -> Optional[str]:
    """The resize policy that somebody asked for; None leaves it to what the model itself says."""
    return None if settings.origin("preprocess.resize").kind == "default" else settings.preprocess.resize


def open_classifiers(
    settings: Settings,
    on_tpu_loss: str = "cpu",
    *,
    workers: Optional[int] = None,
    spare: int = 0,
    shared: bool = False,
    fastest: bool = False,
    camera: bool = False,
    embeds: bool = False,
) -> Classifiers:
    """The classifiers that the settings ask for. `on_tpu_loss`: "cpu" or "exit"; `workers` overrides the settings;
    `auto` threads leave `spare` CPUs to others. `shared`: every frame of a file is wanted, and where threads and
    workers are both `auto`, workers of one thread share them (`shared_by`). `fastest`: "auto" is the runtime that won
    the contest here, or one is to be held; for what runs long, as other runtimes take a second to start. `camera`:
    frames may bring answers. `embeds` as in `Classifier.open`.

    Raises as `open_classifier`, and AcceleratorError where an accelerator was asked for by name and cannot be used.
    """
    from edge_mnv2.board.accelerators import named
    from edge_mnv2.runtime.delegate import on_cpu, parse, planned, supervising, unless_required, worth_trying

    threads, note = resolve_threads(settings.runtime.threads, spare=spare)
    notes = [note] if note else []
    delegate = parse(settings.runtime.delegate)
    shared = shared and settings.runtime.workers == settings.runtime.threads == "auto"
    several = workers
    if shared and (several or 1) > 1:
        # They have taken over from workers of one thread each.
        threads = 1
    if workers is None:
        workers = 1 if settings.runtime.workers == "auto" else int(settings.runtime.workers)
    request = settings.runtime.model
    own = supervising(settings.runtime.backend, delegate.mode, request)
    if own is not None:
        if delegate.mode not in ("auto", "none", own.name):
            with settings.blamed("runtime.delegate"):
                raise UsageError(f"--delegate {delegate.mode} and {own.name} exclude each other", hint="leave one out")
        if settings.runtime.backend != "auto" and request is not None and own.opens(request):
            with settings.blamed("runtime.backend"):
                candidates(request, settings.runtime.backend)
        if own.in_camera and not camera:
            raise UsageError(f"{own.name} runs a model in a camera only", hint="edge-mnv2 run --camera csi")
        plan = planned(own, lambda module: module.plan(request, delegate, on_tpu_loss != "exit"))
        opened = _supervised(plan, delegate, settings, threads, workers, own, fall_back=on_tpu_loss != "exit")
        opened.notes[:0] = notes
        if own.in_camera and plan.tpu is not None:
            opened.network = plan.tpu.path
        return opened
    row = named(delegate.mode) if delegate.required else worth_trying() if delegate.mode == "auto" else None
    planned_here: Optional[Plan] = None
    if row is not None:
        with unless_required(row, delegate, notes):
            planned_here = planned(row, lambda module: module.plan(request, delegate, on_tpu_loss != "exit"))
    plan = planned_here or on_cpu(request, delegate)
    if row is not None and plan.tpu is not None:
        try:
            opened = _supervised(plan, delegate, settings, threads, workers, row)
        except AcceleratorError as error:
            if delegate.required:
                raise
            notes.append(f"no {row.title or row.name}: {error}")
            try:
                plan = on_cpu(request, delegate)
            except ModelError:
                # Only the accelerator can run this model: then its trouble is the reason.
                raise error from None
        else:
            opened.notes[:0] = notes
            return opened
    assert plan.cpu is not None
    with settings.blamed("runtime.backend"):
        candidates(plan.cpu.path, settings.runtime.backend)
    try:
        # A board that is simulated has no more CPUs than it has.
        if shared and plan.cpu.path.suffix == ".tflite" and not simulated_inference_ns():
            workers = several or shared_by(plan.cpu.path)
            if workers > 1:
                threads = 1
                notes.append(f"{workers} workers of one thread share the frames (--workers 1: one, in less memory)")
        opened = _on_cpu(plan.cpu, delegate.mode != "none", settings, threads, workers, fastest, embeds)
    except NamedRuntimeMissing as error:
        with settings.blamed("runtime.backend"):
            raise error
    opened.notes[:0] = [*notes, *plan.notes]
    return opened


def shared_by(model: Path, root: Union[Path, str] = "/") -> int:
    """How many workers of one thread get most out of the board where every frame of a file is wanted: one for each CPU,
    as far as there is memory. 8 MiB and twice the model's size are counted for each; the default model's take 12 MB."""
    memory = MemoryReader(Sysroot(root)).read()
    if (memory.total or 0) < _LEAST_MIB or memory.available is None:
        return 1
    each = 8 + 2 * model.stat().st_size / 2**20
    return max(1, min(resolve_threads("auto", root)[0], 1 + int(memory.available / 8 / each)))


def _on_cpu(
    model: Resolved, accelerate: bool, settings: Settings, threads: int, workers: int, fastest: bool, embeds: bool
) -> Classifiers:
    """`workers` classifiers by a runtime alone, warmed up."""
    spec, top_k = _spec(model, settings), settings.output.top_k
    runtime, undecided = settings.runtime.backend, False
    notes: list[str] = []
    if runtime != "auto" or fastest:
        runtime, notes = contest.chosen(model.path, runtime, threads, accelerate)
        undecided = runtime == "auto" and contest.wanted(model.path, threads, accelerate)
    classifiers: list[Classifier] = []
    try:
        for _ in range(workers):
            one = Classifier.open(
                model.path,
                spec=spec,
                runtime=runtime,
                threads=threads,
                accelerate=accelerate,
                top_k=top_k,
                verified=_verified(model),
                embeds=embeds,
            )
            classifiers.append(one)
            one.warm_up()
    except BaseException:
        for one in classifiers:
            one.close()
        raise
    beside = contest.BesideRun(model.path, threads, accelerate) if undecided else None
    return Classifiers(classifiers, model.name, [*notes, *classifiers[0].notes], beside)


def _supervised(
    plan: Plan,
    delegate: DelegateSpec,
    settings: Settings,
    threads: int,
    workers: int,
    row: Union[Accelerator, Runtime],
    **more: Any,
) -> Classifiers:
    """One classifier a device, on up to `workers` of them. Raises AcceleratorError where none can be used."""
    from edge_mnv2.runtime.delegate import opened

    assert plan.tpu is not None
    # Labels, and what the graph says: a compiled file hides it, its CPU twin does not.
    source = plan.cpu if plan.tpu.labels is None and plan.cpu is not None else plan.tpu
    spec, graph = _spec(source, settings), read_graph((plan.cpu or plan.tpu).path)
    interpreters = opened(
        row,
        delegate,
        plan.tpu.path,
        plan.cpu.path if plan.cpu is not None else None,
        runtime=settings.runtime.backend,
        threads=threads,
        count=workers,
        input_size=spec.size,
        **more,
    )
    path = str(plan.tpu.path)
    try:
        io = describe(path, interpreters[0].inputs, interpreters[0].outputs, graph, spec)
        classifiers = [Classifier(one, io, spec, path=path, top_k=settings.output.top_k) for one in interpreters]
    except BaseException:
        for interpreter in interpreters:
            interpreter.close()
        raise
    notes = [*plan.notes, *interpreters[0].notes]
    if len(interpreters) < workers:
        notes.append(
            f"{len(interpreters)} of {workers} workers: there is one {getattr(row, 'title', '') or 'device'} for each"
        )
    return Classifiers(classifiers, plan.model.name, [*notes, *classifiers[0].notes])


def _spec(model: Resolved, settings: Settings) -> ModelSpec:
    return model_spec(model, settings.model, chosen_resize(settings))
