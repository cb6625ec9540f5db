"""How good `edge-mnv2 teach` is, and what it costs.

    python benchmarks/teach.py --accuracy DATA [--kind photographs ...] [--seeds 5]
    python benchmarks/teach.py PICTURES [--classes 10] [--shots 20]

Accuracy: the taught integer model, `unknown` left out of its answers, beside logistic regression, the nearest class
mean (cosine) and one nearest neighbour (cosine) on the same embeddings. DATA is the folder of reference data with
`imagenet-dev`; photographs are lessons of five of its kinds (of four, if no five have enough pictures), the other kinds
come from a seeded generator with 30 new pictures a class. `--kind values`: errors of read values, in per cent of the
range, beside ridge regression (see `values.py`).

Costs: time and memory of a lesson on one core, and frames a second of the taught model. PICTURES is a folder with at
least classes x shots photographs; they are sorted into classes by their order, because only the work counts here. The
frame rates come from one run in which both models take turns, some frames each.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.teach.class_head import class_means, unit
from edge_mnv2.teach.head_fitting import answers, teach
from edge_mnv2.teach.lesson import learn
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import resolve

sys.path.insert(0, str(Path(__file__).parents[1]))

import values

from tests.teach.made_classes import MADE, write_classes

ROUNDS, FRAMES = 60, 10
VALUES = "values"
SIZES = {"photographs": (5, 10), **dict.fromkeys(MADE, (5, 10, 20))}
NEW = 30


def accuracies(folder: Path, new: list[tuple[Path, str]], seed: int) -> dict[str, float]:
    """Teach the pictures of `folder`, all of them, and answer to the `new` ones (path, class)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    request = LessonRequest(folder, seed=seed, holdout=0.0)
    lesson, embedder = learn(request, lambda line: None, lambda done, total: None)
    with embedder:
        taught = teach(lesson)
        codes = np.stack([embedder.codes(read_still(path)) for path, _ in new])
    truth = np.array([lesson.classes.index(name) for _, name in new])
    logits = answers(taught.backbone, codes).logits
    assert logits is not None
    own, rows = taught.embeddings, lesson.truth.astype(int)
    others = taught.layer.real(codes)
    units, lengths = unit(own), unit(others)
    means = class_means(units, rows, lesson.rows)
    return {
        "taught": float(np.mean(logits.argmax(axis=1) == truth)),
        "logistic_regression": float(LogisticRegression(max_iter=2000).fit(own, rows).score(others, truth)),
        "nearest_class_mean": float(np.mean((lengths @ means.T).argmax(axis=1) == truth)),
        "nearest_neighbour": float(KNeighborsClassifier(1).fit(units, rows).score(lengths, truth)),
        "reads_evidence": float(taught.settings["features"] != "embedding"),
    }


def photographs(data: Path, folder: Path, each: int, seed: int) -> list[tuple[Path, str]]:
    """`each` pictures of up to five kinds into `folder`; the others of these kinds, 20 at most of each."""
    with (data / "imagenet-dev" / "groups.csv").open() as table:
        kinds: dict[str, list[str]] = {}
        for row in csv.DictReader(table):
            kinds.setdefault(row["group"], []).append(row["file"])
    random = np.random.default_rng((seed, each))
    enough = sorted(kind for kind, files in kinds.items() if len(files) >= each + 4)
    new = []
    for kind in random.choice(enough, min(5, len(enough)), replace=False):
        files = [data / "imagenet-dev" / name for name in random.permutation(kinds[kind])]
        (folder / kind).mkdir(parents=True)
        for file in files[:each]:
            (folder / kind / file.name).symlink_to(file.resolve())
        new += [(file, str(kind)) for file in files[each : each + 20]]
    return new


def made(kind: str, folder: Path, each: int, seed: int) -> list[tuple[Path, str]]:
    """`each` made pictures a class into `folder`; new ones of the same classes."""
    write_classes(folder, kind, each, seed)
    new = write_classes(folder.with_name("new"), kind, NEW, 1000 + seed)
    return [(path, name) for name in MADE[kind][0] for path in sorted((new / name).iterdir())]


def accuracy(data: Path, kinds: list[str], seeds: int) -> dict:
    report: dict = {}
    for kind in kinds:
        if kind == VALUES:
            for name, draw in values.INSTRUMENTS.items():
                errors = [values.measured(data, draw, DEFAULT_MODEL, 60, seed) for seed in range(seeds)]
                report[name] = mean(errors)
            continue
        all_of_kind = []
        for each in SIZES[kind]:
            lessons = []
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as work:
                    folder = Path(work) / "taught"
                    new = (
                        photographs(data, folder, each, seed)
                        if kind == "photographs"
                        else made(kind, folder, each, seed)
                    )
                    lessons.append(accuracies(folder, new, seed))
            report[f"{kind} {each}"] = mean(lessons)
            all_of_kind += [mean(lessons)]
            print(kind, each, report[f"{kind} {each}"], file=sys.stderr, flush=True)
        report[kind] = mean(all_of_kind)
    return report


def mean(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.fmean(result[key] for result in results), 4) for key in results[0]}


def lesson(folder: Path, out: Path) -> dict:
    """Teach in a process of its own that may use one core."""
    core = min(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "edge_mnv2", "teach", str(folder), "--out", str(out), "--force", "--json"]
    began = time.monotonic()
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    known = json.loads(done.stdout)
    return {
        "pictures": known["pictures"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mb": round(used.ru_maxrss / 1024, 1),
    }


def frame_rates(taught: Path, pictures: list[Path]) -> dict:
    """Median seconds a frame of both models, in turns; the ratio of the rates is what a run loses."""
    found = resolve(DEFAULT_MODEL)
    frames = [read_still(path) for path in pictures[:FRAMES]]
    with Classifier.open(found.path, found.labels) as before, Classifier.open(taught) as after:
        before.warm_up(5)
        after.warm_up(5)
        rates = []
        for turn in range(ROUNDS):
            seconds = {}
            for classifier in (before, after) if turn % 2 else (after, before):
                began = time.perf_counter()
                for frame in frames:
                    classifier.top(classifier.classify(frame).scores)
                seconds[classifier] = (time.perf_counter() - began) / len(frames)
            rates.append((1 / seconds[before], 1 / seconds[after]))
    ratios = [after / before for before, after in rates]
    return {
        "original_fps": round(statistics.median(before for before, _ in rates), 1),
        "taught_fps": round(statistics.median(after for _, after in rates), 1),
        "ratio": round(statistics.median(ratios), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="?")
    parser.add_argument("--accuracy", type=Path, metavar="DATA")
    parser.add_argument("--kind", action="append", choices=[*SIZES, VALUES])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shots", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.accuracy is not None:
        print(json.dumps(accuracy(arguments.accuracy, arguments.kind or [*SIZES, VALUES], arguments.seeds), indent=2))
        return
    if arguments.pictures is None:
        parser.error("give a folder of PICTURES, or --accuracy DATA")
    pictures = list_stills(arguments.pictures)[: arguments.classes * arguments.shots]
    with tempfile.TemporaryDirectory() as work:
        folder, out = Path(work) / "pictures", Path(work) / "taught.tflite"
        for number, path in enumerate(pictures):
            place = folder / f"class_{number // arguments.shots:02}"
            place.mkdir(parents=True, exist_ok=True)
            (place / path.name).symlink_to(path.resolve())
        print(json.dumps({"lesson": lesson(folder, out), "run": frame_rates(out, pictures)}, indent=2))


if __name__ == "__main__":
    main()
