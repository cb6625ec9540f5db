"""A model with its labels: pictures in, named scores out. Every command classifies through this class."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.runtime.interpreter import (
    AnyInterpreter,
    NamedRuntimeMissing,
    RuntimeMissing,
    TensorSpec,
    open_interpreter,
)
from edge_mnv2.runtime.preprocess import Channels, InputWriter, Preprocessor
from edge_mnv2.tflite import model_file
from edge_mnv2.zoo.labels import fit_labels

log = logging.getLogger(__name__)

SIMULATE = "EDGE_MNV2_SIMULATE_INFERENCE_MS"
_PROBABILITY_SLACK = 1 / 256
"""A quantized softmax can reach 256/256 and its rows can add up to a little more than 1."""


@dataclass(frozen=True)
class Prediction:
    """One named output: `index` is the model's own output row, `score` a probability.

    In a regression `score` is the measured value and `unit` its unit ("" where none is known); else `unit` is None.
    """

    label: str
    index: int
    score: float
    unit: Optional[str] = None

    @property
    def figure(self) -> str:
        """What a person reads: "93%", or a value with its unit."""
        return f"{self.score:.0%}" if self.unit is None else f"{self.score:.4g} {self.unit}".rstrip()


@dataclass(frozen=True)
class Classified:
    """The scores of one picture (float32, one an output row) and what each stage took, in nanoseconds."""

    scores: np.ndarray
    preprocess_ns: int
    inference_ns: int
    postprocess_ns: int
    started_at: int
    engine: str


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


def top_predictions(scores: np.ndarray, labels: Sequence[str], k: int) -> list[Prediction]:
    """The `k` best rows of `scores`, best first; equal scores keep the order of their rows."""
    k = min(k, scores.size)
    if k < scores.size:
        least = np.partition(scores, scores.size - k)[scores.size - k]
        rows = np.flatnonzero(scores >= least)
    else:
        rows = np.arange(scores.size)
    rows = rows[np.argsort(-scores[rows], kind="stable")][:k]
    return [Prediction(labels[row], row, float(scores[row])) for row in rows.tolist()]


def softmax(logits: np.ndarray) -> np.ndarray:
    """`exp(x - max) / sum(exp(x - max))` over the last axis, in the dtype of `logits`."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


class Classifier:
    """An interpreter, its preprocessing and its labels. One thread at a time; a context manager."""

    def __init__(
        self,
        interpreter: AnyInterpreter,
        facts: model_file.ModelFile,
        labels: Optional[Sequence[str]] = None,
        *,
        background: Optional[str] = None,
        resize: str = "crop",
        top_k: int = 5,
        task: str = "classification",
        mean: Optional[Channels] = None,
        std: Optional[Channels] = None,
        unit: Optional[str] = None,
    ) -> None:
        self.interpreter = interpreter
        self.facts = facts
        self.task = task
        self.unit = unit or ""
        self.top_k = top_k
        self.input: TensorSpec = interpreter.inputs[0]
        self.output: TensorSpec = interpreter.outputs[0]
        if len(interpreter.inputs) != 1:
            raise ModelError(f"{facts.path} has {len(interpreter.inputs)} inputs: it is no picture classifier")
        self._writer = InputWriter(self.input, mean, std)
        self._fit = Preprocessor(self._writer.height, self._writer.width, resize, self._writer.channels)
        self.outputs = _rows(facts.path, self.output)
        self.labels, self.labels_note = fit_labels(labels, self.outputs, background=background)
        self._simulated_ns = simulated_inference_ns()
        self._softmax = task == "classification" and not _gives_probabilities(facts, self.output)
        # Integers are finite, and so is their softmax: only other scores can be NaN or outside 0..1.
        low, high = _limits(self.output)
        self._within = -np.inf < low and high < np.inf and (self._softmax or (low >= 0 and high <= 1))

    @classmethod
    def open(
        cls,
        path: Union[Path, str],
        labels: Optional[Sequence[str]] = None,
        *,
        background: Optional[str] = None,
        runtime: str = "auto",
        threads: int = 1,
        delegates: Sequence[Any] = (),
        delegate_name: Optional[str] = None,
        gpu: bool = True,
        resize: str = "crop",
        top_k: int = 5,
        task: str = "classification",
        mean: Optional[Channels] = None,
        std: Optional[Channels] = None,
        unit: Optional[str] = None,
    ) -> Classifier:
        """Check the file, load it, fit the labels to it.

        `background` says where the registry knows a background row ("first", "last", "none"). An `.onnx` file goes to
        ONNX Runtime, on the board's GPU where there is one and `gpu` allows it. Raises ModelError, LabelsError (counts
        that do not fit), UsageError (a `runtime` that cannot run the file) or RuntimeMissing.
        """
        facts = model_file.check(path)
        if facts.edgetpu and not delegates:
            raise ModelError(
                f"{facts.path} is compiled for the Coral Edge TPU and cannot run on a CPU",
                hint="use --delegate edgetpu with a Coral attached, or the same model without _edgetpu in its name",
            )
        interpreter: AnyInterpreter
        if facts.path.lower().endswith(".onnx"):
            interpreter, facts = _onnx(facts, runtime, threads, gpu)
        else:
            interpreter = open_interpreter(
                path, runtime=runtime, threads=threads, delegates=delegates, delegate_name=delegate_name
            )
        try:
            return cls(
                interpreter,
                facts,
                labels,
                background=background,
                resize=resize,
                top_k=top_k,
                task=task,
                mean=mean,
                std=std,
                unit=unit,
            )
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

    def seen(self, pixels: np.ndarray) -> np.ndarray:
        """The part of a picture (HxWx3) that the model looks at, a view."""
        return self._fit.seen(pixels)

    def classify(self, pixels: np.ndarray, order: str = "rgb") -> Classified:
        """Scores of one picture: `pixels` HxWx3 uint8 in `order`. Raises ModelError where the model fails."""
        started = time.monotonic_ns()
        self.interpreter.set_input(self._writer(self._fit.to_rgb(pixels, order)))
        ready = time.monotonic_ns()
        self.interpreter.invoke()
        if self._simulated_ns:
            remaining = self._simulated_ns - (time.monotonic_ns() - ready)
            if remaining > 0:
                time.sleep(remaining / 1e9)
        invoked = time.monotonic_ns()
        scores = self.scores_from(self.interpreter.output())
        done = time.monotonic_ns()
        engine = self.interpreter.engine
        return Classified(scores, ready - started, invoked - ready, done - invoked, started, engine)

    def scores_from(self, raw: np.ndarray) -> np.ndarray:
        """Real scores float32 (one an output row) of the raw output tensor: dequantized, softmax where none was."""
        scores = self.output.dequantize(raw.reshape(-1))
        if self.task != "classification":
            return scores
        if self._softmax:
            scores = softmax(scores)
        if self._within:
            return scores
        return np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0)

    def scores(self, pixels: np.ndarray, order: str = "rgb") -> np.ndarray:
        """Real scores float32, one an output row, of one picture."""
        return self.classify(pixels, order).scores

    def top(self, scores: np.ndarray, k: Optional[int] = None) -> list[Prediction]:
        """The `k` (default: `top_k`) best rows with their labels."""
        best = top_predictions(scores, self.labels, k or self.top_k)
        return best if self.task == "classification" else [replace(one, unit=self.unit) for one in best]

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


def _onnx(
    facts: model_file.ModelFile, runtime: str, threads: int, gpu: bool
) -> tuple[AnyInterpreter, model_file.ModelFile]:
    """The open interpreter, and the facts with what only an open ONNX model tells."""
    from edge_mnv2.runtime import onnx_backend

    if runtime not in ("auto", onnx_backend.NAME):
        raise UsageError(f"{runtime} cannot run {facts.path}", hint=f"ONNX models need --runtime {onnx_backend.NAME}")
    try:
        interpreter = onnx_backend.open_onnx(facts.path, threads=threads, gpu=gpu)
    except RuntimeMissing as error:
        if runtime == "auto":
            raise
        raise NamedRuntimeMissing(error.message, hint=error.hint) from error
    name = interpreter.outputs[0].name.lower() if interpreter.outputs else ""
    return interpreter, replace(facts, probabilities="SOFTMAX" if "prob" in name or "softmax" in name else "")


def _rows(path: str, output: TensorSpec) -> int:
    sizes = [n for n in output.shape if n not in (1, -1)]
    if len(sizes) > 1:
        shown = "x".join(str(n) for n in output.shape)
        raise ModelError(f"{path} has an output of shape {shown}, not one row of scores: it is no picture classifier")
    return sizes[0] if sizes else 1


def _gives_probabilities(facts: model_file.ModelFile, output: TensorSpec) -> bool:
    if facts.probabilities is not None:
        return facts.probabilities != ""
    # A compiled graph hides its last operator: a softmax is quantized to exactly the range 0..1.
    low, high = _limits(output)
    return bool(abs(low) < 1e-6 and abs(high - 1) <= 2 * _PROBABILITY_SLACK)


def _limits(output: TensorSpec) -> tuple[float, float]:
    """The least and the largest real value that a tensor can hold."""
    if not output.quantized or output.dtype.kind not in "iu":
        return -np.inf, np.inf
    limits = np.iinfo(output.dtype)
    return output.scale * (limits.min - output.zero_point), output.scale * (limits.max - output.zero_point)
