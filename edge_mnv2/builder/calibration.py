"""Activation ranges from pictures: what the quantized model's integers have to cover."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge_mnv2.builder.inference import LOGITS, Operation
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter


def activation_ranges(
    model: bytes, steps: list[Operation], pictures: Iterable[np.ndarray], *, regression: bool = False
) -> dict[str, tuple[float, float]]:
    """Mean over `pictures` (RGB uint8 of the model's size) of each activation's minimum and maximum.

    `model` is the float model of `steps`. The mean, rather than the extremes, keeps one odd picture from making every
    step coarser. For a `regression` the last one gets the extremes: every picture's value has to fit.
    """
    names = [step.output for step in steps if step.kind != "pad"]
    with open_interpreter(model, xnnpack=False, preserve_all_tensors=True, threads=2) as interpreter:
        index = {details["name"]: details["index"] for details in interpreter.tensor_details()}
        to_input = InputWriter(interpreter.inputs[0])
        seen = []
        for picture in pictures:
            interpreter.set_input(to_input(picture))
            interpreter.invoke()
            values = [interpreter.tensor(index[name]) for name in names]
            seen.append([(float(value.min()), float(value.max())) for value in values])
    found = np.array(seen)
    ranges = {name: (float(low), float(high)) for name, (low, high) in zip(names, found.mean(axis=0))}
    if regression:
        last = found[:, names.index(LOGITS)]
        ranges[LOGITS] = (float(last[:, 0].min()), float(last[:, 1].max()))
    return ranges
