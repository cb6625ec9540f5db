"""How many strangers `teach` rejects as unknown, and how many new pictures of the taught classes stay known.

    python benchmarks/unknown.py PHOTOS KINDS.csv [--model FILE] [--seeds 4] [--first-seed 0] [--kind photographs ...]

KINDS.csv (`file,group`) says which kind a photograph of the folder PHOTOS shows. Strangers are the photographs that it
does not name, and noise of several grains, black frames and plain surfaces. Photographs: all kinds are taught, and
choices of 2 to 5 of them; a quarter of each kind is held out (a lesson without any such picture does not count). Made
pictures (digits, textures): choices of 5 to all classes, 5, 10 and 20 pictures of each, with at least 300 new pictures
of the same classes.

`recall` of known pictures and the `rejected` shares are those at the threshold that the model is written with, by its
own integers, as is `accuracy`, that of the known pictures among the taught classes. `auroc` and `rejected_at_95`, at
the threshold that keeps 95 % of the new pictures known, are by the float rule. For several lessons: the mean, and for
`recall` also the lowest lesson and the 95 % interval of all new pictures together (Wilson).
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.evaluate.metrics import wilson
from edge_mnv2.teach.embedding import Embedder
from edge_mnv2.teach.head_fitting import Taught, answers, teach
from edge_mnv2.teach.lesson import learn
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.teach.open_set import noise
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import resolve

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.teach.made_classes import MADE, write_classes

FEW = (2, 3, 4, 5)
NEW = 300
KINDS = ("photographs", "digits", "textures")
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


def taught_from(folder: Path, model: str, seed: int, known: float, holdout: float) -> Taught:
    request = LessonRequest(folder, model=model, seed=seed, holdout=holdout, known=known)
    seen, embedder = learn(request, lambda line: None, lambda done, total: None)
    with embedder:
        return teach(seen)


def photographs(photos: Path, kinds: dict[str, str], chosen: tuple[str, ...], model: str, seed: int, known: float):
    """A lesson of the `chosen` kinds, and codes and classes of its held-out pictures."""
    with tempfile.TemporaryDirectory() as work:
        for name, kind in kinds.items():
            if kind in chosen:
                place = Path(work) / kind
                place.mkdir(exist_ok=True)
                (place / name).symlink_to((photos / name).resolve())
        taught = taught_from(Path(work), model, seed, known, HELD_OUT)
    lesson = taught.lesson
    new = lesson.codes[lesson.first[taught.held]]
    return taught, taught.layer.of(new) if len(new) else new, lesson.truth[taught.held].astype(int)


def made(kind: str, each: int, model: str, seed: int, known: float):
    """A lesson of some classes of made pictures, `each` of every class; codes and classes of at least 300 new ones."""
    names, draw = MADE[kind]
    random = np.random.default_rng((seed, each))
    chosen = sorted(random.choice(names, int(random.integers(5, len(names) + 1)), replace=False).tolist())
    with tempfile.TemporaryDirectory() as work:
        write_classes(Path(work), kind, each, seed)
        for name in set(names) - set(chosen):
            shutil.rmtree(Path(work) / name)
        taught = taught_from(Path(work), model, seed, known, 0.0)
    count = -(-NEW // len(chosen))
    truth = np.repeat(np.arange(len(chosen)), count)
    with Embedder(taught.lesson.backbone) as embedder:
        new = [
            embedder.codes(draw(chosen[row], np.random.default_rng((7, seed, row, at)))) for at, row in enumerate(truth)
        ]
    return taught, np.stack(new), truth


def measured(taught: Taught, new: np.ndarray, truth: np.ndarray, strangers: Strangers) -> dict[str, float]:
    """The figures of one lesson on `new` pictures (codes) of its classes `truth`."""
    row, unknown = taught.lesson.rows, taught.unknown
    assert unknown is not None
    answered = answers(taught.backbone, new)
    assert answered.logits is not None
    known = unknown.familiarity(taught.layer.real(new))
    result = {"new": float(len(new)), "accuracy": float(np.mean(answered.logits.argmax(axis=1) == truth))}
    result["recall"] = float(np.mean(answered.scores.argmax(axis=1) != row))
    for name, codes in (("photographs", strangers.photographs), ("noise_and_plain", strangers.made)):
        result[f"rejected_{name}"] = float(np.mean(answers(taught.backbone, codes).scores.argmax(axis=1) == row))
        others = unknown.familiarity(taught.layer.real(codes))
        result[f"rejected_{name}_at_95"] = float(np.mean(others < np.quantile(known, 0.05)))
        result[f"auroc_{name}"] = float(np.mean(known[:, None] > others) + 0.5 * np.mean(known[:, None] == others))
    return result


def said(label: str, figures: dict[str, float]) -> dict[str, float]:
    shares = ", ".join(f"{key} {figures[key]:.3f}" for key in ("recall", "rejected_photographs", "auroc_photographs"))
    print(f"{label}: {shares}", file=sys.stderr, flush=True)
    return figures


def together(lessons: list[dict[str, float]]) -> dict[str, object]:
    """Means over lessons; the lowest recall; the interval of the recall of all new pictures together."""
    report: dict[str, object] = {key: round(float(np.mean([one[key] for one in lessons])), 3) for key in lessons[0]}
    report["lowest_recall"] = round(min(one["recall"] for one in lessons), 3)
    count = int(sum(one["new"] for one in lessons))
    interval = wilson(round(sum(one["recall"] * one["new"] for one in lessons)), count)
    assert interval is not None
    report["recall_interval"] = [round(end, 3) for end in interval]
    return {"lessons": len(lessons), **report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("kinds", type=Path)
    parser.add_argument("--model", action="append", help="a name or a file; may be given again")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=KINDS)
    parser.add_argument("--known", type=float, default=0.95)
    arguments = parser.parse_args()
    with arguments.kinds.open() as table:
        kinds = {row["file"]: row["group"] for row in csv.DictReader(table)}
    names, asked = sorted(set(kinds.values())), arguments.kind or KINDS
    others = [read_still(path) for path in list_stills(arguments.photos) if path.name not in kinds]
    report = {}
    for model in arguments.model or [DEFAULT_MODEL]:
        with Embedder(resolve(model)) as embedder:
            strangers = Strangers(*(np.stack([embedder.codes(one) for one in many]) for many in (others, surfaces())))
        lessons = defaultdict(list)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            choices: dict[str, list[tuple[str, ...]]] = {"photographs, all kinds": [tuple(names)]}
            for count in FEW:
                random = np.random.default_rng((seed, count))
                few = tuple(random.choice(names, count, replace=False).tolist())
                choices.setdefault("photographs, 2 to 5 kinds", []).append(few)
            for label, chosen in choices.items() if KINDS[0] in asked else ():
                for some in chosen:
                    one = photographs(arguments.photos, kinds, some, model, seed, arguments.known)
                    if len(one[1]):
                        lessons[label].append(said(label, measured(*one, strangers)))
            for kind in [one for one in KINDS[1:] if one in asked]:
                for each in (5, 10, 20):
                    one, label = made(kind, each, model, seed, arguments.known), f"{kind}, {each} pictures"
                    lessons[label].append(said(label, measured(*one, strangers)))
        report[Path(model).name] = {name: together(many) for name, many in lessons.items()}
        report[Path(model).name]["all"] = together([one for many in lessons.values() for one in many])
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
