"""From a lesson's embeddings to a head, the file's bytes, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.builder.backbone import Backbone, compiled_like
from edge_mnv2.builder.float_heads import ClassHead, Linear, Unknown, ValueHead, unit_evidence
from edge_mnv2.builder.taught_head import append_classifier, append_value, head_alone
from edge_mnv2.datasets.labelled_pictures import REGRESSION
from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.teach import class_head, value_head
from edge_mnv2.teach.embedding import Layer, read_backbone
from edge_mnv2.teach.feature_choice import HeadFeatures, choose_features, choose_samples
from edge_mnv2.teach.lesson import Lesson
from edge_mnv2.teach.lesson_memory import KEY
from edge_mnv2.teach.open_set import KNOWN, Calibrated, calibrate, evidence_of
from edge_mnv2.tflite import graph

_MOST_MEMORY = 8 << 20
_MARGIN = 0.1
"""A measured value may go so far beyond the taught range, as a share of it."""

Head = Union[ValueHead, ClassHead]


@dataclass(frozen=True)
class Answers:
    """`scores` (pictures, rows) as the model gives them, "unknown" included; `logits` of the taught classes alone."""

    scores: np.ndarray
    logits: Optional[np.ndarray] = None


def answers(backbone: Backbone, codes: np.ndarray, *, logits: bool = True, runtime: str = "auto") -> Answers:
    """What the appended head answers to embeddings `codes` (pictures, size), dequantized, by the integer kernels."""
    also = ("logits",) if logits else ()
    outputs: list[list[np.ndarray]] = [[], []]
    with open_interpreter(graph.write(head_alone(backbone, *also)), runtime=runtime) as interpreter:
        spec = interpreter.inputs[0]
        for code in codes:
            interpreter.set_input(code.reshape(spec.shape))
            interpreter.invoke()
            for place, output in enumerate(interpreter.outputs):
                outputs[place].append(output.dequantize(interpreter.output(place)).reshape(-1))
    return Answers(np.stack(outputs[0]), np.stack(outputs[1]) if logits else None)


@dataclass(frozen=True)
class Taught:
    """A lesson's head in float (`head`, `unknown`) and in integers (`model`, the file's bytes).

    `embeddings` are real, of `layer`, one a picture of the lesson; `answers` are those of the integers to the same.
    `settings` says how the head was fitted; `extendable` whether the file remembers enough for `--add`. `compiled` is
    the same head over a compiled backbone, where one was given. `low` and `high` bound a measured value.
    `open_set` says what the threshold of `unknown` was set by, `expected_errors` what a measured value may be off by:
    (lowest value, highest value, error).
    """

    lesson: Lesson
    layer: Layer
    backbone: Backbone
    head: Head
    unknown: Optional[Unknown]
    model: bytes
    embeddings: np.ndarray
    answers: Answers
    settings: dict[str, Any]
    extendable: bool = True
    compiled: Optional[bytes] = None
    low: float = 0.0
    high: float = 0.0
    open_set: Optional[Calibrated] = None
    expected_errors: tuple[tuple[float, float, float], ...] = ()

    @property
    def held(self) -> np.ndarray:
        """Places of the held-out pictures."""
        return np.flatnonzero(self.lesson.held_out)

    @property
    def taught(self) -> np.ndarray:
        return np.flatnonzero(~self.lesson.held_out)

    def float_logits(self, pictures: np.ndarray) -> np.ndarray:
        """The float head's answers (pictures, rows) to the lesson's `pictures`."""
        return self.head(self.embeddings[pictures])

    def float_scores(self, pictures: np.ndarray) -> np.ndarray:
        """The float head's logits, with the row of "unknown" behind them if the model has it."""
        logits = self.float_logits(pictures)
        if self.unknown is None:
            return logits
        similarity = self.unknown.familiarity(self.embeddings[pictures])
        row = logits.max(axis=1) + self.unknown.slope * (self.unknown.threshold - similarity)
        return np.concatenate([logits, row[:, None]], axis=1)


@dataclass(frozen=True)
class _Fitted:
    """A head before it is integers. `append` adds it to a backbone; `embeddings` are of the pictures as they are."""

    layer: Layer
    cut: Backbone
    embeddings: np.ndarray
    head: Head
    settings: dict[str, Any]
    append: Callable[[Backbone], None]
    unknown: Optional[Unknown] = None
    open_set: Optional[Calibrated] = None
    bounds: tuple[float, float] = (0.0, 0.0)
    expected_errors: tuple[tuple[float, float, float], ...] = ()


def teach(lesson: Lesson) -> Taught:
    """Fit the head, append it, and let it answer to every picture of the lesson.

    Raises ModelError where a compiled backbone was given that is another one.
    """
    fitted = (_fit_value if lesson.task == REGRESSION else _fit_classes)(lesson)
    cut, layer = fitted.cut, fitted.layer
    compiled = None
    if lesson.request.compiled is not None:
        over = _compiled(lesson.request.compiled, cut)
        fitted.append(over)
        compiled = graph.write(over.graph)
    fitted.append(cut)
    codes = layer.of(lesson.codes[lesson.first])
    measured = answers(cut, codes, logits=lesson.task != REGRESSION, runtime=lesson.request.runtime)
    cut.graph.description = f"{lesson.backbone.name} taught {lesson.rows} rows by edge-mnv2"
    remembered = lesson.memory(about(lesson, layer), layer).packed()
    extendable = len(remembered) <= _MOST_MEMORY
    if extendable:
        cut.graph.metadata[KEY] = remembered
    return Taught(
        lesson,
        layer,
        cut,
        fitted.head,
        fitted.unknown,
        graph.write(cut.graph),
        fitted.embeddings,
        measured,
        fitted.settings,
        extendable,
        compiled,
        *fitted.bounds,
        fitted.open_set,
        fitted.expected_errors,
    )


def _fit_value(lesson: Lesson) -> _Fitted:
    taught, own = np.flatnonzero(~lesson.held_out), lesson.first
    places = lesson.places(taught)
    choice = value_head.choose(lesson.layers, lesson.codes[own][taught], lesson.truth[taught])
    layer = choice.layer
    cut = read_backbone(lesson.backbone, layer)
    embeddings = layer.real(lesson.codes[own])
    optimizer = lesson.request.optimizer or "closed"
    truth = lesson.truth[lesson.picture[places]]
    head = value_head.fit(layer.real(lesson.codes[places]), truth, choice, optimizer=optimizer)
    settings = {
        "optimizer": optimizer,
        "weight_decay": choice.decay,
        "smoothing": choice.smoothing,
        "screening": choice.power,
        "reads": "states of cells" if choice.states else "channels",
        "layer": list(cut.embedding.shape[1:]),
        "left_out_rmse": choice.error,
    }
    spread = float(np.ptp(lesson.truth))
    low, high = float(lesson.truth.min()) - _MARGIN * spread, float(lesson.truth.max()) + _MARGIN * spread

    def append(target: Backbone) -> None:
        append_value(target, head, embeddings[taught], low, high)

    held = np.flatnonzero(lesson.held_out)
    errors = np.concatenate([choice.left_out, head(embeddings[held])[:, 0] - lesson.truth[held]])
    expected = tuple(value_head.expected_errors(lesson.truth[np.concatenate([taught, held])], errors))
    return _Fitted(layer, cut, embeddings, head, settings, append, bounds=(low, high), expected_errors=expected)


def _fit_classes(lesson: Lesson) -> _Fitted:
    taught = np.flatnonzero(~lesson.held_out)
    layer = lesson.layers[0]
    cut = read_backbone(lesson.backbone, layer)
    real = layer.real(lesson.codes).astype(np.float64)
    embeddings = real[lesson.first]
    evidence = evidence_of(cut, embeddings[taught])
    head, settings = _class_head(lesson, real, taught, evidence)
    open_set = unknown = None
    if lesson.request.unknown:
        places = lesson.places(taught)
        picture = lesson.picture[places]
        truth = lesson.truth[picture].astype(int)
        negatives, known = layer.real(lesson.negatives), lesson.request.known or KNOWN
        others = layer.real(np.stack(list(lesson.others.values()))) if lesson.others else None
        open_set = calibrate(real[places], picture, truth, lesson.rows, negatives, evidence, known, others)
        unknown = open_set.rule

    def append(target: Backbone) -> None:
        append_classifier(target, head, real[lesson.places(taught)], unknown)

    return _Fitted(layer, cut, embeddings, head, settings, append, unknown, open_set)


def _compiled(path: Path, original: Backbone) -> Backbone:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"--compiled {path} cannot be read: {error.strerror or error}") from error
    return compiled_like(graph.read(content, str(path)), original, f"--compiled {path}")


def about(lesson: Lesson, layer: Layer) -> dict[str, Any]:
    """What a later `--add` must know."""
    scaling = lesson.backbone.preprocess
    return {
        "operators": None if layer.operator < 0 else [layer.operator],
        "task": lesson.task,
        "head": lesson.head,
        "classes": list(lesson.classes),
        "resize": lesson.resize,
        "scaling": None if scaling.mean is None else {"mean": scaling.mean, "std": scaling.std},
        "unit": lesson.request.unit,
        "unknown": lesson.request.unknown,
        "known": lesson.request.known,
        "backbone": {**backbone(lesson), "path": str(lesson.backbone.path.resolve())},
    }


def backbone(lesson: Lesson) -> dict[str, str]:
    """The backbone's name and sha256."""
    return {"model": lesson.backbone.name, "sha256": lesson.backbone.sha256}


def _class_head(
    lesson: Lesson, real: np.ndarray, taught: np.ndarray, evidence: Optional[Linear]
) -> tuple[ClassHead, dict[str, Any]]:
    """The head of the classes and how it was fitted, from the `taught` pictures; `real` are all embeddings."""
    seed, optimizer, rows = lesson.request.seed, lesson.request.optimizer or "momentum", lesson.rows
    own = real[lesson.first[taught]]
    own_truth = lesson.truth[taught].astype(int)
    if lesson.head == "imprint":
        factor = class_head.choose_factor(own, own_truth, rows)
        places = lesson.places(taught)
        truth = lesson.truth[lesson.picture[places]].astype(int)
        return ClassHead(class_head.imprint(real[places], truth, rows, factor)), {
            "optimizer": "closed",
            "factor": factor,
        }
    if optimizer == "closed":
        # Cross-entropy has no closed form; the optimizer's name is the regression's.
        optimizer = "momentum"
    blocks = {"embedding": own}
    candidates: list[tuple[str, ...]] = [("embedding",)]
    if evidence is not None:
        blocks["evidence"] = unit_evidence(evidence, own)
        candidates.append(("embedding", "evidence"))
    names, decay, accuracy = choose_features(blocks, candidates, own_truth, rows, seed)
    read = HeadFeatures.of(own, evidence if "evidence" in names else None)
    places = lesson.places(taught)
    features, picture, mirrored = read(real[places]), lesson.picture[places], lesson.mirrored[places]
    samples = choose_samples(read.blocks(features), picture, own_truth, rows, mirrored, decay, seed)
    choice = class_head.choose(read(own), own_truth, rows, optimizer=optimizer, seed=seed)
    truth = lesson.truth[picture].astype(int)
    if not samples.all():
        features, truth = features[samples], truth[samples]
    linear = class_head.fit(features, truth, rows, choice, optimizer=optimizer, seed=seed)
    head = read.unfold(linear)
    return head, {
        "features": "+".join(names),
        "left_out_accuracy": accuracy,
        "mirrored": bool(mirrored[samples].any()),
        "optimizer": optimizer,
        "weight_decay": choice.decay,
        "steps": choice.steps,
        "factor": choice.factor,
        "left_out_loss": None if np.isnan(choice.loss) else round(choice.loss, 4),
    }
