"""Log files that are put aside by size and age, and disks with too little room."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.files import Floor
from edge_mnv2.outputs.log_file import LogFile, Rotation, began
from edge_mnv2.outputs.records import CSV_COLUMNS
from edge_mnv2.outputs.sink import Isolated
from edge_mnv2.settings.kinds import Bytes
from tests.outputs.results import NOON, result
from tests.outputs.test_mqtt import until
from tests.stubs import colour_model


@pytest.mark.parametrize(
    ("text", "size", "age"),
    [
        ("10MB", 10_000_000, None),
        ("1.5G", 1_500_000_000, None),
        ("64KiB", 65536, None),
        ("500k", 500_000, None),
        ("1d", None, 86400),
        ("12h", None, 43200),
        ("30min", None, 1800),
        ("10MB,1d", 10_000_000, 86400),
        ("2w, 5MB", 5_000_000, 1209600),
    ],
)
def test_sizes_and_ages(text: str, size: int, age: float) -> None:
    rotation = Rotation.parse(text)
    assert (rotation.most_bytes, rotation.most_s) == (size, age)


@pytest.mark.parametrize(
    "text", ["", "10", "0MB", "1B", "-1MB", "0d", "d", "10 parsecs", "10MB;1d", "nan", "1e3MB", "1m"]
)
def test_neither_size_nor_age(text: str) -> None:
    with pytest.raises(UsageError, match="--log-rotate"):
        Rotation.parse(text)


def lines_of(path: Path) -> list[int]:
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()]


def test_by_size_the_newest_stay_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = LogFile(str(path), rotation=Rotation.parse("2kB", keep=3))
    for index in range(100):
        log.write(result(index))
    log.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log.jsonl", *(f"log.jsonl.{n}" for n in (1, 2, 3))]
    files = [tmp_path / "log.jsonl.3", tmp_path / "log.jsonl.2", tmp_path / "log.jsonl.1", path]
    assert all(0 < file.stat().st_size <= 2000 for file in files)
    frames = [frame for file in files for frame in lines_of(file)]
    assert frames == list(range(frames[0], 100)) and len(frames) > 15


def test_by_age_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for hour in range(5):
        # A run an hour; the file remembers when it was begun.
        log = LogFile(str(path), rotation=Rotation.parse("2h"))
        log.write(result(hour, wall_time=NOON + hour * 3600))
        log.close()
    found = {file.name: [row["frame"] for row in csv.DictReader(file.open(newline=""))] for file in tmp_path.iterdir()}
    assert found == {"log.csv.2": ["0", "1"], "log.csv.1": ["2", "3"], "log.csv": ["4"]}
    assert all(file.read_text().startswith(",".join(CSV_COLUMNS)) for file in tmp_path.iterdir())


def test_fewer_to_keep_than_before_lets_the_rest_go(tmp_path: Path) -> None:
    for number in range(1, 9):
        (tmp_path / f"log.jsonl.{number}").write_text("{}\n")
    (tmp_path / "log.jsonl.old").write_text("somebody's own")
    path = tmp_path / "log.jsonl"
    path.write_text("x" * 5000 + "\n")
    log = LogFile(str(path), rotation=Rotation.parse("2kB", keep=2))
    log.write(result())
    log.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "log.jsonl",
        "log.jsonl.1",
        "log.jsonl.2",
        "log.jsonl.old",
    ]


def test_the_begin_of_a_log_is_its_first_time_stamp() -> None:
    assert began(b'{"t": "2026-11-25T10:00:00.123Z", "x": "2027-01-01T00:00:00Z"}') == 1795600800.0
    assert abs(began(b"no stamp") - time.time()) < 60


def test_a_file_that_was_taken_away_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mnv2.outputs.log_file._LOOK_S", 0.0)
    path = tmp_path / "log.jsonl"
    log = LogFile(str(path))
    log.write(result(0))
    path.rename(tmp_path / "taken")
    log.write(result(1))
    path.unlink()
    log.write(result(2))
    log.close()
    assert lines_of(tmp_path / "taken") == [0] and lines_of(path) == [2]


@pytest.mark.parametrize(("text", "size"), [("1kB", 1000), ("2MiB", 2097152), ("1T", 10**12)])
def test_bytes(text: str, size: int) -> None:
    assert Bytes().parse(text) == size


def test_the_floor_of_this_disk(tmp_path: Path) -> None:
    assert not Floor(tmp_path, 1000).low()
    with pytest.raises(OSError, match="free"):
        Floor(tmp_path, 10**18).check()
    Floor(tmp_path / "not there", 10**18).check()


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of its own in memory."""
    if shutil.which("mount") is None:
        pytest.skip("no mount command here")
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount a file system here")
    try:
        yield folder
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    """What lies over `folder`, though a run may be looking into it just now."""
    subprocess.run(["umount", "-l", folder], check=True)


def test_rotated_logs_make_room_before_the_floor_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mnv2.files._LOOK_S", 0.0)
    with small_disk(tmp_path / "card") as card:
        log = LogFile(str(card / "log.jsonl"), rotation=Rotation.parse("100kB", keep=50), least_free=300_000)
        for index in range(6000):
            log.write(result(index))
        log.close()
        free = os.statvfs(card).f_bavail * os.statvfs(card).f_frsize
        assert free >= 290_000
        assert lines_of(card / "log.jsonl")[-1] == 5999 and len(list(card.iterdir())) > 3


@pytest.mark.slow
def test_a_card_that_fills_and_is_emptied_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "card") as card:
        ballast = card / "ballast"
        sink = Isolated(LogFile(str(card / "log.jsonl")))
        sink.write(result(0))
        until(lambda: (card / "log.jsonl").exists() and lines_of(card / "log.jsonl") == [0])
        with contextlib.suppress(OSError):
            ballast.write_bytes(b"x" * 2_000_000)
        for index in range(1, 400):
            sink.write(result(index))
        until(lambda: sink.errors > 0)
        time.sleep(1.2)
        sink.write(result(400))
        ballast.unlink()
        deadline = time.monotonic() + 60
        index = 400
        while not any("works again" in record.message for record in caplog.records):
            assert time.monotonic() < deadline
            index += 1
            sink.write(result(index))
            time.sleep(0.1)
        sink.close()
        frames = lines_of(card / "log.jsonl")
        assert frames[0] == 0 and frames[-1] == index and frames == sorted(frames)
        assert len(frames) + sink.errors == index + 1
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


@pytest.mark.slow
def test_a_card_that_becomes_read_only_and_writable_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "card") as card:
        sink = Isolated(LogFile(str(card / "log.jsonl"), rotation=Rotation.parse("100kB")))
        sink.write(result(0))
        until(lambda: (card / "log.jsonl").exists() and lines_of(card / "log.jsonl") == [0])
        time.sleep(1.2)
        # A file system with open files cannot be made read-only from outside; one that lies over it can be.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", card], check=True)
        for index in range(1, 10):
            sink.write(result(index))
        until(lambda: sink.errors == 9)
        time.sleep(1.2)
        assert "Read-only" in caplog.text
        unmount(card)
        sink.write(result(10))
        sink.close()
        assert lines_of(card / "log.jsonl") == [0, 10]


@pytest.mark.slow
def test_a_run_survives_a_card_without_room(tmp_path: Path) -> None:
    """Log on a full card: the run ends as asked for, with every frame, and says it once."""
    model = tmp_path / "colours.tflite"
    model.write_bytes(colour_model())
    with small_disk(tmp_path / "card", "64k") as card:
        done = subprocess.run(
            [
                sys.executable, "-m", "edge_mnv2", "run", "--model", model, "--source", "test:64x48@200",
                "--max-frames", "600", "--log", card / "log.jsonl", "--json",
            ],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        summary = json.loads(done.stdout)
        kept = lines_of(card / "log.jsonl")
    assert done.returncode == 8 and summary["frames"] == 600 and summary["ended"] == "max_frames"
    assert summary["write_errors"] == 600 - len(kept) > 0 and kept[0] >= 0
    assert done.stderr.count("cannot be written") == 1 and "Traceback" not in done.stderr


def test_a_sink_that_raises_anything_is_isolated(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        name = "broken plug-in"

        def write(self, one: object) -> None:
            raise KeyError("oops")

        def close(self) -> None:
            raise RuntimeError("again")

    sink = Isolated(Broken())
    for index in range(10):
        sink.write(result(index))
    sink.close()
    assert sink.errors == 11
    assert [record.message for record in caplog.records] == [
        "broken plug-in cannot be written (KeyError: 'oops'): going on without it"
    ]


def test_only_sinks_that_want_pictures_hold_pixels() -> None:
    go = threading.Event()

    class Slow:
        name = "slow"
        wants_pictures = False

        def __init__(self) -> None:
            self.sizes: list[int] = []

        def write(self, one: object) -> None:
            go.wait(20)
            self.sizes.append(one.frame.pixels.nbytes)  # type: ignore[attr-defined]

        def close(self) -> None:
            pass

    plain, pictures = Slow(), Slow()
    pictures.wants_pictures = True
    sinks = [Isolated(plain), Isolated(pictures)]
    for index in range(30):
        for sink in sinks:
            sink.write(result(index))
    go.set()
    for sink in sinks:
        sink.close()
    assert set(plain.sizes) == {0} and len(plain.sizes) == 30
    assert set(pictures.sizes) == {48 * 64 * 3} and 1 < len(pictures.sizes) < 30
    assert sinks[1].skipped == 30 - len(pictures.sizes) and sinks[0].errors == sinks[1].errors == 0


def test_a_lossless_sink_gets_every_picture() -> None:
    class Slow:
        name = "slow"
        wants_pictures = True

        def __init__(self) -> None:
            self.frames: list[int] = []

        def write(self, one: object) -> None:
            time.sleep(0.005)
            self.frames.append(one.frame.index)  # type: ignore[attr-defined]

        def close(self) -> None:
            pass

    slow = Slow()
    sink = Isolated(slow, lossless=True)
    for index in range(40):
        sink.write(result(index))
    sink.close()
    assert slow.frames == list(range(40)) and sink.errors == sink.skipped == 0


@pytest.mark.parametrize("years", [56, -3])
@pytest.mark.parametrize("opened", [NOON - 4e7, NOON, NOON + 4e7], ids=["before", "then", "after"])
def test_a_clock_that_is_set_makes_no_log_old(
    tmp_path: Path, years: int, opened: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An age of two hours is two hours that have passed, whatever the clock says, now or when the file was opened."""
    monkeypatch.setattr("edge_mnv2.outputs.log_file.time.time", lambda: opened)
    path = tmp_path / "log.jsonl"
    log = LogFile(str(path), rotation=Rotation.parse("2h"))
    start = NOON if years < 0 else 100.0
    for minute in range(0, 150, 10):
        jump = years * 365 * 86400 if minute >= 30 else 0
        log.write(result(minute, wall_time=start + minute * 60 + jump, finished_at=minute * 60 * 10**9))
    log.close()
    names = {file.name: len(file.read_text().splitlines()) for file in tmp_path.iterdir()}
    assert names == {"log.jsonl.1": 12, "log.jsonl": 3}


@pytest.mark.parametrize(("first", "then"), [(100.0, NOON), (NOON, 100.0), (NOON + 10**8, NOON)])
def test_a_log_of_a_wrong_clock_is_not_old_at_the_next_start(tmp_path: Path, first: float, then: float) -> None:
    path = tmp_path / "log.jsonl"
    for wall_time in (first, then):
        log = LogFile(str(path), rotation=Rotation.parse("1d"))
        log.write(result(wall_time=wall_time))
        log.close()
    assert [file.name for file in tmp_path.iterdir()] == ["log.jsonl"]
