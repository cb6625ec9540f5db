from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Optional

import pytest

from edge_mnv2 import paths
from edge_mnv2.errors import LabelsError
from edge_mnv2.zoo.labels import fit_labels, labels_text, parse_labels, read_labels

READABLE = {
    "plain": (b"cat\ndog\nowl\n", ["cat", "dog", "owl"]),
    "no newline at the end": (b"cat\ndog", ["cat", "dog"]),
    "byte order mark": (codecs.BOM_UTF8 + b"cat\ndog\n", ["cat", "dog"]),
    "UTF-16 with a mark": ("cat\nEule\n".encode("utf-16"), ["cat", "Eule"]),
    "UTF-16 of the other order": (codecs.BOM_UTF16_BE + "cat\ndog".encode("utf-16-be"), ["cat", "dog"]),
    "CRLF": (b"cat\r\ndog\r\n", ["cat", "dog"]),
    "CR CR LF": (b"cat\r\r\ndog\r\r\n", ["cat", "dog"]),
    "CR": (b"cat\rdog\r", ["cat", "dog"]),
    "trailing blanks": (b"cat \t\ndog\xc2\xa0\n", ["cat", "dog"]),
    "empty lines at the end": (b"cat\ndog\n\n \n\r\n", ["cat", "dog"]),
    "commas and colons": (b"tench, Tinca tinca\n0:1 drill: bit\n", ["tench, Tinca tinca", "0:1 drill: bit"]),
    "other alphabets": ("Fuß\n猫\n".encode(), ["Fuß", "猫"]),
    "a line separator of Unicode is part of a name": ("a\u2028b\nc".encode(), ["a\u2028b", "c"]),
    "indices": (b"0 cat\n1 dog\n2 owl\n", ["cat", "dog", "owl"]),
    "indices with colons": (b"0:cat\n1: dog\n2 : owl\n", ["cat", "dog", "owl"]),
    "indices with tabs and zeros": (b"00\tcat\n01\tdog\n", ["cat", "dog"]),
    "indices in another order": (b"2 owl\n0 cat\n1 dog\n", ["cat", "dog", "owl"]),
    "one line without an index": (b"0 cat\n1 dog\nowl\n", ["0 cat", "1 dog", "owl"]),
    "an index is missing": (b"0 cat\n2 dog\n", ["0 cat", "2 dog"]),
    "an index twice": (b"0 cat\n0 dog\n", ["0 cat", "0 dog"]),
    "counted from one": (b"1 cat\n2 dog\n", ["1 cat", "2 dog"]),
    "names that begin with digits": (b"7 up\n3 musketeers\n", ["7 up", "3 musketeers"]),
    "only numbers": (b"0\n1\n2\n", ["0", "1", "2"]),
    "an index too large for a row": (b"99999999999999999999 x\n0 cat", ["99999999999999999999 x", "0 cat"]),
}


@pytest.mark.parametrize("shape", READABLE)
def test_label_files_of_every_shape(shape: str, tmp_path: Path) -> None:
    content, names = READABLE[shape]
    (tmp_path / "labels.txt").write_bytes(content)
    assert read_labels(tmp_path / "labels.txt") == names


UNREADABLE = {
    "empty": (b"", "no names"),
    "only blanks": (b" \n\n\t\n", "no names"),
    "only a byte order mark": (codecs.BOM_UTF8, "no names"),
    "an empty line in between": (b"cat\n\ndog\n", "line 2 is empty"),
    "Latin-1": ("Fuß\nMöwe\n".encode("latin-1"), "not UTF-8 text"),
    "zeros": (bytes(500), "not a text file"),
    "a model": (b"\x1c\0\0\0TFL3\x14\0\x20\0", "not a text file"),
    "a page": (b"<!DOCTYPE html><title>Sign in</title>", "HTML"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "half a UTF-16 character": (codecs.BOM_UTF16_LE + b"c\0a", "not UTF-8 text"),
    "an endless line": (b"x" * 10_000, "10000 characters"),
    "too large": (b"cat\n" * 2_000_000, "8000000 bytes"),
}


@pytest.mark.parametrize("shape", UNREADABLE)
def test_files_that_are_no_labels(shape: str, tmp_path: Path) -> None:
    content, words = UNREADABLE[shape]
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(LabelsError, match=words) as caught:
        read_labels(tmp_path / "labels.txt")
    assert caught.value.exit_code == 3
    assert "labels.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(LabelsError, match=f"{path} is not a regular file"):
            read_labels(path)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="no such label file"):
        read_labels(tmp_path / "gone.txt")
    with pytest.raises(LabelsError, match="is a folder"):
        read_labels(tmp_path)
    with pytest.raises(LabelsError, match="cannot be read"):
        read_labels("a\0b")


def _names(count: int) -> list[str]:
    return [f"class {row}" for row in range(count)]


FITTING = {
    "as many": (_names(10), 10, None, _names(10), False),
    "as many, background among them": (["background", *_names(9)], 10, "first", ["background", *_names(9)], False),
    "no labels": (None, 3, None, ["0", "1", "2"], False),
    "no labels for a value": (None, 1, None, ["0"], False),
    "background first": (_names(9), 10, "first", ["background", *_names(9)], True),
    "background last": (_names(964), 965, "last", [*_names(964), "background"], True),
    "ImageNet with background": (_names(1000), 1001, None, ["background", *_names(1000)], True),
    "one too many in front": (["background", *_names(10)], 10, None, _names(10), True),
    "one too many at the end": ([*_names(10), "Background"], 10, "none", _names(10), True),
}


@pytest.mark.parametrize("case", FITTING)
def test_names_that_fit(case: str) -> None:
    labels, outputs, background, expected, said = FITTING[case]
    fitted, note = fit_labels(labels, outputs, background=background)
    assert fitted == expected
    assert len(fitted) == outputs
    assert (note is not None) == said
    if note is not None and labels is not None:
        assert str(len(labels)) in note


MISFITTING: list[tuple[list[str], int, Optional[str]]] = [
    (_names(9), 10, None),
    (_names(9), 10, "none"),
    (_names(1000), 1001, "none"),
    (_names(8), 10, "first"),
    (_names(11), 10, None),
    (_names(11), 10, "first"),
    (["background", *_names(11)], 10, "first"),
    (["cat", "background", "dog"], 2, None),
    (["background", "dog", "background"], 2, None),
    # A background row is there already: the name that is missing is another one.
    ([*_names(963), "background"], 965, "last"),
    (["background", *_names(999)], 1001, None),
    (_names(1), 1000, None),
    (_names(1001), 1, None),
]


@pytest.mark.parametrize("labels, outputs, background", MISFITTING)
def test_names_that_do_not_fit_are_refused_with_both_counts(
    labels: list[str], outputs: int, background: Optional[str]
) -> None:
    with pytest.raises(LabelsError) as caught:
        fit_labels(labels, outputs, background=background)
    assert caught.value.exit_code == 3
    assert f"{len(labels)} names for {outputs} outputs" in str(caught.value)


@pytest.mark.parametrize(
    "name, count, first, last",
    [
        ("imagenet", 1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue"),
        ("inat_bird", 965, "Haemorhous cassinii (Cassin's Finch)", "background"),
    ],
)
def test_the_lists_that_ship(name: str, count: int, first: str, last: str) -> None:
    labels = read_labels(paths.packaged("models", "labels", f"{name}.txt"))
    assert (len(labels), labels[0], labels[-1]) == (count, first, last)


def test_shipped_lists_are_those_of_the_models(data: Path) -> None:
    imagenet = read_labels(data / "labels" / "imagenet_labels.txt")
    assert read_labels(paths.packaged("models", "labels", "imagenet.txt")) == imagenet[1:]
    birds = read_labels(data / "labels" / "inat_bird_labels.txt")
    assert read_labels(paths.packaged("models", "labels", "inat_bird.txt")) == birds


def test_every_index_of_a_long_list_is_taken_off() -> None:
    text = "".join(f"{row}  name {row}\n" for row in range(1001)).encode()
    assert parse_labels(text) == [f"name {row}" for row in range(1001)]


FORMS = {
    "a JSON list": ('["cup", "plate", "fork"]', None),
    "a JSON map of names": ('{"cup": 0, "fork": 2, "plate": 1}', None),
    "a JSON map of indices": ('{"0": "cup", "2": "fork", "1": "plate"}', None),
    "ImageNet's JSON": ('{"0": ["n1", "cup"], "1": ["n2", "plate"], "2": ["n3", "fork"]}', None),
    "metadata of a trainer": ('{"tfjsVersion": "1.7", "labels": ["cup", "plate", "fork"], "imageSize": 224}', None),
    "class indices": ('{"class_indices": {"cup": 0, "plate": 1, "fork": 2}}', None),
    "CSV": ("0,cup\n1,plate\n2,fork\n", None),
    "CSV with titles": ("index,name\n0,cup\n1,plate\n2,fork\n", None),
    "CSV, names first": ("cup,0\nplate,1\nfork,2\n", None),
    "CSV, titles, names first": ("label;id\ncup;0\nplate;1\nfork;2\n", None),
    "CSV with quotes and commas": (
        '0,"cup, mug"\n1,plate, dish\n2,"the ""fork"""\n',
        ["cup, mug", "plate, dish", 'the "fork"'],
    ),
    "tabs": ("0\tcup\n1\tplate\n2\tfork\n", None),
    "equal signs, out of order": ("2=fork\n0=cup\n1=plate\n", None),
    "CSV, titles, more columns": ("id,label,colour\n0,cup,red\n1,plate,red\n2,fork,grey\n", None),
    "CSV, titles, out of order": ("class_id;weight;class\n2;1;fork\n0;1;cup\n1;1;plate\n", None),
    "CSV, titles, no indices": ("name,colour\ncup,red\nplate,red\nfork,grey\n", None),
    "full stops": ("0. cup\n1. plate\n2. fork\n", None),
    "brackets": ("0) cup\n1) plate\n2) fork\n", None),
    "arrows": ("0 -> cup\n1 => plate\n2 - fork\n", None),
    "a dictionary as Python writes it": ("{0: 'cup',\n 1: \"plate\",\n 2: 'fork'}\n", None),
    "a list as Python writes it": ("['cup', 'plate', 'fork',]\n", None),
    "Hugging Face's config": (
        '{"model_type": "mobilenet_v2", "id2label": {"0": "cup", "1": "plate", "2": "fork"}}',
        None,
    ),
    "COCO's categories": (
        '{"categories": [{"id": 1, "name": "plate"}, {"id": 0, "name": "cup"}, {"id": 2, "name": "fork"}]}',
        None,
    ),
    "ImageNet's synsets": ("n01440764 cup\nn01443537 plate\nn01484850 fork\n", None),
    "synsets and commas": ("n01440764,cup\nn01443537: plate\nn01484850\tfork\n", None),
    "synsets and quotes": (
        'n01440764,"cup, mug"\nn01443537,plate\nn01484850,"fork"\n',
        ["cup, mug", "plate", "fork"],
    ),
    "synsets behind indices": ("0 n01440764 cup\n1 n01443537 plate\n2 n01484850 fork\n", None),
    "ImageNet's development kit": ("n02119789 1 cup\nn02100735 2 plate\nn02110185 3 fork\n", None),
    "synsets, counted from 0": ("n02119789,0,cup\nn02100735,1,plate\nn02110185,2,fork\n", None),
    "the background, and synsets counted": (
        'background\nn02119789 0 "a cup"\nn02100735 1 plate\n',
        ["background", "a cup", "plate"],
    ),
    "synsets alone, with their indices": (
        '{"class_indices": {"n02119789": 1, "n01440764": 0}}',
        ["tench, Tinca tinca, n01440764", "kit fox, Vulpes macrotis, n02119789"],
    ),
    "synsets alone, in a table": (
        "index,label\n1,n02119789\n0,n01440764\n",
        ["tench, Tinca tinca, n01440764", "kit fox, Vulpes macrotis, n02119789"],
    ),
    "lists of names that have no synset": ('{"0": ["cup"], "1": ["mug", "cup"]}', ["cup", "cup"]),
    "names that begin with numbers behind synsets": (
        "n02119789 7 up\nn02100735 3 musketeers\n",
        ["7 up", "3 musketeers"],
    ),
    "synsets alone": (
        "n02119789\nn01440764\nn99999999\n",
        ["kit fox, Vulpes macrotis, n02119789", "tench, Tinca tinca, n01440764", "n99999999"],
    ),
    "synsets alone, and background": (
        "background\nn01440764\n",
        ["background", "tench, Tinca tinca, n01440764"],
    ),
    "the two cranes": (
        "n02012849 crane\nn03126707 crane\nn01440764 cup\n",
        ["crane, n02012849", "crane, n03126707", "cup"],
    ),
    "the two cranes in JSON": (
        '{"1": ["n02012849", "crane"], "0": ["n03126707", "crane"], "2": ["n01440764", "cup"]}',
        ["crane, n03126707", "crane, n02012849", "cup"],
    ),
    "names and their indices, digits": ('{"class_to_idx": {"0": 1, "1": 2, "2": 0}}', ["2", "0", "1"]),
    "one synset among names": ("n01440764 cup\nn0 plate\n", ["n01440764 cup", "n0 plate"]),
    "synsets behind the background": ("background\nn01440764 cup\n", ["background", "cup"]),
    "a class that is called as a title": ("0,label\n1,cup\n2,plate\n", ["label", "cup", "plate"]),
    "such a class, its index behind": ("name,0\ncup,1\nplate,2\n", ["name", "cup", "plate"]),
    "decimal numbers": ("0.5 mm\n1.5 mm\n", ["0.5 mm", "1.5 mm"]),
    "digits as names": ('{"0": 0, "1": 1, "10": 2, "2": 3}', ["0", "1", "10", "2"]),
    "names that begin with brackets": ("[cup]\n{plate}\n", ["[cup]", "{plate}"]),
    "names with commas and digits": ("cup, 1\nplate, 7\n", ["cup, 1", "plate, 7"]),
    "an index that is not complete": ("1,cup\n2,plate\n", ["1,cup", "2,plate"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_usual_forms_of_label_files(form: str, tmp_path: Path) -> None:
    text, names = FORMS[form]
    path = tmp_path / "labels"
    for encoding in ("utf-8", "utf-8-sig"):
        for end in ("\n", "\r\n"):
            path.write_bytes(text.replace("\n", end).encode(encoding))
            assert read_labels(path) == (names or ["cup", "plate", "fork"])


@pytest.mark.parametrize(
    "names", ["{0: cup, 1: plate, 2: fork}", "[cup, plate, fork]", "\n  0: cup\n  1: plate\n  2: fork"]
)
def test_ultralytics_and_roboflow_have_their_names_in_yaml(names: str, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(f"train: images\nnc: 3\nnames: {names}\n")
    assert read_labels(path) == ["cup", "plate", "fork"]
    path.write_text("names: [cup, &on plate]\n")
    with pytest.raises(LabelsError, match=r"data\.yaml:1"):
        read_labels(path)


ODD = ["no", "yes", "on", "1", "1.0", "null", "2024-01-01", "~", "true", "010", "0x10", "1_000", "12:30", ".inf", "1e3"]


@pytest.mark.parametrize("form", ["list", "flow", "numbered", "named", "objects"])
def test_names_in_yaml_are_what_is_written(form: str, tmp_path: Path) -> None:
    """No, a number and a date are classes here: of answers, of digits, of days."""
    rows = {
        "list": "names:\n" + "".join(f"- {name}\n" for name in ODD),
        "flow": f"nc: 015\ntrain: yes\nnames: [{', '.join(ODD)}]\n",
        "numbered": "names:\n" + "".join(f"  {row}: {name}\n" for row, name in enumerate(ODD)),
        "named": "class_indices:\n" + "".join(f"  {name}: {row}\n" for row, name in enumerate(ODD)),
        "objects": "".join(f"- id: {row}\n  name: {name}\n" for row, name in enumerate(ODD)),
    }
    (tmp_path / "data.yaml").write_text(rows[form])
    assert read_labels(tmp_path / "data.yaml") == ODD
    (tmp_path / "data.yaml").write_text("names: [cup, '', plate]\n")
    with pytest.raises(LabelsError, match=r"data\.yaml, name 2 is no name"):
        read_labels(tmp_path / "data.yaml")


@pytest.mark.parametrize("text", ["cup\nplate\n", "0: cup\n1: no\n2: a: b\n", "0 7 up\n1 cup\n", "7 up\n"])
def test_lines_in_a_file_called_yaml_are_read_as_in_any_other(text: str, tmp_path: Path) -> None:
    for name in ("labels.txt", "labels.yaml"):
        (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / "labels.yaml") == read_labels(tmp_path / "labels.txt")


def test_names_that_look_like_synsets_are_kept_by_our_own_label_files() -> None:
    for names in (["n01440764 cup", "n01443537 plate"], ["n01440764", "n01443537"], ["n01440764 cup", "1 plate"]):
        assert parse_labels(labels_text(names).encode()) == names


def test_what_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"0": "cup", "0": "plate", "1": "fork"}')
    with pytest.raises(LabelsError, match="twice"):
        read_labels(tmp_path / "labels.json")


@pytest.mark.parametrize(
    "text",
    ['{"cup": 1, "plate": 2}', '{"a": [1]}', "[1, 2]", "[]", "{}", '["cup", ""]', '["a\\u001b[0m"]', '["a\\nb"]'],
)
def test_json_that_is_no_list_of_names(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(LabelsError) as caught:
        read_labels(tmp_path / "labels.json")
    assert str(caught.value).isprintable()


def test_a_folder_of_classes_is_numbered_as_torchvision_and_keras_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (*range(11), ".hidden"):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with caplog.at_level("INFO"):
        assert read_labels(tmp_path) == ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert "in the order of text (0 0, 1 1, 2 10, 3 2, ...)" in caplog.text
