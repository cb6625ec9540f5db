"""What each step of the int8 recipe is worth: the table of docs/build.md. And the recipe beside TensorFlow's converter.

    python benchmarks/quantization.py PHOTOS CALIBRATION
    python benchmarks/quantization.py PICTURES CALIBRATION --weights FILE.pth [--resolution 96] [--tensorflow PYTHON]
    python benchmarks/quantization.py --made FOLDER

PHOTOS has labels.csv (file,class_index,...); CALIBRATION is a folder of other pictures. Each row changes one thing in
the recipe for the ImageNet weights at 224. Agreement is with the float model, over all PHOTOS.

With `--weights`, given once or more, rows for each file, whatever its width; bold is what `build` chooses. PICTURES and
CALIBRATION have labels.csv or one folder a class, as those that it was trained with; 50 pictures calibrate, the same
for both. `--made FOLDER` writes such pictures: FOLDER/train and FOLDER/val for `edge-mnv2 train FOLDER --weights none
--resolution 96 --augment crop,colour --least-area 0.6 --width N`, and FOLDER/new. PYTHON is one that has TensorFlow.
Agreement and KL (nats, of the probabilities) are with the float model.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional
from unittest import mock

import numpy as np

from edge_mnv2.builder import quantization
from edge_mnv2.builder.calibration import activation_limits, activation_ranges, read_crops, shipped_ranges, spanned
from edge_mnv2.builder.comparison import WIDER, choose_share, divergence
from edge_mnv2.builder.inference import MEAN, STD, Operation, operations
from edge_mnv2.builder.quantization import LOGIT_MARGIN, Ranges, activation_scales, quantize
from edge_mnv2.builder.recipe import IMAGENET_ENTRY
from edge_mnv2.builder.tflite_model import float_model, integer_model, numbers
from edge_mnv2.builder.weights import Weights, read_weights
from edge_mnv2.camera.still import read_still
from edge_mnv2.network.network import mobilenet_v2
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import InputWriter, Preprocessor
from edge_mnv2.zoo.pull import fetch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.teach.made_classes import write_classes

SIZE = 224
CROPS = 50
MADE_PARTS = {"train": (60, 0), "val": (6, 1), "new": (40, 33)}
"""Pictures a class, and the generator's seed."""
REACH = {"mean range": 0.0, "wider range": WIDER}
CONVERTER = Path(__file__).parent / "peers" / "tensorflow_converter.py"
PIXELS = tuple(255 * np.array(values) for values in (MEAN, STD))


def logits(model: bytes, pictures: Sequence[np.ndarray], *pixels: np.ndarray) -> np.ndarray:
    """Logits (pictures, classes). `pixels`: mean and standard deviation, for a model that does not have them inside."""
    with open_interpreter(model, threads=2) as interpreter:
        writer, spec = InputWriter(interpreter.inputs[0], *pixels), interpreter.outputs[0]
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


def by_tensorflow(python: str, steps: list[Operation], crops: Sequence[np.ndarray]) -> bytes:
    """What TensorFlow's converter makes of `steps`, calibrated with the same crops."""
    arrays = {"pictures": ((np.stack(crops) - PIXELS[0]) / PIXELS[1]).astype(np.float32)}
    plain = []
    for place, step in enumerate(steps):
        fields = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
        for name in ("weights", "bias", "centre", "spread"):
            values = fields.pop(name)
            if values is not None:
                arrays[f"{name}{place}"] = values.astype(np.float32)
        plain.append(fields)
    with tempfile.TemporaryDirectory() as work:
        network, model = Path(work) / "network.npz", Path(work) / "model.tflite"
        np.savez(network, steps=json.dumps(plain), **arrays)
        subprocess.run([python, str(CONVERTER), str(network), str(model)], check=True, capture_output=True)
        return model.read_bytes()


def read_classes(folder: Path, fit: Preprocessor, most: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """The pictures below `folder` as the model sees them, evenly over the classes `most` of them; and their classes."""
    if (folder / "labels.csv").is_file():
        with (folder / "labels.csv").open(encoding="utf-8") as table:
            rows = [(folder / row["file"], int(row["class_index"])) for row in csv.DictReader(table)]
    else:
        files = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))
        classes = sorted({file.parent.name for file in files})
        rows = [(file, classes.index(file.parent.name)) for file in files]
    if most:
        rows = rows[:: max(1, len(rows) // most)][:most]
    return [fit.to_rgb(read_still(file)).copy() for file, _ in rows], np.array([place for _, place in rows])


def widths(options: argparse.Namespace) -> None:
    """A row for each of the trained weights: our integers and TensorFlow's against the float model."""
    fit = Preprocessor(options.resolution, options.resolution)
    pictures, truth = read_classes(options.photos, fit)
    crops, _ = read_classes(options.calibration, fit, CROPS)
    print("| width | float top-1 | integers of | top-1 | agreement | KL |\n| ---: | ---: | --- | ---: | ---: | ---: |")
    for path in options.weights:
        for row in compared(read_weights(path), pictures, truth, crops, options.resolution, options.tensorflow):
            print(row, flush=True)


def compared(
    weights: Weights,
    pictures: Sequence[np.ndarray],
    truth: np.ndarray,
    crops: Sequence[np.ndarray],
    resolution: int,
    tensorflow: Optional[str],
) -> Iterator[str]:
    """The rows of one network."""
    network = mobilenet_v2(weights.width or 1.0, resolution, weights.outputs)
    steps = operations(network, weights.tensors)
    reference = float_model(network, steps)
    limits = activation_limits(reference, steps, crops)

    def integers(some: Mapping[str, np.ndarray], share: float) -> bytes:
        return integer_model(network, steps, numbers(network, steps, spanned(some, share)))

    share = choose_share(reference, crops, limits, integers)
    exact = logits(reference, pictures)
    found = {f"edge-mnv2, {name}": logits(integers(limits, one), pictures) for name, one in REACH.items()}
    if tensorflow:
        found["TensorFlow"] = logits(by_tensorflow(tensorflow, steps, crops), pictures, *PIXELS)
    best = exact.argmax(axis=1)
    for name, values in found.items():
        top, right = values.argmax(axis=1), (best == truth).mean()
        name = f"**{name}**" if name.endswith(dict(zip(REACH.values(), REACH))[share]) else name
        agreed = f"{(top == best).mean():.3f} | {divergence(exact, values).mean():.4f}"
        yield f"| {weights.width:g} | {right:.3f} | {name} | {(top == truth).mean():.3f} | {agreed} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("calibration", type=Path, nargs="?")
    parser.add_argument("--made", type=Path, metavar="FOLDER")
    parser.add_argument("--weights", type=Path, action="append")
    parser.add_argument("--resolution", type=int, default=SIZE)
    parser.add_argument("--tensorflow", metavar="PYTHON")
    options = parser.parse_args()
    if options.made:
        for part, (each, seed) in MADE_PARTS.items():
            for kind in ("digits", "textures", "signs"):
                write_classes(options.made / part, kind, each, seed)
        return
    if options.photos is None or options.calibration is None:
        parser.error("give PHOTOS and CALIBRATION, or --made FOLDER")
    if options.weights:
        widths(options)
        return
    fit = Preprocessor(SIZE, SIZE)
    pictures, truth = read_classes(options.photos, fit)

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
