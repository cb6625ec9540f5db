"""Does the field loop pay? Answering what `run --collect` keeps, beside answering pictures by chance, and beside none.

    python -m benchmarks.field_loop [--seeds 3] [--answers 60] [--crops 24,4] [--json FILE]
    python -m benchmarks.field_loop --none 10 [--seeds 8]
    python -m benchmarks.field_loop --thresholds

A model is taught 8 photographs each of 6 kinds. Then it meets a stream of crops of other photographs of these kinds and
of 2 new ones. What the chooser of `run --collect` keeps of the stream is answered (60 pictures), or 60 pictures by
chance; the model is taught again from the answers, and judged on photographs of all 8 kinds that were in neither.
`--crops` says how many crops of a photograph of a known and of a new kind the stream has: what a model does not know is
rare in the field (24,4: one crop in 19 is of a new kind); 8,8 shows the loop where it is not. Photographs are split
before they are cropped.

`--none`: 4 kinds are taught, 8 photographs of each; then so many photographs of 2 other kinds are answered with "none
of them". How many of the other photographs of these 2 kinds, and of the remaining ones, does the model accept before
and after, and how many new photographs of the 4 kinds stay known?

`--thresholds`: what is behind `SAME_LOOK`, the distance below which two pictures show one scene, and behind the score
from which an answer is shown (`SHOWN_FROM`).

`KINDS` sorts ImageNet's classes; reference photographs are found through
EDGE_MNV2_TEST_DATA.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from edge_mnv2 import paths
from edge_mnv2.app.board_models import embedder_of
from edge_mnv2.board.cpus import processor
from edge_mnv2.camera.frame import Frame
from edge_mnv2.camera.still import read_still
from edge_mnv2.datasets.collected_picture import SAME_LOOK, projected
from edge_mnv2.datasets.collection import Answer, Collection
from edge_mnv2.outputs.collect import CollectSink
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.opening import open_classifier
from edge_mnv2.settings.schema import SHOWN_FROM
from edge_mnv2.teach.lesson_request import LessonRequest
from edge_mnv2.teach.teach_run import run
from edge_mnv2.zoo.registry import DEFAULT_MODEL

KINDS: dict[str, str] = {
    "dog": "151-268",
    "bird": "7-24 80-100 127-146",
    "reptile": "25-68",
    "mammal": "269-299 330-388",
    "insect": "69-79 300-329",
    "food": "924-969 984-998",
    "vehicle": "404 408 436 444 450 466 468 472 484 510 554 576 586 612 628 654 656 670 690 724 734 780 802 812 814 "
    "820 864 866 870 874 880 914",
    "clothing": "400 452 474 490 496 502 514 518 552 560 568 578 608 610 614 630 638 652 658 748 770 774 796 806 808 "
    "824 834 836 842 906",
}
"""Kind → ImageNet class indices. Of the 500 reference photographs, one a class, each kind has 20 at least."""

NEW = ("insect", "clothing")
"""Kinds that the first lesson does not have."""

_TAUGHT, _STREAM = 8, 6
_FPS = 2.0


def kind_of(index: int) -> Optional[str]:
    for kind, ranges in KINDS.items():
        for part in ranges.split():
            low, _, high = part.partition("-")
            if int(low) <= index <= int(high or low):
                return kind
    return None


def photographs(data: Path) -> dict[str, list[Path]]:
    """Kind → its photographs."""
    sorted_by_kind: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    with (data / "imagenet-dev" / "labels.csv").open() as table:
        for row in csv.DictReader(table):
            kind = kind_of(int(row["class_index"]))
            if kind is not None:
                sorted_by_kind[kind].append(data / "imagenet-dev" / row["file"])
    return sorted_by_kind


def crop(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A part of the photograph, as a camera that moves a little would see it."""
    height, width = pixels.shape[:2]
    share = random.uniform(0.65, 0.95)
    high, wide = int(height * share), int(width * share)
    top, left = random.integers(0, height - high + 1), random.integers(0, width - wide + 1)
    part = pixels[top : top + high, left : left + wide]
    return np.ascontiguousarray(part[:, ::-1] if random.random() < 0.5 else part)


def teach(
    folder: Path, out: Path, *, add: Optional[Path] = None, collected: Optional[Path] = None, seed: int = 0
) -> None:
    model = None if add else str(paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite"))
    answers = () if collected is None else (collected,)
    request = LessonRequest(folder, out, model, add=add, collected=answers, holdout=0.0, seed=seed)
    run(request, lambda sentence: None, lambda done, total: None)


def accuracy(model: Path, pictures: list[tuple[np.ndarray, str]]) -> float:
    """Share that is right; "unknown" is no answer."""
    right = 0
    with open_classifier(str(model))[0] as classifier:
        for pixels, kind in pictures:
            right += classifier.top(classifier.classify(pixels).scores, 1)[0].label == kind
    return right / len(pictures)


def chosen(model: Path, stream: list[tuple[np.ndarray, str]], folder: Path, answers: int) -> Collection:
    """What `run --collect` keeps of the stream, the `answers` most valuable answered."""
    sink = CollectSink(str(folder))
    sink.use("", lambda: embedder_of(str(model)))
    truth: dict[str, str] = {}
    clock = 0.0
    with open_classifier(str(model))[0] as classifier:
        for number, (pixels, kind) in enumerate(stream):
            clock += 1 / _FPS
            ranked = tuple(classifier.top(classifier.classify(pixels).scores, 5))
            frame = Frame(pixels, "rgb", int(clock * 1e9), number)
            result = Result(frame, ranked, int(clock * 1e9), 1.79e9 + clock, clock, 0, 0, _FPS, 0, "cpu", ranked=ranked)
            sink.next_at = 0.0
            before = {item.id for item in sink.collection.items()}
            if sink.wants(result):
                sink.write(result)
            truth.update({item.id: kind for item in sink.collection.items() if item.id not in before})
    items = sorted(sink.collection.items(), key=lambda item: -item.value)[:answers]
    for item in items:
        sink.collection.answer([item.id], Answer(truth[item.id]))
    return sink.collection


def by_chance(
    stream: list[tuple[np.ndarray, str]], folder: Path, answers: int, random: np.random.Generator
) -> Collection:
    collection = Collection(folder)
    for place in random.permutation(len(stream))[:answers]:
        pixels, kind = stream[place]
        jpeg = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        item = collection.add(jpeg, t="2026", why=["random"], value=0.5, top=[], model="")
        if item is not None:
            collection.answer([item.id], Answer(kind))
    return collection


def one_seed(
    photos: dict[str, list[Path]], seed: int, answers: int, crops: tuple[int, int], folder: Path
) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    lesson, stream, test = folder / "lesson", [], []
    for kind, paths_of_kind in photos.items():
        order = [paths_of_kind[place] for place in random.permutation(len(paths_of_kind))]
        taught = 0 if kind in NEW else _TAUGHT
        for path in order[:taught]:
            (lesson / kind).mkdir(parents=True, exist_ok=True)
            (lesson / kind / path.name).symlink_to(path)
        for path in order[taught : taught + _STREAM]:
            pixels = read_still(path)
            stream += [(crop(pixels, random), kind) for _ in range(crops[kind in NEW])]
        test += [(read_still(path), kind) for path in order[taught + _STREAM :]]
    stream = [stream[place] for place in random.permutation(len(stream))]
    first = folder / "first.tflite"
    teach(lesson, first, seed=seed)
    none = accuracy(first, test)
    kept = chosen(first, stream, folder / "kept", answers)
    gains = {}
    for name, collection in (("collected", kept), ("by chance", by_chance(stream, folder / "chance", answers, random))):
        out = folder / f"{name.replace(' ', '_')}.tflite"
        teach(folder, out, add=first, collected=collection.folder, seed=seed)
        gains[name] = accuracy(out, test)
    answered = sum(item.answer is not None for item in kept.items())
    counts = {"stream": len(stream), "kept": len(kept.items()), "answered": answered, "test": len(test)}
    return {"seed": seed, **counts, "none": none, **gains}


def none_of_them(photos: dict[str, list[Path]], number: int, seeds: int) -> None:
    """Print the shares that are accepted before and after `number` photographs each of 2 kinds were answered so."""
    rows = []
    print("seed  accepted: like the answered ones, others   stay known     (each before, after)")
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        kinds = [str(kind) for kind in random.permutation(sorted(photos))]
        order = {kind: [photos[kind][place] for place in random.permutation(len(photos[kind]))] for kind in kinds}
        with tempfile.TemporaryDirectory() as name:
            collection = Collection(Path(name) / "collected")

            def answer(paths_of_kind: list[Path], label: Optional[str], into: Collection = collection) -> None:
                for path in paths_of_kind:
                    item = into.add(path.read_bytes(), t="2026", why=["random"], value=0.5, top=[], model="")
                    into.answer([item.id] if item else [], Answer(label))

            for kind in kinds[:4]:
                answer(order[kind][:_TAUGHT], kind)
            models = [Path(name) / "before.tflite", Path(name) / "after.tflite"]
            teach(collection.folder, models[0], collected=collection.folder, seed=seed)
            for kind in kinds[4:6]:
                answer(order[kind][:number], None)
            teach(collection.folder, models[1], add=models[0], collected=collection.folder, seed=seed)
            asked = (
                [path for kind in kinds[4:6] for path in order[kind][number:]],
                [path for kind in kinds[6:] for path in order[kind]],
                [path for kind in kinds[:4] for path in order[kind][_TAUGHT:]],
            )
            rows.append([accepted(model, paths_of_kind) for paths_of_kind in asked for model in models])
        print(f"{seed:4}  " + "  ".join(f"{share:5.3f}" for share in rows[-1]), flush=True)
    print("mean  " + "  ".join(f"{share:5.3f}" for share in np.mean(rows, axis=0)))


def accepted(model: Path, pictures: list[Path]) -> float:
    """The share that is not called unknown."""
    with open_classifier(str(model))[0] as classifier:
        best = [classifier.top(classifier.classify(read_still(path)).scores, 1)[0].label for path in pictures]
    return 1 - best.count("unknown") / len(best)


def thresholds(photos: dict[str, list[Path]], data: Path) -> None:
    """Print the distances of looks of one scene and of two, and what a least score shows."""
    embed = embedder_of(DEFAULT_MODEL)
    assert embed is not None
    random, pairs = np.random.default_rng(0), {"moved a little": [], "another crop": [], "two of a kind": []}
    for paths_of_kind in photos.values():
        looks = []
        for path in paths_of_kind:
            pixels = read_still(path)
            height, width = pixels.shape[:2]
            moved = pixels[height // 40 :, width // 40 :]
            noisy = np.clip(moved + random.normal(0, 4, moved.shape), 0, 255).astype(np.uint8)
            look, other, part = (projected(embed(one)) for one in (pixels, noisy, crop(pixels, random)))
            looks.append(look)
            pairs["moved a little"].append(1 - float(look @ other))
            pairs["another crop"].append(1 - float(look @ part))
        stacked = np.stack(looks)
        pairs["two of a kind"] += (1 - stacked @ stacked.T)[np.triu_indices(len(looks), 1)].tolist()
    print(f"share of pairs nearer than SAME_LOOK = {SAME_LOOK:g}, and median distance")
    for name, distances in pairs.items():
        print(f"  {name:15} {np.mean(np.array(distances) < SAME_LOOK):6.3f} {np.median(distances):6.3f}")
    right: list[float] = []
    wrong: list[float] = []
    with open_classifier(DEFAULT_MODEL)[0] as classifier, (data / "imagenet-dev" / "labels.csv").open() as table:
        for row in csv.DictReader(table):
            scores = classifier.classify(read_still(data / "imagenet-dev" / row["file"])).scores
            best = classifier.top(scores, 1)[0]
            (right if best.index == int(row["class_index"]) else wrong).append(best.score)
    print(f"answers below SHOWN_FROM = {SHOWN_FROM:g}")
    for name, numbers in (("right", right), ("wrong", wrong)):
        print(f"  {name:15} {np.mean(np.array(numbers) < SHOWN_FROM):6.3f} of {len(numbers)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--crops", default="24,4", help="of a photograph of a known kind, and of a new one")
    parser.add_argument("--none", type=int, help="measure answers that name no class: so many of each of 2 kinds")
    parser.add_argument("--thresholds", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    known, new = map(int, options.crops.split(","))
    data = Path(os.environ["EDGE_MNV2_TEST_DATA"]).resolve()
    print(processor())
    photos = photographs(data)
    if options.thresholds:
        return thresholds(photos, data)
    if options.none:
        return none_of_them(photos, options.none, options.seeds)
    print(", ".join(f"{kind} {len(files)}" for kind, files in photos.items()))
    rows = []
    print("seed  stream  kept  answered   none  by chance  collected")
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            row = one_seed(photos, seed, options.answers, (known, new), Path(folder))
        rows.append(row)
        print(
            f"{seed:4}  {row['stream']:6}  {row['kept']:4}  {row['answered']:8}  "
            f"{row['none']:5.3f}  {row['by chance']:9.3f}  {row['collected']:9.3f}",
            flush=True,
        )
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("none", "by chance", "collected")}
    gain, chance = means["collected"] - means["none"], means["by chance"] - means["none"]
    print(f"mean {means['none']:28.3f}  {means['by chance']:9.3f}  {means['collected']:9.3f}")
    print(f"gain: {gain:+.3f} collected, {chance:+.3f} by chance, ratio {gain / chance:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "means": means}, indent=2))


if __name__ == "__main__":
    main()
