"""Which pictures train and which validate, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.train.training_data import Augmentation, TrainingData, class_weights, read_training_data


def picture(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (colour, 100, 50)).save(path)


def read(folder: Path, task: str = "classification", seed: int = 0) -> TrainingData:
    return read_training_data(folder, task, 0.25, seed)


def test_train_and_val_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png")
    data = read(tmp_path)
    assert data.classes == ("cat", "dog") and data.outputs == 2
    assert [one.truth for one in data.train] == [0, 0, 0, 1, 1, 1] and len(data.validation) == 4
    assert data.notes == []


def test_one_set_is_split_by_class_and_seed(tmp_path: Path) -> None:
    for name, count in (("a", 8), ("b", 4), ("c", 2)):
        for number in range(count):
            picture(tmp_path / name / f"{number}.png")
    data = read(tmp_path)
    assert np.bincount([int(one.truth) for one in data.validation]).tolist() == [2, 1, 1]
    assert not {one.name for one in data.train} & {one.name for one in data.validation}
    assert "chosen by seed 0" in data.notes[0]
    assert read(tmp_path).digest() == data.digest() != read(tmp_path, seed=1).digest()
    assert any("unbalanced: 6 pictures of a, 1 of c" in note for note in data.notes)
    weights = class_weights(data.class_counts())
    assert (weights * data.class_counts()).round(6).tolist() == [10 / 3] * 3 or np.ptp(
        weights * data.class_counts()
    ) == pytest.approx(0)


def test_tables_of_labels_and_of_values(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / f"{number}.png")
    rows = "\n".join(f"{number}.png,{'ab'[number % 2]},{number / 2}" for number in range(8))
    (tmp_path / "labels.csv").write_text(f"file,label,value\n{rows}\n0.png,a,0\n")
    data = read(tmp_path)
    assert data.classes == ("a", "b") and len(data.train) + len(data.validation) == 8
    assert any("more than once" in note for note in data.notes)
    measured = read(tmp_path, "regression")
    assert measured.classes == () and measured.outputs == 1
    assert sorted([*measured.values(), *(one.truth[0] for one in measured.validation)]) == [n / 2 for n in range(8)]
    (tmp_path / "labels.csv").write_text(
        "file,class_index\n" + "\n".join(f"{number}.png,{number % 2}" for number in range(8))
    )
    assert read(tmp_path).classes == ("0", "1")
    (tmp_path / "labels.txt").write_text("off\non\n")
    assert read(tmp_path).classes == ("off", "on")


@pytest.mark.parametrize(
    "files,words",
    [
        ([], "neither labels.csv nor a folder"),
        (["only/1.png", "only/2.png"], "one class only"),
        (["Cat/1.png", "cat/2.png"], "the folders Cat and cat are the same label"),
        (["big cat/1.png", "big_cat/2.png"], "are the same label"),
        (["val/a/1.png"], "val/ but no train/"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "no folder train/c"),
        (["a/1.png", "b/x"], "class b has no training picture"),
    ],
)
def test_what_cannot_be_learned_from_is_said(tmp_path: Path, files: list[str], words: str) -> None:
    for name in files:
        if name.endswith("x"):
            (tmp_path / name).parent.mkdir()
        else:
            picture(tmp_path / name)
    with pytest.raises(UsageError, match=words):
        read(tmp_path)


def test_missing_folders_and_tables_that_contradict_themselves(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder"):
        read(tmp_path / "none")
    picture(tmp_path / "1.png")
    (tmp_path / "labels.csv").write_text("file,label\n1.png,a\n1.png,b\n")
    with pytest.raises(UsageError, match=r"line 3: 1.png has another label further up"):
        read(tmp_path)
    (tmp_path / "labels.csv").write_text("file,value\n1.png,2\n")
    with pytest.raises(UsageError, match="--task regression learns the value"):
        read(tmp_path)
    picture(tmp_path / "2.png")
    picture(tmp_path / "3.png")
    (tmp_path / "labels.csv").write_text("file,value\n1.png,2\n2.png,2\n3.png,2\n")
    with pytest.raises(UsageError, match="every training value is 2"):
        read(tmp_path, "regression")


def test_views_depend_on_the_key_alone_and_agree_between_sizes() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    augmentation = Augmentation()
    first, large = augmentation.views(pixels, [32, 64], (1, 2, 3))
    (again,) = augmentation.views(pixels, [32], (1, 2, 3))
    assert np.array_equal(first, again) and large.shape == (64, 64, 3)
    assert not np.array_equal(first, augmentation.views(pixels, [32], (1, 2, 4))[0])
    smaller = np.asarray(Image.fromarray(large).resize((32, 32), Image.Resampling.BOX)).astype(int)
    assert np.abs(smaller - first).mean() < 12


def test_augmentations_do_what_their_names_say() -> None:
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    flips, spans = [], []
    for key in range(40):
        (view,) = Augmentation(crop=False, flip=True, colour=False).views(ramp, [50], (key,))
        flips.append(view[0, 0, 0] > view[0, -1, 0])
        (view,) = Augmentation(crop=True, flip=False, colour=False, least_area=0.5).views(ramp, [50], (key,))
        spans.append(int(view[0, -1, 0]) - int(view[0, 0, 0]))
    assert 8 < sum(flips) < 32
    assert min(spans) >= 55 and max(spans) <= 99 and len(set(spans)) > 10
    (plain,) = Augmentation.parse("none").views(ramp, [100], (0,))
    assert np.array_equal(plain, ramp)
    (coloured,) = Augmentation.parse("colour").views(ramp, [100], (0,))
    assert coloured.mean() != pytest.approx(ramp.mean(), abs=0.5)


@pytest.mark.parametrize("text", ["crop,zoom", "", "none,flip"])
def test_unknown_augmentations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="some of crop,flip,colour"):
        Augmentation.parse(text)
