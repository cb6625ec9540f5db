"""`edge-mnv2 evaluate` on real files: figures, background rows, bad pictures, reports."""

from __future__ import annotations

import csv
import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any, Optional

import pytest
from PIL import Image

from tests.stubs import colour_model

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def save(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path)


def write_model(path: Path, labels: Optional[list[str]] = None, task: Optional[str] = None, **options: Any) -> Path:
    path.write_bytes(colour_model(**options))
    lines = [f"labels: [{', '.join(labels)}]"] if labels else []
    lines += [f"task: {task}"] if task else []
    if lines:
        path.with_suffix(".yaml").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Two pictures of each colour, one folder a class; one of the blue ones is really green."""
    folder = tmp_path / "set"
    for name, colour in COLOURS.items():
        save(folder / name / "1.png", colour)
        save(folder / name / "2.png", colour)
    save(folder / "blue" / "2.png", COLOURS["green"])
    return folder


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_folders_and_what_was_confused(run: Any, colours: Path, tmp_path: Path, dtype: str) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"], dtype=dtype)
    code, out, _ = run("evaluate", colours, "--model", model, "--json")
    found = json.loads(out)
    assert (code, found["images"]) == (0, 6)
    assert found["top1"] == pytest.approx(5 / 6)
    assert found["top5"] == 1.0
    # Of red, green and blue: F1 1, 4/5 and 2/3.
    assert found["macro_f1"] == pytest.approx((1 + 4 / 5 + 2 / 3) / 3)
    assert found["agreement"] is None
    assert found["inference_ms"]["p95"] >= found["inference_ms"]["p50"] > 0
    wrong = [cell for cell in found["confusion"] if cell["label"] != cell["predicted"]]
    assert [(cell["label"], cell["predicted"], cell["images"]) for cell in wrong] == [("blue", "green", 1)]
    blue = next(entry for entry in found["per_class"] if entry["label"] == "blue")
    assert (blue["images"], blue["top1"], blue["precision"]) == (2, 0.5, 1.0)
    assert sum(entry["images"] for entry in found["calibration"]) == 6


def test_macro_f1_says_that_it_counts_an_answer_that_no_picture_shows(run: Any, colours: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    code, out, notes = run("evaluate", colours, "--model", model, "--json")
    assert code == 0 and "macro-F1" not in notes
    shutil.rmtree(colours / "green")
    code, out, notes = run("evaluate", colours, "--model", model, "--json")
    assert code == 0 and json.loads(out)["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert "macro-F1 counts 'green', answered and never shown, with 0" in notes


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_background_row_does_not_move_the_class_index(run: Any, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "set"
    save(folder / "r.png", COLOURS["red"])
    save(folder / "g.png", COLOURS["green"])
    # The stub's rows are red, green, blue, nothing: the row named background is the first or the last of them.
    if place == "last":
        labels, rows, indices = ["red", "green", "blue", "background"], 4, (0, 1)
    else:
        labels, rows, indices = ["background", "green", "blue"], 3, (-1, 0)
    model = write_model(tmp_path / "m.tflite", labels, outputs=rows)
    (folder / "labels.csv").write_text(f"file,class_index\nr.png,0\ng.png,{indices[1]}\n")
    code, out, _ = run("evaluate", folder, "--model", model, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["top1"] == (1.0 if place == "last" else 0.5)
    answered = {(cell["class_index"], cell["predicted_index"]) for cell in found["confusion"]}
    assert (0, indices[0]) in answered and (indices[1], indices[1]) in answered


def test_two_models_with_background_in_other_places_agree(run: Any, colours: Path, tmp_path: Path) -> None:
    plain = write_model(tmp_path / "plain.tflite", ["red", "green", "blue"])
    padded = write_model(tmp_path / "padded.tflite", ["red", "green", "blue", "background"], outputs=4, dtype="int8")
    code, out, _ = run("evaluate", colours, "--model", plain, "--against", padded, "--json")
    found = json.loads(out)
    assert (code, found["agreement"], found["against"]["top1"]) == (0, 1.0, pytest.approx(5 / 6))
    assert found["against"]["top1_difference"] == 0.0


def test_models_of_different_input_sizes_share_one_decoding(run: Any, colours: Path, tmp_path: Path) -> None:
    small = write_model(tmp_path / "small.tflite", ["red", "green", "blue"], height=8, width=8)
    large = write_model(tmp_path / "large.tflite", ["red", "green", "blue"], height=32, width=24)
    code, out, _ = run("evaluate", colours, "--model", small, "--against", large, "--json")
    assert (code, json.loads(out)["agreement"]) == (0, 1.0)


def test_models_that_cannot_be_compared(run: Any, colours: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    other = write_model(tmp_path / "other.tflite", outputs=5)
    code, out, err = run("evaluate", colours, "--model", model, "--against", other)
    assert (code, out) == (2, "")
    assert "3 classes" in err and "5" in err
    value = write_model(tmp_path / "value.tflite", task="regression", outputs=1, softmax=False)
    code, _, err = run("evaluate", colours, "--model", model, "--against", value)
    assert code == 2 and "measured values" in err


def test_bad_pictures_are_named_once_and_the_others_go_on(run: Any, colours: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    (colours / "red" / "cut.png").write_bytes((colours / "red" / "1.png").read_bytes()[:40])
    (colours / "red" / "empty.jpg").write_bytes(b"")
    code, out, err = run("evaluate", colours, "--model", model, "--json", "--csv", tmp_path / "o.csv")
    found = json.loads(out)
    assert (code, found["images"]) == (8, 6)
    assert [entry["file"] for entry in found["failed"]] == ["red/cut.png", "red/empty.jpg"]
    assert err.count("cut.png") == err.count("empty.jpg") == 1
    with (tmp_path / "o.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 8 and sum(bool(row["error"]) for row in rows) == 2


def test_only_bad_pictures(run: Any, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "labels.csv").write_text("file,class_index\nnone.png,0\n")
    code, out, err = run("evaluate", tmp_path / "set", "--model", model, "--json", "--html", tmp_path / "o.html")
    found = json.loads(out)
    assert (code, found["images"]) == (4, 0)
    assert found["top1"] is found["top5"] is found["expected_calibration_error"] is None
    assert found["inference_ms"] == {"p50": None, "p95": None}
    assert "none.png: file not found" in err
    assert "none.png" in (tmp_path / "o.html").read_text()


@pytest.mark.parametrize("task", ["regression", None])
def test_measured_values(run: Any, tmp_path: Path, task: Optional[str]) -> None:
    """The stub answers 8 * (red - 127.5) / 127.5, so that the errors are known."""
    folder = tmp_path / "set"
    lines = ["file,value"]
    for red, off in ((255, 0.5), (153, -1.0), (102, 0.0)):
        save(folder / f"{red}.png", (red, 0, 0))
        lines.append(f"{red}.png,{8 * (red - 127.5) / 127.5 - off}")
    (folder / "labels.csv").write_text("\n".join(lines))
    model = write_model(tmp_path / "m.tflite", task=task, dtype="float32", outputs=1, softmax=False)
    command = ["evaluate", folder, "--model", model, "--json", "--html", tmp_path / "o.html"]
    if task is None:
        code, _, err = run(*command)
        assert code == 2 and "--task regression" in err and err.count("\n") == 1, "one number may be a logit too"
        command += ["--task", "regression"]
    code, out, _ = run(*command)
    found = json.loads(out)
    assert (code, found["task"], found["top1"], found["agreement"]) == (0, "regression", None, None)
    assert found["mse"] == pytest.approx(1.25 / 3, rel=1e-4)
    assert found["rmse"] == pytest.approx((1.25 / 3) ** 0.5, rel=1e-4)
    assert found["mae"] == pytest.approx(0.5, rel=1e-4)
    assert found["mape"] == pytest.approx((0.5 / 7.5 + 1.0 / 2.6) / 3, rel=1e-4)
    assert "Predicted against true" in (tmp_path / "o.html").read_text()


def test_several_measured_values(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    save(folder / "a.png", (255, 0, 0))
    (folder / "labels.csv").write_text("file,level,angle\na.png,8,-7\n")
    model = write_model(
        tmp_path / "m.tflite", ["level", "angle"], "regression", dtype="float32", outputs=2, softmax=False
    )
    code, out, _ = run("evaluate", folder, "--model", model, "--csv", tmp_path / "o.csv", "--json")
    found = json.loads(out)
    assert code == 0
    assert [entry["mae"] for entry in found["outputs"]] == [pytest.approx(0), pytest.approx(1)]
    assert found["mae"] == pytest.approx(0.5)
    header = (tmp_path / "o.csv").read_text().splitlines()[0]
    assert header == "file,value:level,predicted:level,value:angle,predicted:angle,inference_ms,error"


@pytest.mark.parametrize("policy", ["crop", "stretch", "letterbox"])
def test_the_resize_policy_is_the_classifiers(run: Any, tmp_path: Path, policy: str) -> None:
    """Pictures are fitted by the decoders: the scores must be those of `classify` to the last digit."""
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"], dtype="float32")
    picture = Image.new("RGB", (64, 20), COLOURS["red"])
    picture.paste(COLOURS["green"], (0, 0, 23, 20))
    (tmp_path / "set").mkdir()
    picture.save(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "labels.csv").write_text("file,class_index\na.png,0\n")
    options = ("--model", model, "--resize", policy, "--json")
    _, out, _ = run("classify", tmp_path / "set" / "a.png", *options)
    expected = json.loads(out)["results"][0]["top"][0]
    _, out, _ = run("evaluate", tmp_path / "set", *options, "--csv", tmp_path / "o.csv")
    with (tmp_path / "o.csv").open() as handle:
        row = next(csv.DictReader(handle))
    assert (row["predicted"], float(row["score"])) == (expected["label"], pytest.approx(expected["score"], abs=1e-4))


class _Page(html.parser.HTMLParser):
    """Tags that are opened and closed, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, Optional[str]]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link", "path", "rect", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, Optional[str]]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect", "circle"):
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_escapes_what_it_shows(run: Any, tmp_path: Path) -> None:
    labels = ["'<b>red</b>'", "'green & blue'", "blue"]
    model = write_model(tmp_path / "m.tflite", labels)
    save(tmp_path / "set" / "1" / "<script>.png", COLOURS["red"])
    save(tmp_path / "set" / "blue" / "b.png", COLOURS["blue"])
    page = tmp_path / "o.html"
    code, _, _ = run("evaluate", tmp_path / "set", "--model", model, "--against", model, "--report", page)
    assert code == 0
    text = page.read_text()
    parsed = _Page()
    parsed.feed(text)
    assert parsed.open == []
    assert "script" not in parsed.tags and "b" not in [tag for tag in parsed.tags if tag == "script"]
    assert parsed.addresses and all(address.startswith("data:image/jpeg;base64,") for address in parsed.addresses)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    for part in ("Side by side", "Confusion", "Per class", "Most confident mistakes", "&lt;b&gt;red&lt;/b&gt;"):
        assert part in text


def test_a_person_reads_a_table(run: Any, colours: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    code, out, err = run("evaluate", colours, "--model", model, "--against", model)
    assert (code, err) == (0, "")
    assert "6 pictures" in out and "83.3%" in out and "same top-1 on 100.0%" in out
    assert re.search(r"1  blue +-> green", out)


@pytest.mark.parametrize("option", ["--csv", "--html", "--report"])
def test_a_report_that_cannot_be_written_is_known_before_the_work(
    run: Any, colours: Path, tmp_path: Path, option: str
) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    code, out, err = run("evaluate", colours, "--model", model, option, tmp_path / "none" / "o.file")
    assert (code, out) == (2, "")
    assert "there is no folder" in err


def test_a_model_that_fails_leaves_no_report(run: Any, data: Path, tmp_path: Path) -> None:
    save(tmp_path / "set" / "0" / "a.png", COLOURS["red"])
    target = tmp_path / "o.csv"
    model = data / "models" / "model_invoking_error.tflite"
    code, out, err = run("evaluate", tmp_path / "set", "--model", model, "--csv", target)
    assert (code, out) == (3, "")
    assert len(err.splitlines()) == 1 and not target.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--threads", "0"), 2),
        (("--threads", "many"), 2),
        (("--resize", "zoom"), 2),
        (("--runtime", "onnx"), 2),
        (("--model", "nosuchmodel"), 3),
        (("--labels", "nosuchfile.txt"), 3),
        (("--against", "nosuchmodel"), 3),
    ],
)
def test_wrong_options(run: Any, colours: Path, tmp_path: Path, arguments: tuple[str, str], code: int) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    given = (*arguments, *(() if "--model" in arguments else ("--model", model)))
    found, out, err = run("evaluate", colours, *given)
    assert (found, out) == (code, "")
    assert "Traceback" not in err


def test_published_models_on_reference_photos(run: Any, data: Path, tmp_path: Path) -> None:
    """1001 outputs with background first, against classes 0..999: without the shift both would be near 0."""
    with (data / "imagenet-dev" / "labels.csv").open() as handle:
        rows = list(csv.DictReader(handle))[::20]
    table = tmp_path / "labels.csv"
    lines = [f"{data / 'imagenet-dev' / row['file']},{row['class_index']}" for row in rows]
    table.write_text("file,class_index\n" + "\n".join(lines))
    models = data / "models"
    arguments = ("--against", models / "mobilenet_v1_0.25_128_quant.tflite", "--json")
    code, out, err = run("evaluate", tmp_path, "--model", models / "mobilenet_v2_1.0_224_quant.tflite", *arguments)
    found = json.loads(out)
    assert (code, found["images"]) == (0, 25)
    assert found["top1"] > 0.7 and found["top5"] > 0.9
    assert 0.2 < found["against"]["top1"] < found["top1"]
    assert 0.2 < found["agreement"] < 1
    assert 0 < found["expected_calibration_error"] < 0.3
    assert err.count("background") == 1


def test_what_a_set_cannot_measure_is_said(run: Any, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.tflite", ["red", "green", "blue"])
    save(tmp_path / "one" / "red" / "1.png", COLOURS["red"])
    code, out, err = run("evaluate", tmp_path / "one", "--model", model)
    assert code == 0 and "all pictures are of one class, 'red'" in err and "100.0%" in out
    values = tmp_path / "values"
    for number, red in enumerate((255, 153, 102)):
        save(values / f"{number}.png", (red, 0, 0))
    (values / "labels.csv").write_text("file;value\n0.png;7,5\n1.png;0\n2.png;-1\n")
    value = write_model(tmp_path / "v.tflite", task="regression", dtype="float32", outputs=1, softmax=False)
    code, out, err = run("evaluate", values, "--model", value, "--json")
    assert code == 0 and "MAPE leaves out 1 of 3 values" in err and "decimal comma" in err
    assert json.loads(out)["mape"] == pytest.approx((0.5 / 7.5 + 0.6) / 2, rel=1e-3) and "nearly 0" not in err
    (values / "labels.csv").write_text("file,value\n0.png,7.5\n1.png,1e-6\n2.png,3\n")
    code, out, err = run("evaluate", values, "--model", value)
    assert code == 0 and "MAPE says little: it divides by the value, and 1 of 3 are nearly 0" in err
