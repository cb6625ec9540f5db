"""A source may be closed at any time from another thread: no crash, no hang, nothing reported that was not so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

# In a process of its own: what goes wrong here ends the process.
PROGRAM = """
import random, sys, threading, time
from edge_mnv2.camera.open import open_source

spec, rounds = sys.argv[1], int(sys.argv[2])
chance = random.Random(0)
for _ in range(rounds):
    source = open_source(spec, hurry=True)
    source.open()
    failed = []

    def read():
        try:
            while source.read() is not None:
                pass
        except Exception as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(chance.uniform(0, 0.02))
    source.close()
    source.close()
    reader.join(10)
    assert not reader.is_alive(), "still reading"
    assert not failed, failed
    assert not source.errors, source.errors
"""


def clip(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (1280, 720))
    noise = np.random.default_rng(0)
    for _ in range(40):
        writer.write(noise.integers(0, 255, (720, 1280, 3), np.uint8))
    writer.release()
    return path


def closed_while_read(spec: object, rounds: int = 30) -> None:
    command = [sys.executable, "-c", PROGRAM, str(spec), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bigbuckbunny.mp4", "Megamind.avi", "bikes.mp4"])
def test_clips(name: str, data: Path) -> None:
    closed_while_read(data / "video" / name)


@pytest.mark.slow
def test_other_sources(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.jpg"), np.zeros((480, 640, 3), np.uint8))
    closed_while_read(clip(tmp_path / "noise.avi"))
    closed_while_read(tmp_path / "pictures")
    closed_while_read("test")


@pytest.mark.slow
def test_a_run_that_ends_inside_a_clip_is_whole(tmp_path: Path) -> None:
    path = clip(tmp_path / "noise.avi")
    for frames in (1, 2, 5):
        command = [sys.executable, "-m", "edge_mnv2", "-q", "run", "--source", str(path), "--every-frame", "--loop"]
        command += ["--max-frames", str(frames), "--delegate", "none"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
