"""What CSI cameras do, through the real picamera2 on libcamera's virtual cameras, inside the virtual machine.

    RIGS/v4l2/run -t 1200 -w FOLDER -- '. /rigs/v4l2/csi/enter; PYTHONPATH="$PYTHONPATH:/work:/rigs/v4l2/examples" \\
        python tests/rigs/csi_job.py [CHECK...]'

`test_v4l2.py` makes FOLDER, with a `picture.jpg`, and starts it. Camera 0 shows the picture, which never changes;
camera 1 shows bars that move.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
from v4l2_job import STARTS_S, Run, run_checks

from edge_mnv2.camera import csi
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.errors import SourceError

LIMIT_S = 15
"""For an end, in this emulated machine, beside whatever else its host does."""
PICTURE, BARS = "csi:0", "csi:1"
FROZEN = Path(tempfile.mkdtemp()) / "frozen"
os.environ["RIG_CSI_FROZEN"] = str(FROZEN)


def free(camera: str) -> bool:
    """A new reader gets a frame."""
    with open_source(camera) as source:
        return source.read() is not None


def check_listed() -> str:
    command = [sys.executable, "-m", "edge_mnv2", "devices", "cameras", "--json"]
    cameras = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["cameras"]
    listed = [(camera["source"], camera["number"], camera["name"]) for camera in cameras]
    assert [row[:2] for row in listed] == [("csi", 0), ("csi:1", 1)], cameras
    assert "picture" in listed[0][2] and "bars" in listed[1][2], listed
    table = subprocess.run(command[:-1], capture_output=True, text=True, check=True).stdout
    assert "csi:1" in table and "virtual bars" in table, table
    return str(listed)


def check_classifies() -> str:
    run = Run("--camera", BARS, "--max-frames", "5")
    summary = run.summary(STARTS_S)
    assert run.process.returncode == 0 and summary["frames"] == 5 and summary["ended"] == "max_frames", summary
    assert summary["source"].startswith("csi:1 (virtual bars)"), summary
    assert free(BARS)
    return f"{summary['source']}: {next(line for _, line in run.lines if '640x480' in line)}"


def check_first_camera() -> str:
    run = Run("--camera", "--max-frames", "3")
    summary = run.summary(STARTS_S)
    assert summary["source"].startswith("csi:0"), run.said()
    return str(summary["source"])


def check_colours_and_place() -> str:
    wanted = cv2.imread("picture.jpg")[..., ::-1].astype(int)
    with open_source(PICTURE) as source:
        frame = source.read()
        assert frame is not None and frame.image.shape == (480, 640, 3)
    difference = float(np.abs(frame.image.astype(int) - wanted).mean())
    swapped = float(np.abs(frame.image[..., ::-1].astype(int) - wanted).mean())
    assert difference < 12 < swapped, (difference, swapped)
    return f"mean difference {difference:.1f} (red and blue swapped: {swapped:.1f})"


def check_granted_format_is_converted() -> str:
    wanted = cv2.imread("picture.jpg")[..., ::-1].astype(int)
    before, csi.FORMAT = csi.FORMAT, "YUV420"
    try:
        with open_source(PICTURE) as source:
            frame = source.read()
            assert frame is not None and source.granted is not None
            difference = float(np.abs(frame.image.astype(int) - wanted).mean())
            assert source.granted.format == "NV12" and difference < 12, (source.granted, difference)
            return f"asked YUV420, granted {source.granted.format}, mean difference {difference:.1f}"
    finally:
        csi.FORMAT = before


def check_turned() -> str:
    with open_source(PICTURE) as source:
        upright = source.read()
    with open_source(PICTURE, CameraSettings(rotate=90)) as source:
        turned = source.read()
    assert upright is not None and turned is not None and turned.image.shape == (640, 480, 3)
    difference = float(np.abs(np.rot90(upright.image, -1).astype(int) - turned.image).mean())
    assert difference < 3, difference
    return f"90 degrees, mean difference {difference:.1f}"


def check_two_cameras() -> str:
    first, second = Run("--camera", BARS), Run("--camera", PICTURE)
    first.wait_for_results()
    second.wait_for_results()
    summaries = second.end(LIMIT_S), first.end(LIMIT_S)
    assert free(BARS) and free(PICTURE)
    return " and ".join(summary["source"] for summary in summaries)


def check_busy() -> str:
    """In one process: libcamera's virtual cameras, unlike real ones, have no lock against other processes."""
    with open_source(BARS) as first:
        assert first.read() is not None
        try:
            open_source(BARS).open()
        except SourceError as error:
            said = str(error)
        else:
            raise AssertionError("it was opened twice")
        assert "in use" in said, said
        assert first.read() is not None
    assert free(BARS)
    return said


def check_wrong_number() -> str:
    run = Run("--camera", "csi:7")
    run.summary(STARTS_S)
    said = run.said()
    assert run.process.returncode == 4 and "no CSI camera csi:7" in said and "Traceback" not in said, said
    return run.lines[-1][1]


def check_frozen() -> str:
    FROZEN.unlink(missing_ok=True)
    run = Run("--camera", BARS)
    run.wait_for_results()
    FROZEN.touch()
    stopped = time.monotonic()
    noticed = run.wait_for("has given no frame", 30) - stopped
    time.sleep(2)
    before = run.results
    time.sleep(4)
    assert run.results == before, "results went on without frames"
    FROZEN.unlink()
    run.wait_for("is back", 90)
    run.wait_for_results(2, 60)
    FROZEN.touch()
    time.sleep(5)
    took = run.end(LIMIT_S)["ended_after"]
    FROZEN.unlink()
    assert noticed < 6 and free(BARS), noticed
    return f"noticed after {noticed:.1f} s; SIGTERM while frozen {took:.2f} s"


def check_still_picture() -> str:
    run = Run("--camera", PICTURE)
    run.wait_for_results()
    run.wait_for("same picture", 60)
    time.sleep(1)
    before = run.results
    time.sleep(6)
    assert run.results == before, "a picture that stands still was classified"
    return f"SIGTERM while stalled {run.end(LIMIT_S)['ended_after']:.2f} s"


def check_closed_and_opened_again() -> str:
    source = open_source(BARS)
    for _ in range(4):
        source.open()
        assert source.read() is not None
        source.close()
    threads = threading.active_count()
    for _ in range(4):
        with open_source(BARS) as again:
            assert again.read() is not None
    assert threading.active_count() <= threads + 1, threading.enumerate()
    return f"eight times, {threading.active_count()} threads"


def check_term_while_opening() -> str:
    ends = []
    for wait_s in (1.0, 3.0, 5.0):
        run = Run("--camera", BARS)
        time.sleep(wait_s)
        began = time.monotonic()
        run.process.send_signal(signal.SIGTERM)
        run.process.wait(60)
        ends.append(time.monotonic() - began)
        assert "Traceback" not in run.said(), run.said()
    assert free(BARS)
    return "ended after " + ", ".join(f"{took:.1f} s" for took in ends)


def check_term_while_streaming() -> str:
    run = Run("--camera", BARS)
    run.wait_for_results()
    took = run.end(LIMIT_S)["ended_after"]
    assert free(BARS)
    return f"ended after {took:.2f} s"


if __name__ == "__main__":
    every = {name[6:]: check for name, check in globals().items() if name.startswith("check_")}
    sys.exit(run_checks(sys.argv[1:], every, lambda: FROZEN.unlink(missing_ok=True)))
