"""What a lower resolution of the same ImageNet weights costs and saves: the table and chart of docs/resolutions.md.

    python benchmarks/resolutions.py PHOTOS [--svg docs/resolutions.svg] [--rounds 60]

PHOTOS has labels.csv (file,class_index,...). Every model is built from the weights and the ranges that ship, so that
it is what `edge-mnv2 pull mobilenet_v2_1.0_192_int8` gives. The photos are decoded once and cropped for each model from
the same picture. Times are of the model alone, one thread, in short bursts that take turns; the ratio is the median
over rounds of a burst's time over that of 224 in the same round.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_mnv2.builder.recipe import build
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.camera.still import read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.svg_chart import fragment

RESOLUTIONS = (224, 192, 160, 128)
BURST = 8


@dataclass
class Row:
    """One model; `answers` are its top classes, `ms` the bursts' mean times of an inference."""

    resolution: int
    floating: bool
    model: Classifier
    macs: int
    bytes: int
    answers: list[int] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)


def opened(folder: Path, resolution: int, floating: bool) -> Row:
    out = folder / f"{resolution}{'_float' if floating else ''}.tflite"
    report = build(BuildRequest(out, resolution=resolution, floating=floating))
    return Row(resolution, floating, Classifier.open(out, threads=1), report.network.macs, report.bytes)


def race(rows: list[Row], rounds: int) -> None:
    order = random.Random(1)
    picture = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    for row in rows:
        row.model.classify(picture)
    for _ in range(rounds):
        for row in order.sample(rows, len(rows)):
            began = time.perf_counter()
            for _ in range(BURST):
                row.model.interpreter.invoke()
            row.ms.append((time.perf_counter() - began) * 1e3 / BURST)


def table(rows: list[Row], truth: list[int], reference: Row) -> list[list[str]]:
    first = next(row for row in rows if not row.floating)
    lines = []
    for row in rows:
        pairs = [mine / theirs for mine, theirs in zip(row.ms, first.ms)]
        lines.append(
            [
                f"{row.resolution} {'float' if row.floating else 'int8'}",
                f"{row.macs / 1e6:.1f}",
                f"{row.bytes / 1e6:.2f}",
                f"{np.equal(row.answers, truth).mean():.3f}",
                f"{np.equal(row.answers, reference.answers).mean():.3f}",
                f"{statistics.median(row.ms):.2f}",
                f"{statistics.median(pairs):.2f}",
            ]
        )
    return lines


def chart(rows: list[Row], reference: Row) -> str:
    """Agreement over time: up and to the left is better."""
    import pygal
    from pygal.style import Style

    style = Style(background="#fff", plot_background="#fff", colors=("#4263eb", "#e8590c"), font_family="sans-serif")
    drawn = pygal.XY(
        style=style,
        js=(),
        width=640,
        height=380,
        dots_size=5,
        x_title="one inference as a share of int8 at 224",
        y_title="agreement, %",
        range=(60, 100),
        xrange=(0, 2.6),
        legend_at_bottom=True,
        disable_xml_declaration=True,
        print_labels=True,
    )
    first = next(row for row in rows if not row.floating)
    for name, floating in (("int8", False), ("float32", True)):
        points = []
        for row in (row for row in rows if row.floating is floating):
            ratio = statistics.median(mine / theirs for mine, theirs in zip(row.ms, first.ms))
            agreement = 100 * float(np.equal(row.answers, reference.answers).mean())
            points.append({"value": (round(ratio, 3), round(agreement, 1)), "label": str(row.resolution)})
        drawn.add(name, points)
    return fragment(drawn, "Agreement with the float model over time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    with (options.photos / "labels.csv").open(encoding="utf-8") as handle:
        examples = [(line["file"], int(line["class_index"])) for line in csv.DictReader(handle)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [opened(Path(folder), size, floating) for floating in (False, True) for size in RESOLUTIONS]
        for file, _ in examples:
            picture = read_still(options.photos / file)
            for row in rows:
                row.answers.append(int(row.model.scores(picture).argmax()))
        race(rows, options.rounds)
        reference = next(row for row in rows if row.floating and row.resolution == RESOLUTIONS[0])
        header = ["model", "M MACs", "MB", "top-1", "agreement", "ms here", "time, 224 int8 = 1"]
        lines = [header, ["---", *["---:"] * (len(header) - 1)]]
        lines += table(rows, [truth for _, truth in examples], reference)
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        if options.svg is not None:
            options.svg.write_text(chart(rows, reference) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
