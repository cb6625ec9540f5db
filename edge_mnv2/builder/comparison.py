"""What quantization cost: the integer model beside the float model on the same pictures, and how long each takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.inference import Operation
from edge_mnv2.runtime.interpreter import Interpreter, open_interpreter
from edge_mnv2.runtime.onnx_runtime import session_options
from edge_mnv2.runtime.prediction import softmax
from edge_mnv2.runtime.preprocess import InputWriter

LAYER_PICTURES = 16
"""So many pictures settle a layer's signal-to-noise ratio to a few tenths of a decibel."""

_MOST_DECIBELS = 99.0

WIDER = 0.75
"""Ranges so far on the way from the mean of the pictures' to the extremes of all of them."""


@dataclass(frozen=True)
class LayerNoise:
    """`snr_db`: segmental signal-to-noise ratio, the mean over pictures and positions of 10 log10(|x|^2 / |x - q|^2),
    where x are the channels of one position in the float model and q in the integer model, whose earlier layers are
    quantized too. A mean of decibels, because values at the picture's corners can be many times all others: a single
    ratio of sums would tell of nothing else. `saturation`: share of values at an end of the integer range that cuts
    something (where the lower end stands for 0, the upper one)."""

    snr_db: float
    saturation: float


@dataclass(frozen=True)
class Comparison:
    """`agreement`: share of pictures with the same top-1 (None for a regression or a single class).

    `logit_cosine`: mean over pictures of the cosine between both models' outputs before softmax. `saturation`: share of
    pictures whose greatest logit is the greatest integer. `value_rms`: root mean square difference of a regression's
    values, in its unit. `layers`: tensor name → noise.
    """

    pictures: int
    agreement: Optional[float]
    logit_cosine: float
    saturation: float
    value_rms: Optional[float]
    layers: dict[str, LayerNoise] = field(default_factory=dict)


def compare(
    reference: bytes, integer: bytes, steps: Sequence[Operation], images: Sequence[np.ndarray], *, task: str
) -> Comparison:
    """Run both models on `images` (RGB uint8 of their size): as they will run, and layer by layer on some of them."""
    exact, _ = _answers(reference, images)
    coarse, saturated = _answers(integer, images)
    regression = task == "regression"
    several = exact.shape[1] > 1 and not regression
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(coarse, axis=1)
    products = (exact * coarse).sum(axis=1)
    cosines = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1.0), 1.0)
    return Comparison(
        len(images),
        float((exact.argmax(axis=1) == coarse.argmax(axis=1)).mean()) if several else None,
        float(cosines.mean()),
        saturated,
        float(np.sqrt(np.square(exact - coarse).mean())) if regression else None,
        _layers(reference, integer, steps, images[:: -(-len(images) // LAYER_PICTURES)]),
    )


def divergence(exact: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """How far `coarse` logits (pictures, classes) are from the `exact` ones (pictures,): the KL divergence of their
    probabilities in nats; of a single output the squared difference."""
    if exact.shape[1] == 1:
        return np.square(exact - coarse)[:, 0]
    p, q = (np.maximum(softmax(values), 1e-12) for values in (exact, coarse))
    return np.maximum(np.sum(p * np.log(p / q), axis=1), 0.0)


def choose_share(
    reference: bytes,
    images: Sequence[np.ndarray],
    limits: Mapping[str, np.ndarray],
    integers: Callable[[Mapping[str, np.ndarray], float], bytes],
) -> float:
    """How far to go from the mean of the pictures' ranges to their extremes: 0, or `WIDER` where that is surely nearer.

    `limits` are those of the calibration crops `images`; `integers` makes the integer model of some of them and a
    share. Ranges of every second crop are judged by the root of the `divergence` on the others, and the other way
    round: a few pictures hold most of it, and the root lets all count. What is gained has to be more than twice its
    standard error: a few dozen crops differ more by chance than both ranges do.
    """
    gained = []
    for part in (0, 1):
        used, asked = {name: each[part::2] for name, each in limits.items()}, images[1 - part :: 2]
        exact, _ = _answers(reference, asked)
        mean, wider = (np.sqrt(divergence(exact, _answers(integers(used, one), asked)[0])) for one in (0.0, WIDER))
        gained.append(mean - wider)
    gain = np.concatenate(gained)
    return WIDER if gain.mean() > 2 * gain.std() / np.sqrt(gain.size) else 0.0


def _answers(model: bytes, images: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Real outputs float64 (pictures, outputs), and the share of pictures whose greatest is the greatest integer."""
    with open_interpreter(model, threads=2) as interpreter:
        writer, spec = InputWriter(interpreter.inputs[0]), interpreter.outputs[0]
        answers, saturated = [], 0
        for image in images:
            interpreter.set_input(writer(image))
            interpreter.invoke()
            raw = interpreter.output()[0]
            saturated += int(spec.quantized and raw.max() == np.iinfo(spec.dtype).max)
            answers.append(spec.dequantize(raw).astype(np.float64))
    return np.array(answers), saturated / len(images)


def _layers(
    reference: bytes, integer: bytes, steps: Sequence[Operation], images: Sequence[np.ndarray]
) -> dict[str, LayerNoise]:
    """With plain kernels, so that every tensor can be seen."""
    names = [step.output for step in steps if step.kind != "pad"]
    sums = {name: np.zeros(3) for name in names}
    with _opened(reference) as exact, _opened(integer) as coarse:
        sides = [(model, InputWriter(model.inputs[0]), _by_name(model)) for model in (exact, coarse)]
        for image in images:
            for model, writer, _ in sides:
                model.set_input(writer(image))
                model.invoke()
            for name in names:
                wanted = exact.tensor(sides[0][2][name]["index"]).astype(np.float64)
                details = sides[1][2][name]
                raw = coarse.tensor(details["index"])
                scale, zero = details["quantization"]
                got = (raw.astype(np.float64) - zero) * scale
                cut = int((raw == 127).sum()) + (int((raw == -128).sum()) if zero > -128 else 0)
                sums[name] += _segmental_decibels(wanted, got), cut, raw.size
    return {
        name: LayerNoise(round(decibels / len(images), 2), round(cut / size, 6))
        for name, (decibels, cut, size) in sums.items()
    }


def _opened(model: bytes) -> Interpreter:
    return open_interpreter(model, xnnpack=False, preserve_all_tensors=True, threads=2)


def _by_name(model: Interpreter) -> dict[str, dict[str, Any]]:
    return {details["name"]: details for details in model.tensor_details()}


def _segmental_decibels(wanted: np.ndarray, got: np.ndarray) -> float:
    """Mean over positions (every axis but the last) of the signal-to-noise ratio, each within 0 to 99 dB."""
    signal, noise = np.square(wanted).sum(axis=-1), np.square(wanted - got).sum(axis=-1)
    alive = signal > 0
    if not alive.any():
        return _MOST_DECIBELS
    ratio = signal[alive] / np.maximum(noise[alive], signal[alive] * 1e-12)
    return float(np.clip(10 * np.log10(ratio), 0.0, _MOST_DECIBELS).mean())


_REPEATS = 20


def tflite_ms(model: bytes) -> float:
    """Median milliseconds with one thread, after a warm-up."""
    with open_interpreter(model) as interpreter:
        spec = interpreter.inputs[0]
        interpreter.set_input(np.zeros(spec.shape, spec.dtype))
        return _median_ms(interpreter.invoke)


def onnx_ms(model: bytes) -> Optional[float]:
    """The same in ONNX Runtime, in a session as `run` makes it; None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = session_options(onnxruntime)
    session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (model_input,) = session.get_inputs()
    feed = {model_input.name: np.zeros(model_input.shape, np.uint8)}
    return _median_ms(lambda: session.run(None, feed))


def _median_ms(once: Callable[[], object]) -> float:
    once()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e3, 3)
