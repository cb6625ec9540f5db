"""Pictures of what appeared, within their quota."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_mnv2.camera.frame import Frame
from edge_mnv2.errors import UsageError
from edge_mnv2.outputs.records import timestamp
from edge_mnv2.outputs.sink import Isolated
from edge_mnv2.outputs.snapshots import SnapshotSink
from tests.outputs.results import NOON, event, result
from tests.outputs.test_rotation import small_disk
from tests.outputs.web.conftest import serving
from tests.stubs import stub_at


def test_one_picture_for_each_class_that_appears(tmp_path: Path) -> None:
    sink = Isolated(SnapshotSink(str(tmp_path / "new" / "pictures")))
    sink.write(result(0))
    sink.write(result(1, events=(event("appeared", "tabby, tabby cat"), event("appeared", "../e vil/ü"))))
    sink.write(result(2, events=(event("gone"),)))
    sink.close()
    names = sorted(one.name for one in (tmp_path / "new" / "pictures").iterdir())
    assert names == ["2026-11-25T10-00-00.157Z_e-vil-ü_93.jpg", "2026-11-25T10-00-00.157Z_tabby_93.jpg"]
    assert cv2.imread(str(tmp_path / "new" / "pictures" / names[1])).shape == (48, 64, 3)


def test_a_folder_that_is_removed_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "pictures"
    sink = SnapshotSink(str(folder))
    sink.write(result(0, events=(event("appeared", "tabby"),)))
    shutil.rmtree(folder)
    for number in (1, 2):
        sink.write(result(number, events=(event("appeared", f"cup {number}"),)))
    assert len(list(folder.iterdir())) == 2
    assert caplog.text.count("is made anew") == 1


@pytest.mark.parametrize("inside", ["", "pictures"])
def test_nothing_is_put_where_a_disk_was(inside: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    with small_disk(place):
        sink = SnapshotSink(str(place / inside))
        sink.write(result(0, events=(event(),)))
        assert len(list((place / inside).iterdir())) == 1
    with pytest.raises(OSError, match=f"the disk of {place} is not there"):
        sink.write(result(1, events=(event(),)))
    assert list(place.iterdir()) == []


def test_slow_disks_lose_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = SnapshotSink(str(tmp_path))
    save = sink._save
    monkeypatch.setattr(sink, "_save", lambda *given: time.sleep(0.2) or save(*given))
    isolated = Isolated(sink)
    for index in range(200):
        isolated.write(result(index, events=(event("appeared"),) if index in (50, 51, 120) else ()))
    isolated.close()
    assert len(list(tmp_path.iterdir())) == 3 and isolated.skipped == 0


def test_the_oldest_go_and_nobody_elses(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x" * 100_000)
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    size = len(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    for start in (0, 50):
        # The second sink is the next run: it knows what the first has left.
        sink = SnapshotSink(str(tmp_path), quota=int(4.5 * size))
        for index in range(start, start + 10):
            frame = Frame(pixels, "bgr", 0, index)
            sink.write(result(index, frame=frame, events=(event("appeared", frame=index),)))
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept[-1] == "holiday.jpg" and len(kept) == 5
    newest = [timestamp(NOON + index / 30).replace(":", "-") for index in range(56, 60)]
    assert [name.split("_")[0] for name in kept[:4]] == newest


def test_what_a_power_cut_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".2026-11-25T10-00-00.157Z_tabby_93.jpg.abc123.part").write_bytes(b"half")
    (tmp_path / ".mine.part").write_bytes(b"somebody's")
    SnapshotSink(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".mine.part"]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(UsageError, match="--snapshots"):
            SnapshotSink(str(folder))


@pytest.mark.slow
def test_the_page_keeps_a_picture_on_the_board(tmp_path: Path) -> None:
    model = stub_at(tmp_path)
    folder = tmp_path / "pictures"
    with serving(model, "--source", "test", "--web", "0", "--snapshots", folder, "--appear", "1") as served:
        request = urllib.request.Request(
            f"{served.url}api/snapshot", b"{}", {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            saved = json.load(answer)["saved"]
        assert cv2.imread(str(folder / saved)).shape == (480, 640, 3)
        with urllib.request.urlopen(f"{served.url}api/state", timeout=10) as answer:
            assert json.load(answer)["snapshots"] is True


@pytest.mark.parametrize("years", [56, -3])
def test_a_clock_that_is_set_does_not_delete_the_newest(tmp_path: Path, years: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    size = len(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    sink = SnapshotSink(str(tmp_path), quota=int(4.5 * size))
    saved = []
    for index in range(12):
        wall = (NOON if years < 0 else 100.0) + index + (years * 365 * 86400 if index >= 6 else 0)
        frame = Frame(pixels, "bgr", 0, index)
        sink.write(result(index, frame=frame, wall_time=wall, events=(event("appeared", frame=index),)))
        saved.append(timestamp(wall).replace(":", "-"))
        names = sorted(path.name.split("_")[0] for path in tmp_path.iterdir())
        assert names == sorted(saved[-4:]), "the newest four, always"
