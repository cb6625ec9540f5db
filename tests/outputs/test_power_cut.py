"""The plug is pulled at any moment.

For more: `EDGE_MNV2_POWER_CUTS=50 python -m pytest tests/outputs/test_power_cut.py`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.outputs.test_record import played

CUTS = int(os.environ.get("EDGE_MNV2_POWER_CUTS", "4"))


class Board:
    """Runs that log, record and save pictures in one folder, each cut short by SIGKILL."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.torn = folder, 0
        self.command = [
            *[sys.executable, "-m", "edge_mnv2", "run", "--model", model, "--source", "test:320x240@30"],
            *["--appear", "0.3", "--consecutive", "1", "--log", folder / "log.jsonl", "--log-rotate", "20kB"],
            *["--record", folder / "out.mp4", "--snapshots", folder / "pictures"],
        ]

    def cut_after(self, seconds: float, *, of_video: bool = False) -> datetime:
        """Start a run and kill it so many seconds later, or later than its video has begun; when it was started."""
        began = datetime.now(timezone.utc)
        process = subprocess.Popen(
            [*map(str, self.command)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before, give_up = self.videos(), time.monotonic() + 60
        while of_video and not self.videos() - before:
            assert time.monotonic() < give_up and process.poll() is None, "no video was begun"
            time.sleep(0.02)
        time.sleep(seconds)
        assert process.poll() is None, "the run ended by itself"
        process.send_signal(signal.SIGKILL)
        process.wait()
        return began

    def logged(self, since: datetime) -> list[dict[str, Any]]:
        """The whole lines of the run that began at `since`; at most its last one may be torn."""
        found = []
        files = sorted(self.folder.glob("log.jsonl*"), key=lambda one: one.stat().st_mtime_ns)
        for file in files:
            for line in file.read_text().splitlines():
                try:
                    one = json.loads(line)
                except ValueError:
                    continue
                if datetime.fromisoformat(one["t"].replace("Z", "+00:00")) >= since:
                    found.append(one)
        return sorted(found, key=lambda one: one["frame"])

    def torn_lines(self) -> list[str]:
        torn = []
        for file in self.folder.glob("log.jsonl*"):
            for line in file.read_text().splitlines():
                try:
                    json.loads(line)
                except ValueError:
                    torn.append(line)
        return torn

    def videos(self) -> set[Path]:
        return set(self.folder.glob("out*.mp4"))


def seconds_between(first: dict[str, Any], last: dict[str, Any]) -> float:
    return float(last["uptime_s"] - first["uptime_s"])


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * CUTS)
def test_power_cuts_at_any_moment(stub: Path, tmp_path: Path) -> None:
    """The log is whole but for its last line, the video plays to the last second, pictures are whole, and the next
    start works: beside a slow or busy machine too, since the log itself says how far the run had come."""
    chance = random.Random(time.time_ns())
    board = Board(tmp_path, stub)
    seen, recorded = 0, 0
    for cut in range(CUTS):
        before = board.videos()
        # Whatever the machine is busy with, and wherever chance has the others, one cut is in the middle of a video.
        began = board.cut_after(chance.uniform(0.3, 4.0), of_video=cut == 0)
        lines = board.logged(began)
        assert [one["frame"] for one in lines] == sorted({one["frame"] for one in lines}), "no line twice"
        made = board.videos() - before
        assert len(made) <= 1, "a recording never takes the place of an earlier one"
        length = seconds_between(lines[0], lines[-1]) if lines else 0.0
        times = played(made.pop()) if made else [0.0]
        assert times[-1] >= length - 1.2, f"logged {length:.1f} s, recorded {times[-1]:.1f} s"
        seen += len(lines)
        recorded += bool(times[-1])
        for picture in (tmp_path / "pictures").glob("[!.]*"):
            with Image.open(picture) as opened:
                opened.load()
    assert len(board.torn_lines()) <= CUTS
    assert seen and recorded, "the machine was too slow for a single result"

    done = subprocess.run(
        [*map(str, board.command), "--max-frames", "5"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    left = [one.name for one in [*tmp_path.iterdir(), *(tmp_path / "pictures").iterdir()] if one.name.startswith(".")]
    assert left == [], "nothing half written is left after the next start"
