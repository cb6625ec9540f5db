"""How well `teach` reads a value from pictures: dials and levels before photographs, no photograph twice.

    python benchmarks/values.py DATA [--model NAME|FILE] [--pictures 60] [--seeds 3]

DATA is the folder of reference data with `imagenet-dev`, whose photographs are the backgrounds. Reported for each
instrument and seed, in per cent of the range: the held-out error (RMSE) of the integer model, and how far its value is
from the float head's at most.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from edge_mnv2.teach.head_fitting import teach
from edge_mnv2.teach.lesson import learn
from edge_mnv2.teach.lesson_document import document
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.zoo.registry import DEFAULT_MODEL

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.teach.gauges import HIGH, LOW, Draw, dial, gauges, level, tank

INSTRUMENTS = {"dial": dial, "level": level, "level behind glass": tank}


def measured(data: Path, draw: Draw, model: str, pictures: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as work:
        folder = gauges(data, Path(work), draw, count=pictures, seed=seed)
        lesson, embedder = learn(LessonRequest(folder, model=model), lambda line: None, lambda done, total: None)
        with embedder:
            metrics = document(teach(lesson), "value.tflite", "", [])["metrics"]
    return {
        "rmse": round(100 * metrics["rmse"] / (HIGH - LOW), 2),
        "integers": round(100 * metrics["largest_difference_of_range"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", help="a name or a file; may be given again")
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    report = {
        Path(model).name: {
            name: [measured(arguments.data, draw, model, arguments.pictures, seed) for seed in range(arguments.seeds)]
            for name, draw in INSTRUMENTS.items()
        }
        for model in arguments.model or [DEFAULT_MODEL]
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
