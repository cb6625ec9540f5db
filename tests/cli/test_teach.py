"""`edge-mnv2 teach` as its users meet it: what they give, what they are told, what is left on the disk."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.teach.lesson_request import read_lesson
from edge_mnv2.tflite import graph
from edge_mnv2.zoo.labels import read_labels
from tests.teach.lessons import kinds

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def small(data: Path) -> Path:
    """A backbone that is quick."""
    return data / "models" / "mobilenet_v1_0.25_128_quant.tflite"


@pytest.fixture
def pets(data: Path, tmp_path: Path) -> Path:
    """Six photographs each of birds and insects."""
    folder = tmp_path / "pets"
    wanted = {"bird": 6, "insect": 6}
    for line in (data / "imagenet-dev" / "groups.csv").read_text().splitlines()[1:]:
        name, group = line.split(",")
        if wanted.get(group, 0) > 0:
            wanted[group] -= 1
            (folder / group).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / "imagenet-dev" / name, folder / group / name)
    return folder


def picture(path: Path, colour: tuple[int, int, int], seed: int = 0) -> None:
    from PIL import Image

    random = np.random.default_rng(seed)
    grains = random.integers(-25, 26, (24, 32, 3)).repeat(5, axis=0).repeat(5, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + grains, 0, 255).astype(np.uint8)).save(path)


@pytest.mark.slow
def test_taught_and_run(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "mine.tflite", tmp_path / "mine.html"
    code, said, notes = run("teach", pets, "--model", small, "--out", out, "--report", page, "--json")
    assert code == 0, notes
    known = json.loads(said)
    assert [entry["label"] for entry in known["classes"]] == ["bird", "insect"]
    assert [entry["held_out"] for entry in known["classes"]] == [1, 1]
    assert known["unknown"]["row"] == 2 and 0 < known["unknown"]["threshold"] < 1
    assert known["metrics"]["top1_interval"][0] < known["metrics"]["top1"] + 1e-9
    assert len(known["backbone"]["sha256"]) == 64 and known["versions"]["edge-mnv2"]
    assert read_labels(tmp_path / "mine.labels.txt") == ["bird", "insect", "unknown"]
    assert "12 pictures seen" in notes
    html = page.read_text()
    assert "Most confusing pictures" in html and "data:image/jpeg" in html and "<script" not in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    # Only what is wrong or unsure confuses.
    captions = re.findall(r"<b>(\S+) (\d+)%</b>.*?true: (\w+)", html, re.DOTALL)
    assert captions and all(answer != truth or int(share) < 80 for answer, share, truth in captions)
    code, said, notes = run("run", "--source", pets / "bird", "--model", out, "--json")
    assert code == 0 and json.loads(said)["frames"] == 6, notes
    code, said, _ = run("evaluate", pets, "--model", out, "--json")
    assert code == 0 and json.loads(said)["top1"] > 0.7
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_the_file_alone_has_its_names(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.tflite"
    assert run("teach", pets, "--model", small, "--out", out)[0] == 0
    code, said, _ = run("inspect", out, "--json")
    assert code == 0
    shape = json.loads(said)["outputs"][0]
    assert shape["dtype"] == "int8" and shape["shape"] == [1, 3]


@pytest.mark.slow
def test_hidden_things_are_no_classes(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    (pets / ".cache").mkdir()
    (pets / ".DS_Store").write_bytes(b"\0")
    (pets / "bird" / ".thumb.jpg").write_bytes(b"\0")
    (pets / "loose.jpg").write_bytes(
        next((pets / "bird").glob("n*.jpg"), next(iter((pets / "bird").iterdir()))).read_bytes()
    )
    code, said, notes = run("teach", pets, "--model", small, "--out", tmp_path / "mine.tflite", "--json")
    assert code == 0
    assert len(json.loads(said)["classes"]) == 2 and json.loads(said)["pictures"] == 12
    assert "1 pictures beside the class folders" in notes


def test_a_folder_without_classes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    code, _, err = run("teach", tmp_path, "--out", tmp_path / "m.tflite")
    assert code == 2 and f"{tmp_path} has neither labels.csv nor a folder for each class" in err


def test_an_empty_class(run: Run, pets: Path, tmp_path: Path) -> None:
    (pets / "cat").mkdir()
    (pets / "cat" / "readme.txt").write_text("later")
    code, _, notes = run("teach", pets, "--out", tmp_path / "mine.tflite")
    assert code == 2 and f"{pets / 'cat'} has no pictures in it" in notes
    assert not (tmp_path / "mine.tflite").exists()


def test_one_class(run: Run, pets: Path, tmp_path: Path) -> None:
    shutil.rmtree(pets / "bird")
    code, _, notes = run("teach", pets, "--out", tmp_path / "mine.tflite")
    assert code == 2 and "one class only, 'insect'" in notes


@pytest.mark.parametrize("head", ["softmax", "imprint"])
def test_one_picture_each(run: Run, small: Path, tmp_path: Path, head: str) -> None:
    picture(tmp_path / "p" / "red" / "1.png", (200, 40, 40))
    picture(tmp_path / "p" / "blue" / "1.png", (40, 40, 200))
    out = tmp_path / "mine.tflite"
    code, _, notes = run("teach", tmp_path / "p", "--model", small, "--head", head, "--out", out)
    assert code == 0 and "none is held out" in notes and "blue (1), red (1)" in notes
    code, said, _ = run("classify", tmp_path / "p", "--model", out, "--json")
    assert [entry["top"][0]["label"] for entry in json.loads(said)["results"]] == ["blue", "red"]


def test_held_out_pictures_of_one_class_are_no_accuracy(run: Run, small: Path, tmp_path: Path) -> None:
    for colour, count in (("red", 1), ("blue", 6)):
        for number in range(count):
            picture(
                tmp_path / "p" / colour / f"{number}.png", (200, 40, 40) if colour == "red" else (40, 40, 200), number
            )
    out, page = tmp_path / "mine.tflite", tmp_path / "mine.html"
    code, said, notes = run("teach", tmp_path / "p", "--model", small, "--out", out, "--report", page)
    assert code == 0 and "only 'blue' has held-out pictures" in notes and "unbalanced" in notes
    assert "'unknown' takes" not in notes
    assert "held-out accuracy" not in said and "held-out accuracy" not in page.read_text()
    known = json.loads(out.with_suffix(".json").read_text())
    assert known["held_out"] == 1 and known["learning_curve"] == []
    assert [known["metrics"][key] for key in ("top1", "top1_interval", "top1_with_unknown")] == [None] * 3


def test_unknown_that_takes_the_taught_classes_is_said(run: Run, data: Path, small: Path, tmp_path: Path) -> None:
    """Photographs that have nothing in common: a new one of them resembles none of the taught ones."""
    for number, photo in enumerate(sorted((data / "imagenet-dev").glob("*.jpg"))[::40][:12]):
        # The same name, typed in two ways.
        place = tmp_path / "p" / ("caf\u00e9", "Cafe\u0301")[number % 2] / photo.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(photo)
    for option, said in (("--unknown", True), ("--no-unknown", False)):
        out = tmp_path / f"m{option}.tflite"
        code, _, notes = run("teach", tmp_path / "p", "--model", small, "--out", out, "--no-augment", option)
        assert code == 0 and ("'unknown' takes too many pictures of these classes" in notes) == said, notes
        assert "are taught as two classes" in notes


@pytest.mark.slow
def test_unreadable_pictures(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    victim = sorted((pets / "bird").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:2000])
    code, said, notes = run("teach", pets, "--model", small, "--out", tmp_path / "mine.tflite", "--json")
    assert code == 8 and f"{victim} is damaged or cut short" in notes
    assert [entry["file"] for entry in json.loads(said)["failed"]] == [f"bird/{victim.name}"]
    for victim in (pets / "bird").iterdir():
        victim.write_bytes(b"\xff\xd8\xff\xe0nothing")
    code, _, notes = run("teach", pets, "--model", small, "--out", tmp_path / "other.tflite")
    assert code == 4 and "none of the pictures of class 'bird' could be read" in notes
    assert not (tmp_path / "other.tflite").exists()


@pytest.mark.slow
def test_the_same_picture(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    first = sorted((pets / "bird").iterdir())[0]
    shutil.copy(first, pets / "bird" / "copy.jpg")
    code, said, notes = run("teach", pets, "--model", small, "--out", tmp_path / "mine.tflite", "--json")
    assert code == 0 and json.loads(said)["pictures"] == 12
    assert "is the same file as" in notes and "counts once" in notes
    shutil.copy(first, pets / "insect" / "wrong.jpg")
    code, _, notes = run("teach", pets, "--model", small, "--out", tmp_path / "mine.tflite", "--force")
    assert code == 2 and "the same picture is in two classes" in notes and "insect/wrong.jpg" in notes


@pytest.mark.slow
def test_names_that_look_like_indices(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    (pets / "bird").rename(pets / "0 empty")
    (pets / "insect").rename(pets / "1 full")
    code, _, notes = run("teach", pets, "--model", small, "--out", tmp_path / "m.tflite", "--no-unknown")
    assert code == 0, notes
    assert read_labels(tmp_path / "m.labels.txt") == ["0 empty", "1 full"]


def test_a_class_called_unknown(run: Run, pets: Path, tmp_path: Path) -> None:
    (pets / "bird").rename(pets / "Unknown")
    code, _, notes = run("teach", pets, "--out", tmp_path / "m.tflite")
    assert code == 2 and "cannot be called 'Unknown'" in notes


@pytest.mark.slow
def test_adding_a_class_and_pictures(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.tflite"
    assert run("teach", pets, "--model", small, "--out", out)[0] == 0
    more = tmp_path / "more"
    for number in range(6):
        picture(more / "rust" / f"{number}.png", (150, 80, 30), number)
    picture(more / "bird" / "new.png", (90, 120, 60), 99)
    shutil.copy(sorted((pets / "bird").iterdir())[0], more / "bird" / "again.jpg")
    code, said, notes = run("teach", more, "--add", out, "--json")
    assert code == 0 and "bird/again.jpg was taught before" in notes
    assert [(one["label"], one["pictures"]) for one in json.loads(said)["classes"]] == [
        ("bird", 7),
        ("insect", 6),
        ("rust", 6),
    ]
    code, said, _ = run("classify", more / "rust", pets / "insect", "--model", out, "--json")
    answers = [entry["top"][0]["label"] for entry in json.loads(said)["results"]]
    assert answers[:6].count("rust") >= 5 and answers[6:].count("insect") >= 5


@pytest.mark.slow
def test_the_environment_of_run(
    run: Run, small: Path, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mine.tflite"
    monkeypatch.setenv("EDGE_MNV2_CAMERA", "/dev/video0")
    assert run("teach", pets, "--model", small, "--out", out)[0] == 0
    monkeypatch.setenv("EDGE_MNV2_MODEL", str(out))
    picture(tmp_path / "more" / "rust" / "1.png", (150, 80, 30))
    code, said, notes = run("teach", tmp_path / "more", "--add", out, "--json")
    assert code == 0, notes
    assert json.loads(said)["backbone"]["model"] == "mobilenet_v1_0.25_128_quant"


@pytest.mark.slow
def test_a_taught_model_as_backbone(run: Run, pets: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.tflite", tmp_path / "second.tflite"
    assert run("teach", pets, "--out", first)[0] == 0
    code, said, notes = run("teach", pets, "--model", first, "--out", second, "--json")
    assert code == 0, notes
    # The classifier that the backbone was published with is still there for telling what is unknown.
    assert json.loads(said)["unknown"]["by"].startswith("evidence")


@pytest.mark.slow
def test_a_backbone_that_changed(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    backbone, out = tmp_path / "backbone.tflite", tmp_path / "mine.tflite"
    shutil.copy(small, backbone)
    assert run("teach", pets, "--model", backbone, "--out", out)[0] == 0
    changed = graph.read(backbone.read_bytes())
    changed.description = "retrained"
    backbone.write_bytes(graph.write(changed))
    before = out.read_bytes()
    code, _, notes = run("teach", pets, "--add", out)
    assert code == 3 and "with sha256" in notes and "backbone.tflite now has" in notes and "teach again" in notes
    assert out.read_bytes() == before
    code, _, notes = run("teach", pets, "--add", backbone)
    assert code == 3 and "remembers no lesson" in notes


def test_models_that_cannot_be_taught(run: Run, data: Path, pets: Path, tmp_path: Path) -> None:
    compiled = data / "models" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    code, _, notes = run("teach", pets, "--model", compiled, "--out", tmp_path / "m.tflite")
    assert code == 3 and "compiled for the Coral Edge TPU" in notes and "without _edgetpu" in notes
    code, _, notes = run("teach", pets, "--out", tmp_path / "none" / "m.tflite")
    assert code == 2 and "cannot be written" in notes


@pytest.mark.slow
def test_warnings(run: Run, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    for number in range(24):
        picture(folder / "many" / f"{number}.png", (40, 160, 60), number)
    for number in range(5):
        picture(folder / "few" / f"{number}.png", (200, 60, 160), number + 50)
        shutil.copy(folder / "few" / f"{number}.png", folder / "few" / f"{number}_again.png")
    # The same scene once more, saved anew: another file, nearly the same picture.
    from PIL import Image

    for copy in (folder / "few").glob("*_again.png"):
        with Image.open(copy) as image:
            image.point(lambda value: min(value + 3, 255)).save(copy)
    code, said, _ = run("teach", folder, "--model", small, "--out", tmp_path / "m.tflite", "--json")
    assert code == 0
    warned = " ".join(json.loads(said)["warnings"])
    assert "look the same as taught ones" in warned
    for copy in (folder / "few").glob("*_again.png"):
        copy.unlink()
    said = run("teach", folder, "--model", small, "--out", tmp_path / "m.tflite", "--json", "--force")[1]
    warned = " ".join(json.loads(said)["warnings"])
    assert (
        "unbalanced: many has 24 pictures, few has 5" in warned and "few pictures, more would help: few (5)" in warned
    )
    assert "brightness" not in warned


@pytest.mark.slow
def test_classes_that_differ_in_brightness_only(run: Run, data: Path, small: Path, tmp_path: Path) -> None:
    from PIL import Image

    for number, photo in enumerate(sorted((data / "imagenet-dev").glob("*.jpg"))[:12]):
        with Image.open(photo) as image:
            scene = np.array(image.convert("RGB").resize((160, 120)), np.float32)
        scene = (scene - scene.mean()) * 0.3
        name, light = ("day", 170) if number % 2 else ("night", 60)
        place = tmp_path / "p" / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(scene + light, 0, 255).astype(np.uint8)).save(place)
    code, said, _ = run("teach", tmp_path / "p", "--model", small, "--out", tmp_path / "m.tflite", "--json")
    assert code == 0
    assert "day and night differ in brightness only" in " ".join(json.loads(said)["warnings"])


@pytest.mark.slow
def test_other_classes_in_other_light(run: Run, pets: Path, tmp_path: Path) -> None:
    from PIL import Image

    for path in pets.rglob("*.jpg"):
        with Image.open(path) as image:
            lit = image.point(lambda value, light=0.4 if path.parent.name == "bird" else 1.5: min(value * light, 255))
        lit.save(path)
    code, said, _ = run("teach", pets, "--out", tmp_path / "m.tflite", "--json")
    assert code == 0 and "brightness" not in said


@pytest.mark.slow
def test_pictures_from_a_pattern_and_a_folder(run: Run, small: Path, pets: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "m.tflite", tmp_path / "kept"
    arguments = ("--class", "left", "--class", "right", "--model", small, "--out", out)
    code, _, notes = run("teach", kept, "--camera", "test:320x240@30", "--shots", 2, "--countdown", 0, *arguments)
    assert code == 0, notes
    assert len(list((kept / "left").iterdir())) == len(list((kept / "right").iterdir())) == 2
    # More pictures join those that are there; a folder gives each of its own once.
    code, _, notes = run("teach", kept, "--camera", pets, "--shots", 3, *arguments, "--force")
    assert code == 0, notes
    assert len(list((kept / "left").iterdir())) == len(list((kept / "right").iterdir())) == 5
    again = ("--shots", 6, *arguments, "--force")
    code, _, notes = run("teach", tmp_path / "short", "--camera", pets / "bird", *again)
    assert code == 4 and "ended before there was a picture of right" in notes
    assert len(list((tmp_path / "short" / "left").iterdir())) == 6
    assert run("teach", kept, "--camera", "test")[0] == 2
    assert run("teach", kept, "--class", "a")[0] == 2
    code, _, notes = run("teach", kept, "--camera", "test", "--class", "../a", "--class", "b")
    assert code == 2 and "a name that can be a folder's" in notes


@pytest.mark.slow
def test_a_model_that_is_there_is_taught_over_on_purpose_only(
    run: Run, small: Path, pets: Path, tmp_path: Path
) -> None:
    """Off a terminal `--force` says it, on one it is asked; the older one can be had back."""
    out = tmp_path / "m.tflite"
    arguments = ["teach", pets, "--model", small, "--out", out, "--no-augment"]
    assert run(*arguments)[0] == 0
    first = out.read_bytes()
    code, said, notes = run(*arguments)
    assert (code, said) == (2, "") and "is there already" in notes and "--force" in notes
    assert "12 pictures seen" not in notes and out.read_bytes() == first

    command = [sys.executable, "-m", "edge_mnv2", *map(str, arguments), "--seed", "1"]
    for answer, code in (("n\n", 130), ("\n", 130), ("y\n", 0)):
        ours, theirs = pty.openpty()
        child = subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL, env=_environment())
        os.close(theirs)
        drawn = ""
        while "The older one is kept" not in drawn:
            drawn += os.read(ours, 4096).decode()
        os.write(ours, answer.encode())
        with contextlib.suppress(OSError):
            while os.read(ours, 4096):
                pass
        assert child.wait(60) == code
        os.close(ours)
        assert (out.read_bytes() == first) is (code != 0)
    assert run(*arguments, "--seed", "2", "--force")[0] == 0
    assert run("models", "use", f"{out}@1")[0] == 0 and out.read_bytes() == first
    # A model that is extended is named on purpose.
    assert run("teach", pets, "--add", out)[0] == 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


@pytest.mark.slow
def test_interrupted_pictures_are_kept(small: Path, tmp_path: Path) -> None:
    kept, out = tmp_path / "kept", tmp_path / "m.tflite"
    arguments = ["teach", kept, "--camera", "test:320x240@30", "--class", "a", "--class", "b", "--shots", "500"]
    command = [sys.executable, "-m", "edge_mnv2", *arguments, "--model", small, "--countdown", "0", "--out", out]
    child = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True, env=_environment())
    deadline = time.monotonic() + 60
    while len(list(kept.glob("a/shot_*.jpg"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    taken = len(list(kept.glob("a/*")))
    assert f"stopped: {taken} pictures are in {kept}" in said and "Traceback" not in said
    assert not list(kept.rglob("*.part")) and not out.exists()


@pytest.mark.slow
def test_a_key_starts_each_class(small: Path, tmp_path: Path) -> None:
    kept, out = tmp_path / "kept", tmp_path / "m.tflite"
    arguments = ["teach", kept, "--camera", "test:320x240@30", "--class", "a", "--class", "b", "--shots", "1"]
    command = [sys.executable, "-m", "edge_mnv2", *arguments, "--model", small, "--out", out]
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [str(part) for part in command],
        stdin=theirs,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    os.close(theirs)
    assert child.stderr is not None
    for name in ("a", "b"):
        while f"{name}: show it" not in child.stderr.readline():
            assert child.poll() is None
        assert not (kept / name).exists()
        # Only what was typed before the question is no answer.
        os.write(ours, b"\n")
    assert child.wait(timeout=60) == 0
    os.close(ours)
    assert len(list(kept.rglob("*.jpg"))) == 2 and out.exists()


@pytest.mark.slow
def test_a_backbone_that_cannot_tell_the_unknown_says_so(run: Run, data: Path, tmp_path: Path) -> None:
    folder = kinds(data, tmp_path / "two", only=("bird", "food"))
    model = data / "models" / "mobilenet_v2_1.0_224_inat_bird_quant.tflite"
    code, said, _ = run("teach", folder, "--model", model, "--out", tmp_path / "m.tflite", "--json")
    assert code == 0 and "'unknown' is weak" in " ".join(json.loads(said)["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m.labels.txt", "m.yaml", "m.json", "m.tflite"])
def test_a_lesson_that_cannot_be_written_changes_nothing(run: Run, small: Path, tmp_path: Path, name: str) -> None:
    """An older lesson's files stay as they are, whichever of the new ones cannot be written."""
    folder, out = tmp_path / "p", tmp_path / "out" / "m.tflite"
    out.parent.mkdir()
    for label, colour in (("one", (200, 40, 40)), ("two", (40, 40, 200))):
        for number in range(3):
            picture(folder / label / f"{number}.png", colour, number)
    assert run("teach", folder, "--model", small, "--out", out)[0] == 0
    shutil.move(str(folder / "two"), str(folder / "three"))
    (out.parent / name).unlink()
    (out.parent / name).mkdir()
    (out.parent / name / "in the way").touch()
    before = {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()}
    report = ("--report", out.parent / "r.html")
    code, _, said = run("teach", folder, "--model", small, "--out", out, *report, "--force")
    assert code == 2 and name in said
    assert {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()} == before


def test_an_older_twin_for_the_accelerator_goes(run: Run, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    for label, colour in (("one", (200, 40, 40)), ("two", (40, 40, 200))):
        picture(folder / label / "0.png", colour, 0)
    twin = tmp_path / "m_edgetpu.tflite"
    twin.write_bytes(b"of another lesson")
    assert run("teach", folder, "--model", small, "--out", tmp_path / "m.tflite")[0] == 0
    assert not twin.exists()


def test_what_is_wrong_is_said_before_a_picture_is_taken(run: Run, small: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    table = tmp_path / "table"
    table.mkdir()
    (table / "labels.csv").write_text("file,label\n")
    good = ["--camera", "test:64x48@30", "--class", "a", "--class", "b", "--shots", "1", "--countdown", "0"]
    out = ["--out", tmp_path / "m.tflite"]
    for arguments, word in [
        (["teach", kept, *good[:2], "--class", "a", "--class", "unknown", *out], "unknown"),
        (["teach", kept, *good[:2], "--class", "a", "--class", "background", *out], "background"),
        (["teach", kept, *good[:2], "--class", "a ", "--class", "b", *out], "class name"),
        (["teach", kept, *good[:2], "--class", "a", *out], "one class only"),
        (["teach", kept, *good, "--out", tmp_path / "missing" / "m.tflite"], "missing"),
        (["teach", kept, *good, *out, "--report", tmp_path / "missing" / "r.html"], "--report"),
        (["teach", kept, *good, *out, "--report", tmp_path / "m.json"], "--report"),
        (["teach", kept, *good, *out, "--holdout", "2"], "--holdout"),
        (["teach", kept, *good, *out, "--head", "foo"], "--head"),
        (["teach", kept, *good, *out, "--countdown", "nan"], "--countdown"),
        (["teach", kept, *good, *out, "--task", "regression"], "--class"),
        (["teach", table, *good, *out], "labels.csv"),
        (["teach", kept, *good, *out, "--unit", "\udce9"], "--unit"),
        (["teach", kept, *good, "--out", tmp_path / "\udce9.tflite"], "UTF-8"),
    ]:
        code, said, notes = run(*arguments, "--model", small)
        assert (code, said) == (2, "") and word in notes, (arguments, notes)
    assert not kept.exists()


def test_files_of_something_else_are_not_replaced(run: Run, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    for label, colour in (("one", (200, 40, 40)), ("two", (40, 40, 200))):
        picture(folder / label / "0.png", colour, 0)
    (tmp_path / "package.json").write_text("{}")
    code, _, said = run("teach", folder, "--model", small, "--out", tmp_path / "package.tflite")
    assert code == 2 and "package.json is there" in said
    own = tmp_path / "own.tflite"
    shutil.copy(small, own)
    code, _, said = run("teach", folder, "--model", own, "--out", own)
    assert code == 2 and "backbone itself" in said and own.read_bytes() == small.read_bytes()


def test_extending_keeps_to_what_was_taught(run: Run, small: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "p", tmp_path / "m.tflite"
    for label, colour in (("one", (200, 40, 40)), ("two", (40, 40, 200))):
        for number in range(2):
            picture(folder / label / f"{number}.png", colour, number)
    assert run("teach", folder, "--model", small, "--out", out, "--no-unknown")[0] == 0
    more = tmp_path / "more"
    picture(more / "three" / "0.png", (40, 200, 40), 9)
    code, said, _ = run("teach", more, "--add", out, "--out", tmp_path / "n.tflite", "--json")
    assert code == 0 and [one["label"] for one in json.loads(said)["classes"]] == ["one", "two", "three"]
    assert (tmp_path / "n.labels.txt").read_text().split() == ["one", "two", "three"]
    code, _, notes = run("teach", more, "--add", out, "--resize", "stretch")
    assert code == 2 and "--resize stretch" in notes
    # The same picture under another name.
    (more / "four").mkdir()
    shutil.copy(folder / "one" / "0.png", more / "four" / "x.png")
    code, _, notes = run("teach", more, "--add", out)
    assert code == 2 and "'four'" in notes and "'one'" in notes


@pytest.mark.slow
def test_a_value_is_not_extended_with_class_folders(run: Run, small: Path, tmp_path: Path) -> None:
    values, out = tmp_path / "v", tmp_path / "v.tflite"
    for number in range(6):
        picture(values / f"{number * 10}.png", (number * 40, 40, 40), number)
    assert run("teach", values, "--task", "regression", "--model", small, "--out", out)[0] == 0
    before = out.read_bytes()
    picture(tmp_path / "c" / "one" / "0008_a.png", (200, 40, 40), 0)
    code, _, notes = run("teach", tmp_path / "c", "--add", out)
    assert code == 2 and "is a regression" in notes and out.read_bytes() == before


@pytest.mark.parametrize("names", [["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"], ["1.png", "2.png"]])
def test_pictures_without_a_difference(run: Run, tmp_path: Path, names: list[str]) -> None:
    """A capped lens: nothing can be learned, and nothing breaks."""
    from PIL import Image

    folder = tmp_path / "black"
    folder.mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (64 + number, 48)).save(folder / name)
    out = tmp_path / "m.tflite"
    code, said, notes = run("teach", folder, "--task", "regression", "--out", out, "--json")
    assert code == 0 and "Warning" not in notes, notes
    json.loads(said, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_table_with_classes_and_values_says_which_are_taught(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / f"{number}.png", (90, 90, 90), number)
    (tmp_path / "labels.csv").write_text("file,label,value\n0.png,a,1\n1.png,b,2\n")
    said = "labels.csv has classes and values: the values are taught"
    assert [said in note for note in read_lesson(tmp_path).notes] == [True]
    assert read_lesson(tmp_path, "classification").classes == ("a", "b")
    assert not read_lesson(tmp_path, "regression").notes


@pytest.mark.parametrize(
    ("name", "value"), [("12,5", 12.5), ("1e2", 100.0), ("-3.5_a", -3.5), ("7 mm", 7.0), ("2024-01-03_9", None)]
)
def test_how_a_value_is_read_from_a_name(tmp_path: Path, name: str, value: Optional[float]) -> None:
    for stem in (name, "0"):
        picture(tmp_path / f"{stem}.png", (40, 40, 40), len(stem))
    if value is None:
        with pytest.raises(UsageError, match="does not begin with its value"):
            read_lesson(tmp_path, "regression")
    else:
        assert {one.value for one in read_lesson(tmp_path, "regression").examples} == {0.0, value}


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_named(run: Run, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    for label, colour in (("one", (200, 40, 40)), ("two", (40, 40, 200))):
        picture(folder / label / "0.png", colour, 0)
    os.mkfifo(folder / "one" / "pipe.jpg")
    (folder / "two" / "link.jpg").symlink_to("/dev/full")
    code, _, notes = run("teach", folder, "--model", small, "--out", tmp_path / "m.tflite")
    assert code == 8 and notes.count("is not a regular file") == 2
