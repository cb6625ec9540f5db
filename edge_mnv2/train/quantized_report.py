"""What quantization costs, and what training for it saves: the float network, the int8 file of the usual way, and the
int8 file after quantization-aware training, on the validation pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.camera.still import read_still
from edge_mnv2.datasets.dataset import Example
from edge_mnv2.errors import SourceError
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter, Preprocessor
from edge_mnv2.train.data import TrainingData
from edge_mnv2.train.qat import RANGES, WEIGHTS
from edge_mnv2.train.request import TrainRequest

FLOAT, POST, AWARE = "float", "post_training_int8", "qat_int8"


def compare_quantized(request: TrainRequest, data: TrainingData, say: Callable[[str], None]) -> dict[str, Any]:
    """Build the three models into `request.out` and measure them, by the runtime that boards use.

    By name: `model` (its file), `top1`, `agreement` (same top-1 as the float network) and `distance`, the mean relative
    entropy KL(float || integer) of the probabilities, in nats: agreement without its coarse steps. For a regression
    `rmse` and `deviation`, the root mean square distance from the float network's values.
    """
    out = request.out
    labels = out / "labels.txt" if data.classes else None

    def made(name: str, weights: Path, **more: Any) -> Path:
        target = out / f"{name}.tflite"
        build(
            BuildRequest(target, str(weights), resolution=request.resolution, labels=labels, task=request.task, **more)
        )
        return target

    best = out / "best.pth"
    models = {
        FLOAT: made(FLOAT, best, floating=True),
        POST: made(POST, best, calibration=data.pictures),
        AWARE: made(AWARE, out / WEIGHTS, ranges=out / RANGES),
    }
    found: dict[str, Any] = {}
    reference: Optional[np.ndarray] = None
    for name, model in models.items():
        outputs, truths = _answers(model, data.validation, request.resolution)
        reference = outputs if reference is None else reference
        found[name] = {"model": str(model), **_measures(outputs, truths, reference, bool(data.classes))}
        say(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found[name].items() if key != "model"))
    return found


def _answers(model: Path, examples: list[Example], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Dequantized outputs (pictures, outputs) and truths (pictures,) of what can be read."""
    fit, outputs, truths = Preprocessor(size, size), [], []
    with open_interpreter(model) as interpreter:
        writer, spec = InputWriter(interpreter.inputs[0]), interpreter.outputs[0]
        for example in examples:
            try:
                pixels = read_still(example.path)
            except SourceError:
                continue
            interpreter.set_input(writer(fit.to_rgb(pixels)))
            interpreter.invoke()
            outputs.append(spec.dequantize(interpreter.output().reshape(-1)).copy())
            truths.append(example.truth if isinstance(example.truth, int) else example.truth[0])
    return np.array(outputs, np.float64), np.array(truths)


def _measures(outputs: np.ndarray, truths: np.ndarray, reference: np.ndarray, classes: bool) -> dict[str, float]:
    if classes:
        best, ours, parents = outputs.argmax(1), _log_shares(outputs), _log_shares(reference)
        return {
            "top1": float((best == truths).mean()),
            "agreement": float((best == reference.argmax(1)).mean()),
            "distance": float((np.exp(parents) * (parents - ours)).sum(1).mean()),
        }
    return {
        "rmse": float(np.sqrt(np.square(outputs[:, 0] - truths).mean())),
        "deviation": float(np.sqrt(np.square(outputs - reference).mean())),
    }


def _log_shares(logits: np.ndarray) -> np.ndarray:
    """log(softmax), row by row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
