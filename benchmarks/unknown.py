"""How many pictures of what was never taught `teach` calls unknown, and how many of what was taught stay known.

    python benchmarks/unknown.py PHOTOS KINDS.csv [--model FILE] [--seeds 4]

KINDS.csv (`file,group`) says which kind a photograph of the folder PHOTOS shows; those it does not name are strangers,
with noise of several grains, black frames and plain surfaces besides. All kinds are taught, and choices of 2 to 5 of
them; a quarter of each kind is held out. `kept` and `told` are shares at the threshold that the model is written with,
by its own integers, as is `accuracy`, that of the held-out pictures among the taught kinds; `told_at_95` is by the
float rule at the threshold that keeps 95 % of the held-out pictures.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.teach.head_fitting import Taught, answers, teach
from edge_mnv2.teach.lesson import learn
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.teach.open_set import noise
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import resolve

FEW = (2, 3, 4, 5)
HELD_OUT = 0.25


@dataclass
class Strangers:
    """Embeddings of what is never taught, in the backbone's integers."""

    photographs: np.ndarray
    made: np.ndarray


def surfaces(seed: int = 0) -> list[np.ndarray]:
    """Noise in grains of 1 to 40 pixels, black frames with a sensor's noise, plain grey: 20 of each, 240x320x3."""
    random = np.random.default_rng(seed)
    pictures = []
    for number in range(20):
        pictures.append(noise(random, (1, 4, 16, 40)[number % 4], 240, 320))
        pictures.append(random.integers(0, 1 + number // 4, (240, 320, 3)).astype(np.uint8))
        pictures.append(np.full((240, 320, 3), 5 + 12 * number, np.uint8))
    return pictures


def lesson(photos: Path, kinds: dict[str, str], chosen: tuple[str, ...], model: str, seed: int) -> Taught:
    with tempfile.TemporaryDirectory() as work:
        for name, kind in kinds.items():
            if kind in chosen:
                place = Path(work) / kind
                place.mkdir(exist_ok=True)
                (place / name).symlink_to((photos / name).resolve())
        request = LessonRequest(Path(work), model=model, seed=seed, holdout=HELD_OUT)
        seen, embedder = learn(request, lambda line: None, lambda done, total: None)
        with embedder:
            return teach(seen)


def measured(taught: Taught, strangers: Strangers) -> dict[str, float]:
    row = taught.lesson.rows
    assert taught.unknown is not None
    assert taught.answers.logits is not None
    truth = taught.lesson.truth[taught.held]
    known = taught.answers.scores[taught.held].argmax(axis=1) != row
    at_95 = np.quantile(taught.unknown.familiarity(taught.embeddings[taught.held]), 0.05)
    found = {"accuracy": float(np.mean(taught.answers.logits[taught.held].argmax(axis=1) == truth))}
    found["kept"] = float(known.mean())
    for name, codes in (("photographs", strangers.photographs), ("noise_and_plain", strangers.made)):
        told = answers(taught.backbone, codes).scores.argmax(axis=1) == row
        found[f"told_{name}"] = float(told.mean())
        familiar = taught.unknown.familiarity(taught.layer.real(codes))
        found[f"told_{name}_at_95"] = float(np.mean(familiar < at_95))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("kinds", type=Path)
    parser.add_argument("--model", action="append", help="a name or a file; may be given again")
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    with arguments.kinds.open() as table:
        kinds = {row["file"]: row["group"] for row in csv.DictReader(table)}
    names = sorted(set(kinds.values()))
    others = [read_still(path) for path in list_stills(arguments.photos) if path.name not in kinds]
    report = {}
    for model in arguments.model or [DEFAULT_MODEL]:
        with Embedder(resolve(model)) as embedder:
            strangers = Strangers(*(np.stack([embedder.codes(one) for one in many]) for many in (others, surfaces())))
        found = defaultdict(list)
        for seed in range(arguments.seeds):
            found["all"].append(measured(lesson(arguments.photos, kinds, tuple(names), model, seed), strangers))
            for count in FEW:
                random = np.random.default_rng((seed, count))
                chosen = tuple(random.choice(names, count, replace=False))
                found["few"].append(measured(lesson(arguments.photos, kinds, chosen, model, seed), strangers))
        report[Path(model).name] = {
            name: {key: round(float(np.mean([one[key] for one in many])), 3) for key in many[0]}
            for name, many in found.items()
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
