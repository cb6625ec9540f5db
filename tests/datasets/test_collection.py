"""Collected pictures: what is kept, what goes, and that nothing is lost or half written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from edge_mnv2.datasets.collected_picture import projected
from edge_mnv2.datasets.collection import Answer, Collection, Item, side_by_side
from edge_mnv2.datasets.labelled_pictures import read_collected
from edge_mnv2.errors import UsageError


def look(seed: int) -> np.ndarray:
    return projected(np.random.default_rng(seed).standard_normal(1280))


def added(collection: Collection, number: int, value: float = 0.5, **more: object) -> Item | None:
    jpeg = b"\xff\xd8" + number.to_bytes(4, "big") + bytes(996) + b"\xff\xd9"
    fields = {"t": f"2026-11-29T10:00:{number % 60:02}Z", "why": ["low score"], "top": [], "model": "ab" * 8, **more}
    return collection.add(jpeg, value=value, **fields)  # type: ignore[arg-type]


def test_only_what_repeats_is_interned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 never frees an interned text, and a board collects for months."""
    collection, interned = Collection(tmp_path / "c"), set[str]()
    for number in range(3):
        added(collection, number, top=[{"label": "cup", "index": 3, "score": 0.4}], look=look(number))
    monkeypatch.setattr(sys, "intern", lambda text: interned.add(text) or text)
    assert len(Collection(tmp_path / "c").items()) == 3
    # The standard library's paths intern their parts.
    assert {"cup", "ab" * 8} <= interned and not any(text.startswith("2026") or len(text) > 100 for text in interned)


def test_what_is_added_is_there_again_private_and_whole(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "c")
    item = added(collection, 1, top=[{"label": "cup", "index": 3, "score": 0.4}], look=look(1))
    assert item is not None and added(collection, 1) is None
    again = Collection(tmp_path / "c", create=False).items()
    assert [one.id for one in again] == [item.id] and again[0].top[0]["label"] == "cup"
    assert again[0].look is not None and item.look is not None and np.allclose(again[0].look, item.look, atol=2e-3)
    path = collection.path(item.id)
    assert path is not None and path.read_bytes().startswith(b"\xff\xd8")
    for one in (path, tmp_path / "c" / "index.jsonl"):
        assert one.stat().st_mode & 0o077 == 0
    assert (tmp_path / "c" / "pictures").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "x", "", "ab" * 8 + "/..", "AB" * 8])
def test_only_pictures_have_a_path(tmp_path: Path, name: str) -> None:
    assert Collection(tmp_path).path(name) is None


def test_answers_are_noted_changed_taken_back_and_seen_by_another_process(tmp_path: Path) -> None:
    collection, other = Collection(tmp_path), Collection(tmp_path)
    ids = [item.id for number in range(3) if (item := added(collection, number))]
    assert other.answer([ids[0], ids[1], "0" * 16], Answer("cup")) == ids[:2]
    other.answer(ids[1:2], Answer(None))
    other.answer(ids[2:], Answer(None, bad=True))
    other.answer(ids[:1], None)
    assert [item.answer for item in collection.items()] == [None, Answer(None), Answer(None, True)]


def test_the_quota_goes_by_value_and_keeps_what_was_answered(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    items = [added(collection, number, value=number / 10, quota=5_100) for number in range(5)]
    first = items[0]
    assert first is not None
    collection.answer([first.id], Answer("cup"))
    assert added(collection, 10, value=0.05, quota=5_100) is None
    assert added(collection, 11, value=0.9, quota=5_100) is not None
    values = sorted(item.value for item in collection.items())
    assert values == [0.0, 0.2, 0.3, 0.4, 0.9] and collection.size <= 5_100
    assert len(list((tmp_path / "pictures").iterdir())) == 5


def test_all_can_be_deleted_and_leaves_no_trace(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    item = added(collection, 1)
    assert item is not None
    collection.answer([item.id], Answer("secret name"))
    assert collection.delete() == 1 and collection.items() == []
    assert list((tmp_path / "pictures").iterdir()) == []
    assert (tmp_path / "index.jsonl").read_bytes() == b""
    assert added(collection, 2) is not None and len(Collection(tmp_path).items()) == 1


@pytest.mark.parametrize(
    "rest",
    [b'{"id": "00', b"\x00\x00\x00", b"[1]\n", b'{"id": 5, "t": 1}\n', b'{"id":"0000000000000000","answer":7}\n'],
)
def test_a_torn_or_foreign_line_spoils_nothing(tmp_path: Path, rest: bytes) -> None:
    collection = Collection(tmp_path)
    added(collection, 1)
    with (tmp_path / "index.jsonl").open("ab") as file:
        file.write(rest)
    again = Collection(tmp_path)
    assert len(again.items()) == 1
    added(again, 2)
    assert len(Collection(tmp_path).items()) == 2


def test_pictures_without_a_line_are_removed(tmp_path: Path) -> None:
    Collection(tmp_path)
    (tmp_path / "pictures" / "0123456789abcdef.jpg").write_bytes(b"orphan")
    (tmp_path / "pictures" / ".0123456789abcdef.jpg.x.part").write_bytes(b"torn")
    (tmp_path / "pictures" / "mine.txt").write_bytes(b"somebody's")
    Collection(tmp_path)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["mine.txt"]


def test_folders_that_were_put_together_lose_no_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of two indices one is left, and its answers."""
    for name, numbers in (("a", (1, 2, 3)), ("b", (3, 4))):
        board = Collection(tmp_path / name)
        board.answer([item.id for number in numbers if (item := added(board, number))], Answer(name))
        shutil.copytree(tmp_path / name, tmp_path / "both", dirs_exist_ok=True)
    both = Collection(tmp_path / "both")
    assert sorted(str(item.answer and item.answer.label) for item in both.items()) == ["None", "None", "b", "b"]
    assert {item.why for item in both.items() if item.answer is None} == {("without a record",)}
    assert "2 pictures without a record are taken in, unanswered" in caplog.text
    assert (
        both.answer([item.id for item in both.items()], Answer("cup"))
        and len(Collection(tmp_path / "both").items()) == 4
    )


def test_what_was_deleted_does_not_come_back_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_unlink", "_rewrite"):
        collection = Collection(tmp_path)
        item = added(collection, 1)
        assert item is not None
        collection.answer([item.id], Answer("secret name"))
        with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
            cut.setattr(collection, name, Mock(side_effect=KeyboardInterrupt))
            collection.delete()
        assert Collection(tmp_path).items() == [] and list((tmp_path / "pictures").iterdir()) == []
        assert (tmp_path / "index.jsonl").read_bytes() == b""


@pytest.mark.parametrize("name", [5, ["x"], "", "../evil", ".hidden", "a\x1b[2Jb", "\udcff", "x" * 101])
def test_an_index_of_another_hand_names_no_class_that_the_page_refuses(tmp_path: Path, name: object) -> None:
    collection = Collection(tmp_path)
    item = added(collection, 1)
    assert item is not None
    with (tmp_path / "index.jsonl").open("a") as file:
        file.write(json.dumps({"id": item.id, "answer": {"class": name, "bad": False}}) + "\n")
    assert [one.answer for one in Collection(tmp_path).items()] == [None]


def test_numbers_that_are_none_do_not_reach_the_page(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    item = added(collection, 1)
    assert item is not None
    line = json.loads((tmp_path / "index.jsonl").read_text())
    best = {"label": "cup", "index": 1, "score": 0.5}
    for value in (float("nan"), float("inf"), -float("inf"), 1e300):
        strange = {**line, "value": value, "top": [{**best, "score": value}, 7, {"index": 1}, best]}
        with (tmp_path / "index.jsonl").open("a") as file:
            file.write(json.dumps(strange) + "\n")
        (again,) = Collection(tmp_path).items()
        assert 0 <= again.value <= 1 and again.top[-1] == best
        json.dumps(again.as_dict(), allow_nan=False)


def test_a_long_history_is_cut_down(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    item = added(collection, 1)
    assert item is not None
    for turn in range(150):
        collection.answer([item.id], Answer(f"class {turn}"))
    assert len((tmp_path / "index.jsonl").read_text().splitlines()) < 60
    assert Collection(tmp_path).items()[0].answer == Answer("class 149")


@pytest.mark.slow
def test_killed_at_any_moment_leaves_a_whole_collection(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edge_mnv2.datasets.collection import *\n"
        "c = Collection(Path(sys.argv[1])); n = int(sys.argv[2])\n"
        "while True:\n"
        "    n += 1\n"
        "    c.add(b'\\xff\\xd8' + n.to_bytes(8, 'big') + bytes(2000), t='2026', why=['x'], value=n % 7 / 7, top=[],"
        " model='m', quota=40_000)\n"
        "    c.answer([i.id for i in c.items()[:1]], Answer('a'))\n"
    )
    for turn in range(8):
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(turn * 10**6)])
        time.sleep(0.35 + 0.03 * turn)
        child.send_signal(signal.SIGKILL)
        child.wait()
        collection = Collection(tmp_path)
        files = {path.stem for path in (tmp_path / "pictures").iterdir()}
        assert {item.id for item in collection.items()} == files
        for item in collection.items():
            path = collection.path(item.id)
            assert path is not None and path.stat().st_size == item.bytes


def test_looks_find_what_is_similar(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    base = np.random.default_rng(3).standard_normal(1280)
    near = projected(base + 0.1 * np.random.default_rng(4).standard_normal(1280))
    assert collection.novelty(look(1)) == 1
    added(collection, 1, look=projected(base))
    assert collection.novelty(near) < 0.05 < 0.5 < collection.novelty(look(9))
    added(collection, 2, look=look(9))
    added(collection, 3, look=near)
    groups = side_by_side(collection.items())
    assert [len(group) for group in groups] == [2, 1]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a collection"):
        Collection(tmp_path, create=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        Collection(tmp_path / "file")


def test_answers_of_several_boards_become_one_lesson(tmp_path: Path) -> None:
    boards = [Collection(tmp_path / name) for name in ("a", "b")]
    ids = [
        [item.id for number in numbers if (item := added(board, number))]
        for board, numbers in zip(boards, ((1, 2, 3), (3, 4)))
    ]
    boards[0].answer(ids[0][:1], Answer("cup"))
    boards[0].answer(ids[0][1:2], Answer(None))
    boards[0].answer(ids[0][2:], Answer("mug"))
    boards[1].answer(ids[1][:1], Answer("mug"))
    boards[1].answer(ids[1][1:], Answer(None, bad=True))
    lesson = read_collected([tmp_path / "a", tmp_path / "b"])
    assert lesson.classes == ("cup", "mug") and [example.truth for example in lesson.examples] == [0, 1]
    assert [note.rpartition(": ")[2] for note in lesson.notes] == ["1", "1"] and len(lesson.others) == 1
    assert "teach what is unknown" in lesson.notes[0] and "left out" in lesson.notes[1]
    boards[1].answer(ids[1][:1], Answer("cup"))
    with pytest.raises(UsageError, match=r"is 'mug' in .*a and 'cup' in .*b"):
        read_collected([tmp_path / "a", tmp_path / "b"])
    boards[1].answer(ids[1], None)
    with pytest.raises(UsageError, match="no picture has a class"):
        read_collected([tmp_path / "b"])


def test_a_picture_that_is_named_twice_is_deleted_once(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    ids = [item.id for number in range(2) if (item := added(collection, number))]
    assert collection.delete([ids[0], ids[0], "0" * 16]) == 1
    assert [item.id for item in collection.items()] == ids[1:] and collection.path(ids[0]) is None


def test_an_index_that_was_written_anew_twice_is_known_as_another_file(tmp_path: Path) -> None:
    """File systems give the number of a deleted file to the next one."""
    running, reviewed = Collection(tmp_path), Collection(tmp_path)
    ids = [item.id for number in range(30) if (item := added(running, number))]
    size = (tmp_path / "index.jsonl").stat().st_size
    for identity in ids[:2]:
        reviewed.delete([identity])
    for number in range(1000):
        if (tmp_path / "index.jsonl").stat().st_size > size:
            break
        reviewed.answer(ids[5:25], Answer(f"class {number}"))
    fresh = Collection(tmp_path, create=False)
    assert [(one.id, one.answer) for one in running.items()] == [(one.id, one.answer) for one in fresh.items()]
