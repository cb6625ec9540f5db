"""What classifies the frames of a run: one classifier a worker, all of one model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from edge_mnv2.device.cpus import resolve_threads
from edge_mnv2.device.profile import Settings
from edge_mnv2.loop.frame_loop import Engine
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.zoo.labels import read_labels
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved, resolve


@dataclass
class Engines:
    """The engines of a run and what its summary says about them. A context manager that closes them."""

    engines: list[Engine]
    model: str
    runtime: str
    delegate: str
    threads: int
    notes: list[str] = field(default_factory=list)
    tpu_losses: int = 0

    @property
    def description(self) -> str:
        plural = "s" if self.threads > 1 else ""
        return f"{self.model} on {self.runtime}, {self.delegate}, {self.threads} thread{plural}"

    def __enter__(self) -> Engines:
        return self

    def __exit__(self, *exc: object) -> None:
        for engine in self.engines:
            close = getattr(engine, "close", None)
            if close is not None:
                close()


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
    names = read_labels(labels) if labels else found.labels
    classifier = Classifier.open(
        found.path,
        names,
        background=found.background,
        runtime=runtime,
        threads=threads,
        resize=resize or found.preprocess.resize or "crop",
        top_k=top_k,
        task=found.task or "classification",
        mean=found.preprocess.mean,
        std=found.preprocess.std,
    )
    notes = [note for note in (classifier.labels_note,) if note]
    return classifier, found, notes


def chosen_resize(settings: Settings) -> Optional[str]:
    """The resize policy that somebody asked for; None leaves it to what the model itself says."""
    return None if settings.origin("preprocess.resize").kind == "default" else settings.preprocess.resize


def open_engines(settings: Settings, labels: Optional[str], on_tpu_loss: str) -> Engines:
    """The engines that the resolved profile keys ask for. Raises as `open_classifier`, and UsageError."""
    threads, note = resolve_threads(settings.runtime.threads)
    notes = [note] if note else []
    workers = 1 if settings.runtime.workers == "auto" else int(settings.runtime.workers)
    opened: list[Classifier] = []
    try:
        for _ in range(workers):
            classifier, found, said = open_classifier(
                settings.runtime.model,
                labels,
                runtime=settings.runtime.backend,
                threads=threads,
                resize=chosen_resize(settings),
                top_k=settings.output.top_k,
            )
            opened.append(classifier)
            if len(opened) == 1:
                notes += said
            classifier.warm_up()
    except BaseException:
        for classifier in opened:
            classifier.close()
        raise
    first = opened[0].interpreter
    return Engines(list(opened), found.name, first.runtime, first.delegate, threads, notes)
