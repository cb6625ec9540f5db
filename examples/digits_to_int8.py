"""From pictures to an int8 model and its accuracy, twice: from scratch at width 0.35, and from ImageNet weights.

The pictures are scikit-learn's handwritten digits (1797 of 8x8 pixels, UCI Machine Learning Repository), enlarged and
sorted into `train/` and `val/`, one folder a class, as any photos would be. Needs a workstation:

    pip install 'edge-mnv2[train]' scikit-learn
    python examples/digits_to_int8.py [--short] [DIR]

`--short` takes 300 digits and two epochs from scratch: does everything work here?
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SCRATCH = ["--width", "0.35", "--resolution", "32", "--epochs", "15", "--qat", "6"]
FINE_TUNED = ["--weights", "imagenet", "--resolution", "64", "--epochs", "6", "--freeze-until", "4"]
DIGITS = ["--augment", "crop", "--least-area", "0.7"]
"""A mirrored digit is none, and one that is cut in half is another."""


def write_digits(folder: Path, count: int) -> None:
    """`count` digits as PNG files: a fifth in `val/`, the rest in `train/`."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:count]
    for place, number in enumerate(order):
        target = folder / ("val" if place < count // 5 else "train") / str(digits.target[number])
        target.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[number] * (255 / 16)).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(target / f"{number:04d}.png")


def edge_mnv2(*arguments: object) -> dict:
    """Run the command line, show what is run, give its JSON document."""
    words = [str(argument) for argument in arguments]
    print("\n$ edge-mnv2", shlex.join(words), flush=True)
    done = subprocess.run([sys.executable, "-m", "edge_mnv2", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def whole_way(pictures: Path, out: Path, options: list[str]) -> str:
    """Train, build, evaluate; one line of figures."""
    began = time.monotonic()
    trained = edge_mnv2("train", pictures, "--out", out, *options, *DIGITS)
    minutes = (time.monotonic() - began) / 60
    resolution = options[options.index("--resolution") + 1]
    common = ["--labels", out / "labels.txt", "--resolution", resolution, "--calibration", pictures / "train"]
    # After quantization-aware training the ranges come with the weights, and the pictures only measure.
    learned = ["--weights", out / "qat.pth", "--ranges", out / "qat.ranges.json"] if "--qat" in options else None
    built = edge_mnv2("build", *(learned or ["--weights", out / "best.pth"]), *common, "--out", out / "digits.tflite")
    measured = edge_mnv2("evaluate", pictures / "val", "--model", out / "digits.tflite")
    return (
        f"{trained['network']}: {trained['pictures']['train']} pictures, {minutes:.1f} minutes; float top-1 "
        f"{trained['top1']:.1%}, int8 top-1 {measured['top1']:.1%} on {measured['images']} pictures it never saw; "
        f"{built['bytes'] / 1e6:.2f} MB, {built['inference_ms']:.2f} ms here"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("digits"), metavar="DIR")
    parser.add_argument("--short", action="store_true", help="300 digits, two epochs, from scratch only")
    chosen = parser.parse_args()
    pictures = chosen.folder / "pictures"
    if not pictures.exists():
        write_digits(pictures, 300 if chosen.short else 1797)
    if chosen.short:
        options = ["--width", "0.35", "--resolution", "32", "--epochs", "2", "--qat", "1", "--threads", "1"]
        print(whole_way(pictures, chosen.folder / "short", options))
        return
    lines = [whole_way(pictures, chosen.folder / "scratch", SCRATCH)]
    lines.append(whole_way(pictures, chosen.folder / "fine-tuned", FINE_TUNED))
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
