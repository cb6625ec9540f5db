"""A run whose card fills, is emptied, becomes read-only and writable again, while log, video and pictures go there."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.outputs.test_rotation import small_disk, unmount


def until(holds: Callable[[], object], what: str, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.05)


def last_frame(log: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(json.loads(log.read_text().splitlines()[-1])["frame"])
    return -1


@pytest.mark.slow
def test_inference_never_stops(stub: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "card", "1m") as card, (tmp_path / "said").open("w+") as said:
        log = card / "log.jsonl"
        command = [
            *[sys.executable, "-m", "edge_mnv2", "run", "--model", stub, "--source", "test:160x120@30", "--json"],
            *["--log", log, "--log-rotate", "50kB", "--log-keep", 1, "--record", card / "out.mp4"],
            *["--snapshots", card / "seen", "--appear", "0.3", "--consecutive", 1],
        ]
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            until(lambda: last_frame(log) >= 0 and (card / "out.mp4").exists(), "everything is written")
            ballast = card / "ballast"
            with contextlib.suppress(OSError):
                ballast.write_bytes(b"x" * 2_000_000)
            until(lambda: "log.jsonl cannot be written" in (tmp_path / "said").read_text(), "the log's card is full")
            full_at = last_frame(log)
            lines = (tmp_path / "said").read_text().count(" FPS")
            until(lambda: (tmp_path / "said").read_text().count(" FPS") > lines + 1, "it says how it is each second")
            assert process.poll() is None
            ballast.unlink()
            until(lambda: last_frame(log) > full_at, "the log goes on")

            subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", card], check=True)
            until(lambda: "Read-only" in (tmp_path / "said").read_text(), "it is read-only")
            assert process.poll() is None
            unmount(card)
            before = last_frame(log)
            until(lambda: last_frame(log) > before, "the log goes on again")
        finally:
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=30)
        summary = json.loads(out)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert process.returncode == 8 and summary["ended"] == "signal"
    assert summary["write_errors"] > 5, "results came all the time, though nothing could be kept"
    assert [line["frame"] for line in lines] == sorted(line["frame"] for line in lines)
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text and text.count("log.jsonl cannot be written") == 2, "each said once"
