"""How well `teach` reads a value from pictures: dials and levels before photographs, no photograph twice.

    python benchmarks/values.py DATA [--model NAME|FILE] [--pictures 60] [--seeds 3] [--new 100]

DATA is the folder of reference data with `imagenet-dev`, whose photographs are the backgrounds. Reported for each
instrument and seed, in per cent of the range: the error (RMSE) of the integer model on the held-out pictures and on so
many new ones, how far its value is from the float head's at most, and the error on the same new pictures of ridge
regression (scikit-learn, decay by leaving out one) on the embedding and on the map where it is best by itself.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from edge_mnv2.camera.still import read_still
from edge_mnv2.teach.head_fitting import Taught, answers, teach
from edge_mnv2.teach.lesson import learn
from edge_mnv2.teach.lesson_document import document
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.zoo.registry import DEFAULT_MODEL

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.teach.gauges import HIGH, LOW, Draw, dial, gauges, level, tank

INSTRUMENTS = {"dial": dial, "level": level, "level behind glass": tank}


def measured(data: Path, draw: Draw, model: str, pictures: int, seed: int, new: int = 100) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as work:
        folder = gauges(data, Path(work) / "taught", draw, count=pictures, seed=seed)
        lesson, embedder = learn(LessonRequest(folder, model=model), lambda line: None, lambda done, total: None)
        others = gauges(data, Path(work) / "new", draw, count=new, seed=1000 + seed)
        with (others / "labels.csv").open() as table:
            rows = [(line["file"], float(line["value"])) for line in csv.DictReader(table)]
        with embedder:
            taught = teach(lesson)
            codes = np.stack([embedder.codes(read_still(others / name)) for name, _ in rows])
    truth = np.array([value for _, value in rows])
    metrics = document(taught, "value.tflite", "", [])["metrics"]
    integers = answers(taught.backbone, taught.layer.of(codes), logits=False).scores[:, 0]
    errors = {
        "held_out": metrics["rmse"],
        "new": rmse(integers, truth),
        "integers": metrics["largest_difference_from_float"],
        **ridge(taught, codes, truth),
    }
    return {name: round(100 * error / (HIGH - LOW), 2) for name, error in errors.items()}


def ridge(taught: Taught, codes: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Errors on new pictures (`codes`, `truth`) of ridge regressions on the taught ones."""
    from sklearn.linear_model import RidgeCV

    lesson = taught.lesson
    places = taught.taught
    fitted = []
    for layer in lesson.layers:
        own = layer.real(lesson.codes[lesson.first[places]])
        size = float(np.mean(np.sum((own - own.mean(axis=0)) ** 2, axis=1)))
        model = RidgeCV(alphas=size * 10.0 ** np.arange(-6, 3, 0.5)).fit(own, lesson.truth[places])
        fitted.append((model.best_score_, rmse(model.predict(layer.real(codes)), truth)))
    return {"ridge_on_embedding": fitted[-1][1], "ridge_on_best_map": max(fitted)[1]}


def rmse(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - truth) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", help="a name or a file; may be given again")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--new", type=int, default=100)
    arguments = parser.parse_args()
    report = {
        Path(model).name: {
            name: [
                measured(arguments.data, draw, model, arguments.pictures, seed, arguments.new)
                for seed in range(arguments.seeds)
            ]
            for name, draw in INSTRUMENTS.items()
        }
        for model in arguments.model or [DEFAULT_MODEL]
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
