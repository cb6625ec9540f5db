"""What each step of the int8 recipe is worth: the table of docs/build.md.

    python benchmarks/quantization.py PHOTOS CALIBRATION

PHOTOS has labels.csv (file,class_index,...); CALIBRATION is a folder of other pictures. Each row changes one thing in
the recipe for the ImageNet weights at 224. Agreement is with the float model, over all PHOTOS.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from edge_mnv2.builder import quantization
from edge_mnv2.builder.calibration import activation_ranges, read_crops, shipped_ranges
from edge_mnv2.builder.inference import Operation, operations
from edge_mnv2.builder.quantization import LOGIT_MARGIN, Ranges, activation_scales, quantize
from edge_mnv2.builder.recipe import IMAGENET_ENTRY
from edge_mnv2.builder.tflite_model import float_model, integer_model
from edge_mnv2.builder.weights import read_weights
from edge_mnv2.camera.still import read_still
from edge_mnv2.network.mobilenet_v2 import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter, Preprocessor
from edge_mnv2.zoo.pull import fetch

SIZE = 224


def logits(model: bytes, pictures: Sequence[np.ndarray]) -> np.ndarray:
    with open_interpreter(model, threads=2) as interpreter:
        writer, spec = InputWriter(interpreter.inputs[0]), interpreter.outputs[0]
        found = []
        for picture in pictures:
            interpreter.set_input(writer(picture))
            interpreter.invoke()
            found.append(spec.dequantize(interpreter.output()[0]))
    return np.array(found, np.float64)


def extremes(reference: bytes, steps: list[Operation], crops: Sequence[np.ndarray]) -> Ranges:
    """The widest range of all pictures, instead of the mean of their ranges."""
    each = [activation_ranges(reference, steps, [crop]) for crop in crops]
    return {name: (min(one[name][0] for one in each), max(one[name][1] for one in each)) for name in each[0]}


def padded_at_the_end(steps: list[Operation]) -> list[Operation]:
    """What `SAME` does at stride 2, and most converters with it: zeros below and on the right only."""
    padded = {step.output: step.inputs[0] for step in steps if step.kind == "pad"}
    return [
        dataclasses.replace(step, inputs=tuple(padded.get(name, name) for name in step.inputs), same=True)
        for step in steps
        if step.kind != "pad"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("calibration", type=Path)
    options = parser.parse_args()
    fit = Preprocessor(SIZE, SIZE)
    with (options.photos / "labels.csv").open(encoding="utf-8") as handle:
        examples = [(line["file"], int(line["class_index"])) for line in csv.DictReader(handle)]
    pictures = [fit.to_rgb(read_still(options.photos / file)).copy() for file, _ in examples]
    truth = np.array([index for _, index in examples])

    network, weights = mobilenet_v2(), read_weights(Path(fetch(IMAGENET_ENTRY)))
    steps = operations(network, weights.tensors)
    reference = float_model(network, steps)
    shipped = shipped_ranges(network, weights)
    crops = read_crops(options.calibration, SIZE).images
    noise = list(np.random.default_rng(1).integers(0, 256, (len(crops), SIZE, SIZE, 3), np.uint8))
    exact = logits(reference, pictures)

    def integers(found: Ranges, margin: float = LOGIT_MARGIN) -> bytes:
        scales = activation_scales(steps, found, margin)
        return integer_model(network, steps, (scales, quantize(steps, scales)))

    def uncorrected() -> bytes:
        zeros = {step.output: np.zeros(step.shape[2]) for step in steps} | {"input": np.zeros(3)}
        with mock.patch.object(quantization, "expected_activations", lambda steps: zeros):
            return integers(shipped)

    rows: list[tuple[str, Callable[[], bytes]]] = [
        ("float", lambda: reference),
        ("float, zeros of `SAME` at stride 2", lambda: float_model(network, padded_at_the_end(steps))),
        ("int8 as shipped", lambda: integers(shipped)),
        (
            f"ranges of {len(crops)} crops of other pictures",
            lambda: integers(activation_ranges(reference, steps, crops)),
        ),
        ("the widest range of all those", lambda: integers(extremes(reference, steps, crops))),
        ("ranges of noise", lambda: integers(activation_ranges(reference, steps, noise))),
        ("biases not corrected", uncorrected),
        ("logits 1.3 x as wide, not 2", lambda: integers(shipped, 1.3)),
        ("logits not widened", lambda: integers(shipped, 1.0)),
    ]
    print("| model | top-1 | agreement | logit cosine |\n| --- | ---: | ---: | ---: |")
    for name, make in rows:
        found = logits(make(), pictures)
        cosine = (found * exact).sum(axis=1) / (np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1))
        best = found.argmax(axis=1)
        agreed = (best == exact.argmax(axis=1)).mean()
        print(f"| {name} | {(best == truth).mean():.3f} | {agreed:.3f} | {cosine.mean():.4f} |")


if __name__ == "__main__":
    main()
