"""What a camera does to a run, tried inside the virtual machine with cameras.

    RIGS/v4l2/run -t 1200 -w FOLDER -- 'PYTHONPATH=/work:/rigs/v4l2/examples python tests/rigs/v4l2_job.py [CHECK...]'

`test_v4l2.py` makes FOLDER (the package, this file, `photo.jpg`) and starts it. Each check prints one line; the exit
code is the number of those that failed. The machine is emulated and slow: pictures are small and rates low.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import vivid

from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.camera.v4l2 import holders

PHOTO = Path("photo.jpg").resolve()
FEEDER = next(Path(folder, "../feeder.py") for folder in sys.path if Path(folder, "../feeder.py").exists())
MODEL = ["--model", str(next(Path().glob("small*.tflite")))] if list(Path().glob("small*.tflite")) else []
STARTS_S = 150
"""How long a run may need in this slow machine until it has its first result."""


class Run:
    """`edge-mnv2 run` with its log lines and stderr as they come."""

    def __init__(self, *options: str) -> None:
        self.log = Path(tempfile.mkdtemp()) / "log.jsonl"
        command = [sys.executable, "-m", "edge_mnv2", "run", *MODEL, "--log", str(self.log), "--json", *options]
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(command, stdout=self._out, stderr=subprocess.PIPE, text=True)
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line.rstrip()))

    def summary(self, limit_s: float) -> dict:
        """What it wrote to stdout, once it has ended."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"it does not end:\n{self.said()}") from None
        self._reader.join(5)
        self._out.seek(0)
        text = self._out.read()
        return json.loads(text) if text.strip() else {}

    @property
    def results(self) -> int:
        return self.log.read_text().count("\n") if self.log.exists() else 0

    def wait_for_results(self, more: int = 3, limit_s: float = STARTS_S) -> float:
        """The time at which so many more results were there."""
        wanted, until = self.results + more, time.monotonic() + limit_s
        while self.results < wanted:
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, f"{self.results} of {wanted} results:\n{self.said()}"
            time.sleep(0.02)
        return time.monotonic()

    def wait_for(self, pattern: str, limit_s: float = 60) -> float:
        """The time of the first line of stderr that matches."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            for at, line in list(self.lines):
                if re.search(pattern, line):
                    return at
            time.sleep(0.02)
        raise AssertionError(f"nothing like '{pattern}':\n{self.said()}")

    def cpu_share(self, seconds: float = 5) -> float:
        """The share of one core that the process uses now."""

        def ticks() -> int:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        before = ticks()
        time.sleep(seconds)
        return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds

    def end(self, limit_s: float = 5) -> dict:
        """SIGTERM; the summary, which has to come within `limit_s` seconds."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        summary = self.summary(60)
        took = time.monotonic() - began
        assert took < limit_s, f"SIGTERM took {took:.1f} s"
        assert self.process.returncode == 0, f"exit code {self.process.returncode}:\n{self.said()}"
        assert summary["ended"] == "signal", summary
        return {**summary, "ended_after": took}

    def said(self) -> str:
        return "\n".join(line for _, line in self.lines[-30:])


@contextlib.contextmanager
def feeding(device: str, *pictures: Path, fourcc: str = "MJPG", fps: float = 10) -> Iterator[subprocess.Popen]:
    """Pictures into a loopback device, as if a camera filmed them."""
    command = [sys.executable, str(FEEDER), device, *map(str, pictures), "--format", fourcc, "--fps", str(fps)]
    feeder = subprocess.Popen([*command, "--size", "640x480"], stderr=subprocess.PIPE, text=True)
    try:
        assert feeder.stderr is not None and feeder.stderr.readline() == "feeding\n"
        yield feeder
    finally:
        feeder.kill()
        feeder.wait()


def moving_pictures(count: int = 8) -> list[Path]:
    """Pictures that differ, so that nothing stands still."""
    folder = Path(tempfile.mkdtemp())
    for number in range(count):
        picture = np.full((480, 640, 3), 40, np.uint8)
        picture[:, number * 80 : number * 80 + 80] = (200, 120, number * 30)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return sorted(folder.iterdir())


def free(device: str) -> bool:
    """Nobody has the device open, and a new reader gets a frame."""
    if holders(device):
        return False
    with open_source(device, CameraSettings(width=320, height=180, fps=10)) as source:
        return source.read() is not None


CAMERA = ["--size", "320x180", "--fps", "10"]


def check_classifies() -> str:
    [device] = vivid.load()
    run = Run("--camera", *CAMERA, "--max-frames", "5")
    summary = run.summary(STARTS_S)
    assert run.process.returncode == 0 and summary["frames"] == 5 and summary["ended"] == "max_frames", summary
    assert summary["source"].startswith(device)
    at = run.wait_for(r"(?i)/dev/video\d+.*320x180.*10 fps", 1)
    assert at and free(device)
    return f"granted: {next(line for _, line in run.lines if '320x180' in line)}"


def check_unplug() -> str:
    [device] = vivid.load()
    run = Run("--camera", device, *CAMERA)
    run.wait_for_results()
    vivid.unplug()
    pulled = time.monotonic()
    noticed = run.wait_for("gone away|no frame|not plugged in", 20) - pulled
    time.sleep(2)
    before = run.results
    share = run.cpu_share()
    assert run.results == before, "results went on without a camera"
    vivid.replug()
    back = time.monotonic()
    run.wait_for("is back", 30)
    resumed = run.wait_for_results(1, 30) - back
    run.wait_for_results(2, 60)
    summary = run.end()
    assert summary["reconnects"] == 1, summary
    assert noticed < 2 and share < 0.25 and free(vivid.wait_for_nodes(1)[0]), (noticed, share)
    return f"noticed after {noticed:.2f} s, CPU {share:.0%}, first result {resumed:.2f} s after the replug"


def check_other_index() -> str:
    [device] = vivid.load()
    run = Run("--camera", device, *CAMERA)
    run.wait_for_results()
    blocker = os.open(device, os.O_RDWR)
    vivid.unplug()
    run.wait_for("gone away|no frame", 20)
    vivid.replug()
    run.wait_for("is back", 30)
    run.wait_for_results(2, 60)
    [moved] = vivid.wait_for_nodes(1)
    summary = run.end()
    os.close(blocker)
    assert summary["reconnects"] == 1, summary
    assert moved != device, "the camera came back in its old place: nothing was tried"
    return f"{device} came back as {moved}"


def check_term_while_unplugged() -> str:
    [device] = vivid.load()
    run = Run("--camera", device, *CAMERA)
    run.wait_for_results()
    vivid.unplug()
    run.wait_for("gone away|no frame", 20)
    time.sleep(2)
    took = run.end()["ended_after"]
    vivid.replug()
    [device] = vivid.wait_for_nodes(1)
    assert free(device)
    return f"ended after {took:.2f} s"


def check_term_while_streaming() -> str:
    [device] = vivid.load()
    run = Run("--camera", device, *CAMERA)
    run.wait_for_results()
    took = run.end()["ended_after"]
    assert free(device)
    return f"ended after {took:.2f} s"


def check_busy() -> str:
    [device] = vivid.load()
    first = Run("--camera", device, *CAMERA)
    first.wait_for_results()
    second = Run("--camera", device, *CAMERA)
    second.summary(STARTS_S)
    said = second.said()
    assert second.process.returncode == 4 and f"pid {first.process.pid}" in said, said
    first.wait_for_results()
    first.end()
    return next(line for _, line in second.lines if "in use" in line)


def check_no_camera() -> str:
    run = Run("--camera")
    run.summary(STARTS_S)
    assert run.process.returncode == 4 and "no camera" in run.said(), run.said()
    return run.lines[-1][1]


def check_frozen_feed() -> str:
    device = vivid.load_loopback()
    with feeding(device, *moving_pictures()) as feeder:
        run = Run("--camera", device, "--fps", "10")
        run.wait_for_results()
        feeder.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        noticed = run.wait_for("has given no frame|gone away", 20) - stopped
        time.sleep(1)
        before = run.results
        time.sleep(8)
        assert run.results == before, "old frames were classified"
        state = [line for at, line in run.lines if at > stopped + noticed][-1]
        assert "source stalled" in state, state
        feeder.send_signal(signal.SIGCONT)
        run.wait_for("is back", 60)
        run.wait_for_results(2, 60)
        feeder.send_signal(signal.SIGSTOP)
        time.sleep(5)
        summary = run.end()
        feeder.send_signal(signal.SIGCONT)
        assert summary["reconnects"] == 1, summary
        assert noticed < 4, noticed
        with open_source(device) as source:
            assert source.read() is not None
    return (
        f"noticed after {noticed:.2f} s; status: {state.strip()}; SIGTERM while frozen {summary['ended_after']:.2f} s"
    )


def check_still_picture() -> str:
    device = vivid.load_loopback()
    with feeding(device, PHOTO) as feeder:
        run = Run("--camera", device, "--fps", "10")
        run.wait_for_results()
        run.wait_for("same picture", 60)
        time.sleep(1)
        before = run.results
        time.sleep(7)
        assert run.results == before, "a picture that stands still was classified"
        state = run.lines[-1][1]
        assert "source stalled" in state, state
        summary = run.end()
        assert feeder.poll() is None and summary["reconnects"] == 0, summary
    return f"status: {state.strip()}"


def check_give_up() -> str:
    [device] = vivid.load()
    run = Run("--camera", device, *CAMERA, "--give-up", "4")
    run.wait_for_results()
    vivid.unplug()
    summary = run.summary(60)
    assert run.process.returncode == 4 and summary["ended"] == "source_lost", (run.process.returncode, summary)
    vivid.replug()
    return run.lines[-1][1]


def check_colours() -> str:
    device = vivid.load_loopback()
    red = Path(tempfile.mkdtemp()) / "red.png"
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[..., 2] = 255
    cv2.imwrite(str(red), picture)
    seen = {}
    for fourcc in ("MJPG", "YUYV"):
        with feeding(device, red, fourcc=fourcc), open_source(device, CameraSettings(format=fourcc)) as source:
            frame = source.read()
            assert frame is not None and source.granted is not None and source.granted.format == fourcc, source.granted
            seen[fourcc] = frame.image.mean(axis=(0, 1)).round()
            assert np.abs(seen[fourcc] - (255, 0, 0)).max() <= 8, seen
    return str({name: mean.tolist() for name, mean in seen.items()})


def check_same_scores() -> str:
    from edge_mnv2.runtime.classifier import Classifier
    from edge_mnv2.zoo.resolve import resolve

    device = vivid.load_loopback()
    with Classifier.open(resolve("mobilenet_v2_1.0_224_int8").path) as classifier:

        def scores(source: object) -> np.ndarray:
            with source as opened:  # type: ignore[attr-defined]
                frame = opened.read()
            return np.array(classifier.scores(frame.region, frame.order))

        wanted = scores(open_source(str(PHOTO)))
        seen = {}
        for fourcc in ("MJPG", "YUYV"):
            with feeding(device, PHOTO, fourcc=fourcc):
                found = scores(open_source(device, CameraSettings(format=fourcc)))
            seen[fourcc] = float(np.abs(found - wanted).max())
            assert found.argmax() == wanted.argmax() and seen[fourcc] <= 0.02, seen
    return f"largest differences {seen}"


def check_smaller_decode() -> str:
    device = vivid.load_loopback()
    red = Path(tempfile.mkdtemp()) / "red.png"
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[..., 2] = 255
    picture[:, :320, 1] = 255
    cv2.imwrite(str(red), picture)
    shapes = {}
    for least_side in (None, 256, 240, 100):
        with feeding(device, red), open_source(device, CameraSettings(format="MJPG", least_side=least_side)) as source:
            for _ in range(3):
                frame = source.read()
                assert frame is not None and source.granted is not None
            height, width = frame.pixels.shape[:2]
            shapes[least_side] = (width, height)
            assert (source.granted.width, source.granted.height) == (640, 480), source.granted
            left, right = (
                frame.image[:, part].mean(axis=(0, 1)) for part in (slice(0, width // 3), slice(-width // 3, None))
            )
            assert np.abs(left - (255, 255, 0)).max() <= 8 and np.abs(right - (255, 0, 0)).max() <= 8, (left, right)
    assert shapes == {None: (640, 480), 256: (640, 480), 240: (320, 240), 100: (160, 120)}, shapes
    return str(shapes)


def check_driver_time() -> str:
    [device] = vivid.load()
    with open_source(device, CameraSettings(width=320, height=180, fps=10)) as source:
        ages = []
        for _ in range(20):
            frame = source.read()
            assert frame is not None
            ages.append((time.monotonic_ns() - frame.captured_at) / 1e6)
    assert all(0 <= age < 2000 for age in ages), ages
    return f"age of a frame when it was read, median {sorted(ages)[10]:.1f} ms"


def run_checks(names: list[str], checks: dict[str, Callable[[], str]], after: Callable[[], None]) -> int:
    """Run the checks called `names`, else all; how many failed. `after` clears up behind each."""
    failed = 0
    for name in names or checks:
        began = time.monotonic()
        try:
            print(f"ok      {name}: {checks[name]()} [{time.monotonic() - began:.0f} s]", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED  {name}: {traceback.format_exc()}", flush=True)
        # The machine is thrown away, and nothing else runs in it.
        subprocess.run(["pkill", "-9", "-f", "edge_mnv2 run"], check=False)
        after()
    return failed


def unload() -> None:
    for module in ("vivid", "v4l2loopback"):
        for _ in range(20):
            if subprocess.run(["rmmod", module], capture_output=True, check=False).returncode == 0:
                break
            if not Path(f"/sys/module/{module}").exists():
                break
            time.sleep(0.2)


if __name__ == "__main__":
    every = {name[6:]: check for name, check in globals().items() if name.startswith("check_")}
    sys.exit(run_checks(sys.argv[1:], every, unload))
