"""Rows, classes, and what a folder's name means."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import pytest

from edge_mnv2.datasets.classes import Classes, ClassNames, imagenet_wnids
from edge_mnv2.errors import UsageError
from edge_mnv2.zoo.labels import parse_labels
from edge_mnv2.zoo.synsets import imagenet_names

ANIMALS = ["tench, Tinca tinca", "Egyptian cat", "crane", "crane", "maillot", "maillot, tank suit", "Kaffeekätzchen"]


@pytest.mark.parametrize(
    ("labels", "classes", "row_of_first", "background_row"),
    [
        (["cat", "dog"], 2, 0, None),
        (["background", "cat", "dog"], 2, 1, 0),
        (["cat", "dog", "Background "], 2, 0, 2),
        (["background"], 1, 0, None),
        ([str(row) for row in range(1000)], 1000, 0, None),
        ([str(row) for row in range(1001)], 1000, 1, 0),
    ],
)
def test_background_is_no_class(labels: list[str], classes: int, row_of_first: int, background_row: int | None) -> None:
    found = Classes.of(labels)
    assert len(found) == classes
    assert found.row(0) == row_of_first
    assert found.class_of(row_of_first) == 0
    if background_row is not None:
        assert found.class_of(background_row) == -1
        assert found.name(-1) == "background"


def test_an_unnamed_imagenet_model_says_what_was_assumed() -> None:
    assert "background" in str(Classes.of([str(row) for row in range(1001)]).note)
    assert Classes.of([str(row) for row in range(1000)]).note is None


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("tench", 0),
        ("TENCH", 0),
        ("Tinca tinca", 0),
        ("tinca_tinca", 0),
        ("tench, Tinca tinca", 0),
        ("egyptian CAT", 1),
        ("maillot", 4),
        ("tank suit", 5),
        (unicodedata.normalize("NFD", "Kaffeekätzchen"), 6),
        ("3", 3),
        ("003", 3),
    ],
)
def test_a_name_finds_its_class(text: str, index: int) -> None:
    assert ClassNames(Classes.of(["background", *ANIMALS])).find(text) == index


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crane", "more than one class (2, 3)"),
        ("egyptian cats", "near: egyptian cat"),
        ("n01440764", "no class"),
        ("7", "not one of this model's 7 classes"),
        ("-1", "no class"),
        ("", "no class"),
    ],
)
def test_a_name_that_means_none_or_several_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        ClassNames(Classes.of(ANIMALS)).find(text)
    assert said in str(error.value)


def test_a_label_that_is_a_number_comes_before_the_index() -> None:
    names = ClassNames(Classes.of(["1", "2", "5", "10", "20"]))
    assert [names.find(text) for text in ("1", "5", "20")] == [0, 2, 4]
    assert names.find("0") == 0


def test_wnids_are_those_of_the_reference_photos(data: Path) -> None:
    wnids = imagenet_wnids()
    assert len(wnids) == len(set(wnids)) == 1000
    names = ClassNames(Classes.of([f"class {index}" for index in range(1000)]))
    with (data / "imagenet-dev" / "labels.csv").open() as handle:
        for row in csv.DictReader(handle):
            assert names.find(row["wnid"]) == int(row["class_index"])
            assert names.find(f"{row['wnid'].upper()}-{row['name']}") == int(row["class_index"])


def test_wnids_are_found_in_any_list_that_has_them() -> None:
    for lines in (["n03126707", "n02012849", "n01440764"], ["n03126707 crane", "n02012849 crane", "n02119789"]):
        names = ClassNames(Classes.of(parse_labels("\n".join(lines).encode())))
        assert [names.find(text) for text in ("n03126707", "n02012849-crane")] == [0, 1]
    # The development kit has all thousand in another order.
    named = list(imagenet_names().items())[::-1]
    lines = [f"{wnid} {number} {name.split(',')[0]}" for number, (wnid, name) in enumerate(named, 1)]
    names = ClassNames(Classes.of(parse_labels("\n".join(lines).encode())))
    assert [names.find(wnid) for wnid, _ in named] == list(range(1000))
    # In the usual order a name may be another class's: an airliner is a plane, and so is a tool.
    own = [name.split(",")[0] for name in imagenet_names().values()]
    own[404], own[726] = "plane", "hand plane"
    assert ClassNames(Classes.of(own)).find("n03954731") == 726


@pytest.mark.parametrize(
    ("labels", "folder"), [(("Background", "cup"), "background"), (("cup", "BACKGROUND"), "Background")]
)
def test_a_class_that_is_really_called_background(tmp_path: Path, labels: tuple[str, ...], folder: str) -> None:
    (tmp_path / "cup").mkdir()
    assert Classes.of(labels, tmp_path).labels == ("cup",)
    (tmp_path / folder).mkdir()
    classes = Classes.of(labels, tmp_path)
    assert classes.labels == labels and classes.offset == 0 and "is a class here" in (classes.note or "")
    assert ClassNames(classes).find(folder) == labels.index(next(name for name in labels if name != "cup"))
    # Elsewhere the name is the row of what is no class.
    assert Classes.of(labels).labels == ("cup",)
