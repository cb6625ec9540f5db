"""What quantization cost: the integer model beside the float model on the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from edge_mnv2.build.inference import LOGITS, Operation
from edge_mnv2.runtime.interpreter import Interpreter, open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter


@dataclass(frozen=True)
class Comparison:
    """`agreement`: share of pictures with the same top-1 (None for a regression); `logit_cosine`: mean cosine of the
    logits; `saturation`: share of pictures whose greatest logit is the greatest integer; `snr_db`: tensor name →
    signal-to-noise ratio of the integer model's activations in decibels, 10 log10(sum x^2 / sum (x - q)^2)."""

    pictures: int
    agreement: Optional[float]
    logit_cosine: float
    saturation: float
    snr_db: dict[str, float]


def compare(
    reference: bytes, integer: bytes, steps: Sequence[Operation], images: Sequence[np.ndarray], *, classes: bool
) -> Comparison:
    """Run both models on `images` (RGB uint8 of their size), with plain kernels, so that every tensor can be seen."""
    names = [step.output for step in steps if step.kind != "pad"]
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    same, cosines, saturated = 0, [], 0
    with _opened(reference) as exact, _opened(integer) as coarse:
        feeds = [(model, InputWriter(model.inputs[0]), _by_name(model)) for model in (exact, coarse)]
        greatest = np.iinfo(np.int8).max
        for image in images:
            for model, writer, _ in feeds:
                model.set_input(writer(image))
                model.invoke()
            for name in names:
                wanted = exact.tensor(feeds[0][2][name]["index"]).astype(np.float64)
                details = feeds[1][2][name]
                raw = coarse.tensor(details["index"])
                scale, zero = details["quantization"]
                got = (raw.astype(np.float64) - zero) * scale
                signal[name] += float(np.square(wanted).sum())
                noise[name] += float(np.square(wanted - got).sum())
                if name == LOGITS:
                    same += int(wanted.argmax() == got.argmax())
                    lengths = float(np.linalg.norm(wanted) * np.linalg.norm(got))
                    cosines.append(float((wanted * got).sum()) / lengths if lengths else 1.0)
                    saturated += int(raw.max() == greatest)
    count = len(images)
    return Comparison(
        count,
        same / count if classes else None,
        float(np.mean(cosines)),
        saturated / count,
        {name: _decibels(signal[name], noise[name]) for name in names},
    )


def _opened(model: bytes) -> Interpreter:
    return open_interpreter(model, xnnpack=False, preserve_all_tensors=True, threads=2)


def _by_name(model: Interpreter) -> dict[str, dict[str, Any]]:
    return {details["name"]: details for details in model.tensor_details()}


def _decibels(signal: float, noise: float) -> float:
    if noise <= 0:
        return 99.0
    return round(10 * float(np.log10(max(signal, 1e-30) / noise)), 2)
