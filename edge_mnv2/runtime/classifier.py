"""A model with its labels: pictures in, named scores out. Every command classifies through this class."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.board import accelerators
from edge_mnv2.camera.frame import CameraAnswers
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.runtime.interpreter import EmbeddingInterpreter, open_with_embedding
from edge_mnv2.runtime.model_graph import read_graph
from edge_mnv2.runtime.model_io import ModelIO, ModelSpec, describe, measured
from edge_mnv2.runtime.prediction import Prediction, score_reader, top_predictions
from edge_mnv2.runtime.preprocess import InputWriter, Preprocessor
from edge_mnv2.runtime.table import AnyInterpreter, InCamera, TensorSpec, open_model, own_format
from edge_mnv2.tflite import model_file
from edge_mnv2.zoo.labels import fit_labels

log = logging.getLogger(__name__)

SIMULATE = "EDGE_MNV2_SIMULATE_INFERENCE_MS"

Box = tuple[int, int, int, int]
Prepared = tuple[np.ndarray, int, int, Box]
"""A model's input, when its making began, the nanoseconds it took, and the part of the picture that is in it."""


@dataclass(frozen=True)
class Classified:
    """The scores of one picture (float32, one an output row) and what each stage took, in nanoseconds.

    `engine` is the device that ran the model: "cpu", "tpu" or "gpu". `box` (left, top, width, height): the part of the
    picture that reached the model. `embedding` (float32, any size), where there is an `embedder`.
    """

    scores: np.ndarray
    preprocess_ns: int
    inference_ns: int
    postprocess_ns: int
    started_at: int
    engine: str
    box: Optional[Box] = None
    embedding: Optional[np.ndarray] = None


def simulated_inference_ns() -> int:
    """The least time that an inference shall take, from `EDGE_MNV2_SIMULATE_INFERENCE_MS`; 0 where it is not set."""
    text = os.environ.get(SIMULATE, "").strip()
    if not text:
        return 0
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = -1.0
    if not 0 <= milliseconds <= 60_000:
        raise UsageError(f"{SIMULATE}={text}", hint="milliseconds from 0 to 60000")
    return int(milliseconds * 1e6)


class Classifier:
    """An interpreter, its preprocessing and its labels. One thread at a time; a context manager.

    `io` describes the model, `outputs` counts the rows of its answers, `notes` are to be said once. `embedder` is the
    interpreter where it gives embeddings too, else None.
    """

    def __init__(
        self, interpreter: AnyInterpreter, io: ModelIO, spec: ModelSpec = ModelSpec(), *, path: str = "", top_k: int = 5
    ) -> None:
        self.interpreter = interpreter
        self.io = io
        self.path = path
        self.embedder = interpreter if isinstance(interpreter, EmbeddingInterpreter) else None
        self.task = "regression" if io.output.kind == "value" else "classification"
        self.unit = spec.unit or ""
        self._errors = spec.errors
        self.unknown = spec.unknown
        self.top_k = top_k
        self.input: TensorSpec = interpreter.inputs[0]
        self.output: TensorSpec = io.output.tensor
        self._resize = spec.resize or "crop"
        self._places: list[tuple[Preprocessor, InputWriter]] = []
        self._fit, self._writer = self._place(0)
        self.outputs = io.output.rows
        self.labels, note = fit_labels(spec.labels or io.labels, self.outputs, background=spec.background)
        self.notes = [*io.notes, *([note] if note else [])]
        self._simulated_ns = simulated_inference_ns()
        # Integers are finite, and so is what a softmax makes of them: only other scores can be NaN or outside 0..1.
        low, high = self.output.limits
        share = low >= 0 and high <= 1 and io.output.whole == 1
        self._within = -np.inf < low and high < np.inf and (io.output.kind == "logits" or share)
        self._real_scores = score_reader(self.output, io.output.kind == "logits")

    @classmethod
    def open(
        cls,
        path: Union[Path, str],
        labels: Optional[Sequence[str]] = None,
        spec: ModelSpec = ModelSpec(),
        *,
        runtime: str = "auto",
        threads: int = 1,
        accelerate: bool = True,
        top_k: int = 5,
        verified: bool = False,
        embeds: bool = False,
    ) -> Classifier:
        """Check the file, load it, describe it, fit the labels to it. `labels` go before those of `spec`.

        `verified`: the content is known to be sound, and no Edge TPU's. The file's name decides which runtimes can open
        it (see `runtime.table`); on the board's GPU where there is one and `accelerate` allows it. `embeds`: answers
        bring the model's embedding, where the runtime can see it. Raises ModelError, LabelsError (counts that do not
        fit), UsageError (a `runtime` that cannot run the file, something that people have to say) or RuntimeMissing.
        """
        if not verified:
            _check(str(path))
        spec = spec if labels is None else replace(spec, labels=labels)
        load = open_with_embedding if embeds else open_model
        interpreter = load(path, runtime=runtime, threads=threads, accelerate=accelerate, input_size=spec.size)
        try:
            io = describe(str(path), interpreter.inputs, interpreter.outputs, read_graph(path), spec)
            io = replace(io, output=measured(str(path), interpreter, io.output))
            return cls(interpreter, io, spec, path=str(path), top_k=top_k)
        except BaseException:
            interpreter.close()
            raise

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return self._writer.height, self._writer.width

    @property
    def least_side(self) -> int:
        """The shorter side, in pixels, of the smallest picture that preprocessing need not enlarge."""
        return self._fit.least_side

    @property
    def resize(self) -> str:
        """How pictures are fitted: a policy of `preprocess.RESIZE`."""
        return self._fit.resize

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """The part of a picture (HxWx3) that the model looks at, a view."""
        return self._fit.seen(pixels)

    def classify(self, pixels: np.ndarray, order: str = "rgb") -> Classified:
        """Scores of one picture: `pixels` HxWx3 uint8 in `order`. Raises ModelError where the model fails."""
        return self._classified(*self._inferred(self.prepare(pixels, order)))

    def prepare(self, pixels: np.ndarray, order: str = "rgb", place: int = 0) -> Prepared:
        """One picture as `answers` takes it, valid until something else is prepared at the same `place` (0, 1, ...)."""
        started = time.monotonic_ns()
        fit, writer = self._place(place)
        values = writer(fit.to_rgb(pixels, order))
        box = fit.box(pixels.shape[1], pixels.shape[0])
        return values, started, time.monotonic_ns() - started, box

    def answers(self, prepared: Sequence[Prepared]) -> Iterator[Classified]:
        """What `classify` says of each picture. All inferences come first: what is made of their outputs, and in it by
        the caller, is cheaper in a row, for an inference empties the processor's caches. Raises as `classify`, behind
        the pictures before."""
        outputs, failure = [], None
        for one in prepared:
            try:
                outputs.append(self._inferred(one))
            except Exception as error:
                failure = error
                break
        for output in outputs:
            yield self._classified(*output)
        if failure is not None:
            raise failure

    def _place(self, number: int) -> tuple[Preprocessor, InputWriter]:
        while len(self._places) <= number:
            writer = self.io.input.writer(self.input)
            self._places.append((Preprocessor(writer.height, writer.width, self._resize, writer.channels), writer))
        return self._places[number]

    def _inferred(self, prepared: Prepared) -> tuple[Any, ...]:
        values, started, prepared_ns, box = prepared
        began = time.monotonic_ns()
        self.interpreter.set_input(values)
        ready = time.monotonic_ns()
        self.interpreter.invoke()
        if self._simulated_ns:
            time.sleep(max(0, self._simulated_ns - (time.monotonic_ns() - ready)) / 1e9)
        invoked = time.monotonic_ns()
        # Another package's runtime may give a view of its memory, and the next inference come before this is read.
        raw = self.interpreter.output(self.io.output.position).copy()
        read_ns = time.monotonic_ns() - invoked
        embedding = None if self.embedder is None else self.embedder.embedding()
        rest = started, self.interpreter.engine, box, embedding
        return raw, prepared_ns + ready - began, invoked - ready, read_ns, rest

    def _classified(self, raw: Any, preprocess_ns: int, inference_ns: int, read_ns: int, rest: tuple) -> Classified:
        began = time.monotonic_ns()
        scores = self.scores_from(raw)
        return Classified(scores, preprocess_ns, inference_ns, read_ns + time.monotonic_ns() - began, *rest)

    def completed(self, pixels: np.ndarray, answers: CameraAnswers) -> Classified:
        """Scores of a picture that a network inside the camera has answered. Raises ModelError: another model's."""
        if not isinstance(self.interpreter, InCamera):
            raise ModelError(f"the camera runs a network, and {self.path} does not")
        started = time.monotonic_ns()
        scores = self.scores_from(self.interpreter.complete(answers.values, self.io.output.position))
        done = time.monotonic_ns()
        took = int(answers.took_ns or 0)
        return Classified(
            scores, 0, took, done - started, started, self.interpreter.engine, self.box(*pixels.shape[1::-1])
        )

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the part of a `width` x `height` picture that the model looks at."""
        return self._fit.box(width, height)

    def scores_from(self, raw: np.ndarray) -> np.ndarray:
        """Real scores float32 (one an output row) of the raw output tensor: dequantized, made probabilities.

        Raises ModelError where they are no numbers.
        """
        scores, kind = self._real_scores(raw.reshape(-1)), self.io.output.kind
        if kind == "value":
            if not np.isfinite(scores).all():
                raise self._no_numbers()
            return scores
        if kind != "logits" and self.io.output.logistic:
            scores = 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
        if not self._within:
            if not np.isfinite(scores).any():
                raise self._no_numbers()
            scores = np.clip(np.nan_to_num(scores, nan=0.0) / np.float32(self.io.output.whole), 0.0, 1.0)
        if self.unknown is not None and self.unknown.factor != 1:
            scores[self.unknown.row] *= np.float32(self.unknown.factor)
            scores /= scores.sum()
        return np.array([1 - scores[0], scores[0]], np.float32) if kind == "binary" else scores

    def _no_numbers(self) -> ModelError:
        return ModelError(
            f"{self.path or 'the model'} answers with NaN or infinity",
            hint="its weights are damaged, or its input is scaled otherwise (--input-range, --mean and --std)",
        )

    def scores(self, pixels: np.ndarray, order: str = "rgb") -> np.ndarray:
        """Real scores float32, one an output row, of one picture."""
        return self.classify(pixels, order).scores

    def top(self, scores: np.ndarray, k: Optional[int] = None) -> list[Prediction]:
        """The `k` (default: `top_k`) best rows with their labels."""
        best = top_predictions(scores, self.labels, k or self.top_k)
        if self.task == "classification":
            return best
        return [replace(one, unit=self.unit, error=self._expected_error(one.score)) for one in best]

    def _expected_error(self, value: float) -> Optional[float]:
        """The error of the part of the range in which `value` is."""
        part = next((one for one in self._errors if value <= one[1]), self._errors[-1] if self._errors else None)
        return None if part is None else part[2]

    def warm_up(self, invocations: int = 1) -> None:
        """Invoke on a grey picture: the first inference packs weights and touches memory."""
        grey = np.full((*self.input_size, 3), 128, np.uint8)
        for _ in range(invocations):
            self.interpreter.set_input(self._writer(self._fit.to_rgb(grey)))
            self.interpreter.invoke()

    def close(self) -> None:
        self.interpreter.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check(path: str) -> None:
    """Look at the file before a native loader does. Raises ModelError."""
    if own_format(path):
        return
    if row := accelerators.compiled_for(model_file.check(path).custom_ops):
        raise row.not_on_cpu(path)
