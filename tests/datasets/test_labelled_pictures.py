"""Data sets: what is read, and what is said about one that does not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from edge_mnv2.datasets.classes import LEARNED_COLUMNS, Classes
from edge_mnv2.datasets.collection import Collection
from edge_mnv2.datasets.labelled_pictures import own_answers, read_dataset, without_copies
from edge_mnv2.errors import EdgeMnv2Error

CLASSES = Classes.of(["background", "cat, tabby", "dog"])


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "file,class_index\na.png,0\nsub/b.png,1\n",
        "\ufefffile,class_index,name\r\na.png,0,cat\r\nsub/b.png,1,dog\r\n",
        "name;File ;Class_Index\ncat;a.png;0\n\n;sub/b.png; 1\n",
        "file\tlabel\na.png\tTabby\nsub/b.png\tdog\n",
        'class_index,file\n0,"a.png"\n1,"sub/b.png"',
    ],
    ids=["plain", "excel", "semicolon", "labels", "other order"],
)
def test_tables_of_every_dialect(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    dataset = read_dataset(tmp_path, CLASSES)
    assert [(example.name, example.truth) for example in dataset.examples] == [("a.png", 0), ("sub/b.png", 1)]
    assert dataset.examples[1].path == tmp_path / "sub" / "b.png"


def test_a_collection_is_no_folder_of_classes(tmp_path: Path) -> None:
    Collection(tmp_path)
    for read in (own_answers, lambda folder: read_dataset(folder, CLASSES)):
        with pytest.raises(EdgeMnv2Error, match=r"holds collected pictures.*`teach --from` takes it"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", 2, "file,class_index"),
        (b"file,class_index\n", 4, "lists no picture"),
        (b"file,klass\na.png,0\n", 2, "it says file,klass"),
        (b"file,value\na.png,0.5\n", 2, "measured values"),
        (b"file,class_index\na.png,x\n", 2, "line 2: class_index 'x'"),
        (b"file,class_index\n\na.png,2\n", 2, "line 3: class index 2 is not one of this model's 2"),
        (b"file,class_index\na.png,-1\n", 2, "class index -1"),
        (b"file,class_index\na.png\n", 2, "line 2: class_index is missing"),
        (b"file,class_index\n,1\n", 2, "line 2: file is missing"),
        (b"file,class_index\na.png,0\na.png,1\n", 2, "line 3: a.png has another class_index"),
        (b"file,label\na.png,horse\n", 2, "line 2: 'horse' is no class"),
        (b"file,class_index\n\xff\xfe.png,0\n", 2, "not UTF-8"),
        (b"file,class_index\n" + b"a" * 200_000 + b",0\n", 2, "no CSV file"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, content: bytes, code: int, said: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(EdgeMnv2Error) as error:
        read_dataset(tmp_path, CLASSES)
    assert error.value.exit_code == code
    assert said in str(error.value)
    assert "labels.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_measured_values_of_one_output_and_of_several(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,value,level,Angle\na.png,1.5,2,-3e1\n")
    assert read_dataset(tmp_path, ["0"]).examples[0].truth == (1.5,)
    assert read_dataset(tmp_path, ["level", "angle"]).examples[0].truth == (2.0, -30.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,value\na.png,NaN\n", "line 2: value 'NaN'"),
        ("file,value\na.png,inf\n", "value 'inf'"),
        ("file,value\na.png,3 mm\n", "value '3 mm'"),
        ("file,value\na.png,\n", "value is missing"),
        ("file,class_index\na.png,1\n", "this table holds classes"),
    ],
)
def test_values_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(EdgeMnv2Error) as error:
        read_dataset(tmp_path, ["0"])
    assert (error.value.exit_code, said in str(error.value)) == (2, True)


def test_a_model_of_values_needs_a_table(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    with pytest.raises(EdgeMnv2Error) as error:
        read_dataset(tmp_path, ["0"])
    assert error.value.exit_code == 2 and "file,value" in str(error.value)


def test_folders_are_classes(tmp_path: Path) -> None:
    for name in ("Tabby/10.png", "Tabby/2.png", "Tabby/.hidden.png", "1/deep/c.png", ".git/d.png"):
        picture(tmp_path / name)
    (tmp_path / "Tabby" / "notes.txt").write_text("no picture")
    (tmp_path / "Tabby" / "broken.jpg").write_bytes(b"")
    picture(tmp_path / "loose.png")
    dataset = read_dataset(tmp_path, CLASSES)
    assert [(example.name, example.truth) for example in dataset.examples] == [
        ("1/deep/c.png", 1),
        ("Tabby/2.png", 0),
        ("Tabby/10.png", 0),
        ("Tabby/broken.jpg", 0),
    ]
    assert any("1 pictures beside" in note for note in dataset.notes)


def test_an_empty_class_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    assert read_dataset(tmp_path, CLASSES).notes == ("dog: no pictures in this folder",)


def test_a_file_name_of_odd_bytes_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    name = os.fsencode(tmp_path) + b"/cat/caf\xe9.png"
    with open(name, "wb") as handle:
        Image.new("RGB", (8, 8)).save(handle, "PNG")
    example = read_dataset(tmp_path, CLASSES).examples[0]
    assert example.name.encode() == b"cat/caf\\xe9.png"
    assert example.path.is_file()


@pytest.mark.parametrize(
    ("made", "code", "said"),
    [
        (None, 4, "no such folder"),
        ("a file", 4, "is a file, not a folder"),
        ([], 2, "neither labels.csv nor a folder for each class"),
        (["cat/"], 4, "no pictures in its 1 class folders"),
        (["cat/a.png", "horse/b.png"], 2, "folder 'horse' is no class of this model"),
        (["horse/b.png", "cow/b.png", "cat/a.png"], 2, "(and 1 more folders)"),
    ],
)
def test_a_folder_that_does_not_fit(tmp_path: Path, made: object, code: int, said: str) -> None:
    folder = tmp_path / "set"
    if made == "a file":
        folder.write_text("x")
    elif isinstance(made, list):
        folder.mkdir()
        for name in made:
            if name.endswith("/"):
                (folder / name).mkdir()
            else:
                picture(folder / name)
    with pytest.raises(EdgeMnv2Error) as error:
        read_dataset(folder, CLASSES)
    assert error.value.exit_code == code
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['file,value\na.png,"12,5"\nb.png,3\n', "file;value\na.png;12,5\nb.png;3\n"])
def test_a_decimal_comma_is_a_number_and_said_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    dataset = read_dataset(tmp_path, ["value"])
    assert [example.truth for example in dataset.examples] == [(12.5,), (3.0,)]
    assert [note for note in dataset.notes if "decimal comma" in note] == [
        f"{tmp_path / 'labels.csv'}: the comma in '12,5' is read as a decimal comma (12.5)"
    ]


def test_values_in_front_of_file_names(tmp_path: Path) -> None:
    for name in ("12,5_a.png", "-3.png", "7 mm.png"):
        picture(tmp_path / name)
    dataset = read_dataset(tmp_path, own_answers(tmp_path, "regression"))
    assert sorted(example.value for example in dataset.examples) == [-3.0, 7.0, 12.5]
    assert any("values are read from file names" in note for note in dataset.notes)


def test_what_is_learned_has_its_own_names(tmp_path: Path) -> None:
    """A label is worth more than an index for who learns; for a model with classes it is the other way round."""
    (tmp_path / "labels.csv").write_text("file,class_index,label\na.png,7,dog\nb.png,3,cat\n")
    answers = own_answers(tmp_path)
    assert isinstance(answers, Classes) and answers.labels == ("cat", "dog")
    learned = read_dataset(tmp_path, answers, LEARNED_COLUMNS)
    assert [example.truth for example in learned.examples] == [1, 0]
    ten = Classes.of([f"class {index}" for index in range(10)])
    assert [example.truth for example in read_dataset(tmp_path, ten).examples] == [7, 3]


def test_labels_that_differ_in_case_only_are_two_classes(tmp_path: Path) -> None:
    for name in ("A", "a", "10", "2"):
        picture(tmp_path / name / "1.png")
    answers = own_answers(tmp_path)
    assert isinstance(answers, Classes) and answers.labels[:2] == ("2", "10")
    truths = {example.name[0]: example.truth for example in read_dataset(tmp_path, answers).examples}
    assert {answers.labels[truths["A"]], answers.labels[truths["a"]]} == {"A", "a"}


def test_the_same_file_counts_once_and_has_one_truth(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png"):
        picture(tmp_path / name)
    whole = read_dataset(tmp_path, own_answers(tmp_path))
    once = without_copies(whole)
    assert [example.name for example in once.examples] == ["cat/1.png"] and "counts once" in once.notes[-1]
    picture(tmp_path / "dog" / "3.png")
    with pytest.raises(EdgeMnv2Error, match="in two classes"):
        without_copies(read_dataset(tmp_path, own_answers(tmp_path)))
