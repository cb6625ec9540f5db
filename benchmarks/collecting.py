"""What the field loop costs a run: collecting, 2,000 collected pictures, teaching beside it.

    python -m benchmarks.collecting [--seconds 10] [--rounds 5] [--only collect|memory|teach]

`collect`: frames a second of `run --source bigbuckbunny.mp4 --every-frame --loop` without and with `--collect`, in
turns; the median of the pairwise ratios, and how many pictures were kept. `memory`: resident memory, and the most that
it was, of a run with a page: without a collection, with an empty one, and with one of 2,000 pictures whose list and 200
thumbnails were asked for.
`teach`: 60 answered photographs are taught on the page while the run takes frames as fast as it can, on two cores and
on one; results a second meanwhile over those before, and the largest sum of PSS of the run and the teaching. Reference
photographs and the clip are found through EDGE_MNV2_TEST_DATA.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.field_loop import crop
from benchmarks.process import on_cores
from edge_mnv2.board.cpus import processor
from edge_mnv2.camera.still import read_still
from edge_mnv2.datasets.collection import Answer, Collection

DATA = Path(os.environ.get("EDGE_MNV2_TEST_DATA", ".")).resolve()
FAST = "test:640x480@1000"
KINDS = ("dog", "bird", "food")
_SETTLED_S = 5.0


def command(*options: object) -> list[str]:
    return [sys.executable, "-m", "edge_mnv2", "run", *map(str, options)]


class Page:
    """A run with its page."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self._url = process, url

    def ask(self, path: str, document: Any = None) -> bytes:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"} if data else {})
        with urllib.request.urlopen(request, timeout=60) as reply:
            return bytes(reply.read())

    def frames(self) -> int:
        return int(json.loads(self.ask("api/state"))["frames"])


@contextlib.contextmanager
def page(cores: list[int], *options: object) -> Iterator[Page]:
    process = subprocess.Popen(on_cores(cores, command("--web", 0, *options)), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(found[1] for line in process.stderr if (found := re.search(r"web page: (http\S+)", line)))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        made = Page(process, url)
        while not made.frames():
            time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(20)


def collecting(seconds: float, rounds: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    options = ("--source", DATA / "video" / "bigbuckbunny.mp4", "--every-frame", "--loop")
    ratios = []
    for number in range(rounds):
        rates: dict[bool, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            for collects in (False, True) if number % 2 else (True, False):
                more = ("--collect", Path(folder) / "collected") if collects else ()
                with page(cores, *options, *more) as run:
                    # The network that makes embeddings is opened once.
                    time.sleep(_SETTLED_S)
                    before, began = run.frames(), time.monotonic()
                    time.sleep(seconds)
                    rates[collects] = (run.frames() - before) / (time.monotonic() - began)
            kept = len(Collection(Path(folder) / "collected").items())
        ratios.append(rates[True] / rates[False])
        print(
            f"  {rates[False]:6.1f} FPS alone, {rates[True]:6.1f} collecting ({kept} kept): {ratios[-1]:.3f}",
            flush=True,
        )
    print(f"collecting: median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def filled(folder: Path, number: int) -> Collection:
    """So many crops of photographs, with looks that are not alike."""
    collection, random = Collection(folder), np.random.default_rng(0)
    photos = sorted((DATA / "imagenet-dev").glob("*.jp*g"))
    for place in range(number):
        part = crop(read_still(photos[place % len(photos)]), random)
        jpeg = cv2.imencode(".jpg", part[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        look = random.standard_normal(64).astype(np.float32)
        top = [{"label": f"class {row}", "index": row, "score": 0.2} for row in range(5)]
        look /= np.linalg.norm(look)
        collection.add(jpeg, t="2026-11-29T10:00:00Z", why=["low score"], value=0.5, top=top, model="m", look=look)
    return collection


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident now, and at most until now."""
    text = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(re.findall(rf"{name}:\s+(\d+)", text)[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, most


def memory(seconds: float, number: int = 2000) -> None:
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "collected"
        identities = [item.id for item in filled(folder, number).items()]
        kinds = {"without": (), "empty": ("--collect", Path(name) / "empty"), f"{number}": ("--collect", folder)}
        first = 0.0
        for kind, options in kinds.items():
            with page(cores, "--source", "test:640x480@30", *options) as run:
                for identity in identities[:200] if str(folder) in map(str, options) else ():
                    run.ask("api/collected")
                    run.ask(f"api/collected/{identity}.jpg?small")
                time.sleep(seconds)
                now, most = memory_mb(run.process.pid)
                first = first or now
                print(f"memory, {kind:7} {now:6.1f} MB ({now - first:+5.1f}), at most {most:6.1f} MB", flush=True)


def pss_mb(pid: int) -> float:
    """Of the process and its children."""
    total, children = 0.0, []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            children += (task / "children").read_text().split()
    for one in [pid, *children]:
        with contextlib.suppress(OSError, IndexError):
            total += int(re.findall(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.M)[0])
    return total * 1024 / 1e6


def answered(folder: Path) -> None:
    collection, left = Collection(folder), dict.fromkeys(KINDS, 20)
    with (DATA / "imagenet-dev" / "groups.csv").open() as table:
        for row in csv.DictReader(table):
            kind = row["group"]
            if left.get(kind, 0):
                left[kind] -= 1
                data = (DATA / "imagenet-dev" / row["file"]).read_bytes()
                item = collection.add(data, t="2026", why=["random"], value=0.5, top=[], model="")
                collection.answer([item.id] if item else [], Answer(kind))


def teaching(cores: list[int], seconds: float, rounds: int) -> None:
    ratios, most, took = [], 0.0, []
    with tempfile.TemporaryDirectory() as name:
        answered(Path(name) / "collected")
        with page(cores, "--source", FAST, "--collect", Path(name) / "collected") as run:
            for _ in range(rounds):
                before, began = run.frames(), time.monotonic()
                time.sleep(seconds)
                alone = (run.frames() - before) / (time.monotonic() - began)
                before, began = run.frames(), time.monotonic()
                run.ask("api/teach", {})
                while (state := json.loads(run.ask("api/workbench"))["teaching"])["state"] == "teaching":
                    most = max(most, pss_mb(run.process.pid))
                    time.sleep(0.1)
                took.append(time.monotonic() - began)
                during = (run.frames() - before) / took[-1]
                assert state["state"] == "taught", state
                ratios.append(during / alone)
                print(f"  {alone:6.1f} FPS alone, {during:6.1f} while teaching {took[-1]:.1f} s", flush=True)
    print(
        f"teaching on {len(cores)} core{'s' if len(cores) > 1 else ''}: median ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), {statistics.median(took):.1f} s, at most {most:.0f} MB in all"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("collect", "memory", "teach"))
    options = parser.parse_args()
    print(processor())
    cores = sorted(os.sched_getaffinity(0))
    if options.only in (None, "collect"):
        collecting(options.seconds, options.rounds)
    if options.only in (None, "memory"):
        memory(options.seconds)
    if options.only in (None, "teach"):
        for some in (cores[:2], cores[:1]):
            teaching(some, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
