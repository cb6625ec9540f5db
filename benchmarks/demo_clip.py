"""The clip of `run --source demo`: made of three photos, and measured with the default model.

    python benchmarks/demo_clip.py --make models/demo.mp4     # needs the extra `record`; pip fetches the photos
    python benchmarks/demo_clip.py                            # what a person reads in each second: is it there?

The photos are in the package scikit-image, each CC0 by its photographer: coffee (Rachel Michetti), chelsea (Stefan van
der Walt), camera (Lav Varshney). `models/demo.labels.csv` says what is in the picture, second by second, by hand.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import zipfile
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
PACKAGE = "scikit-image==0.26.0"
WIDTH, HEIGHT, FPS = 640, 360, 25
SHOTS = (
    # photo, seconds, then (centre x, centre y, width) of the view at its beginning and at its end
    ("coffee.png", 3, (300, 200, 600), (310, 200, 430)),
    ("chelsea.png", 4, (225, 140, 451), (232, 132, 330)),
    ("camera.png", 3, (270, 190, 420), (250, 210, 512)),
)


def photos(folder: Path) -> dict[str, np.ndarray]:
    """The photos by name, BGR."""
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return {
            name: cv2.imdecode(np.frombuffer(wheel.read(f"skimage/data/{name}"), np.uint8), cv2.IMREAD_COLOR)
            for name, *_ in SHOTS
        }


def view(photo: np.ndarray, x: float, y: float, width: float) -> np.ndarray:
    """`width` pixels of the photo around (x, y), inside it, as a frame."""
    height = width * HEIGHT / WIDTH
    left = min(max(x - width / 2, 0), photo.shape[1] - width)
    top = min(max(y - height / 2, 0), photo.shape[0] - height)
    matrix = np.array([[width / WIDTH, 0, left], [0, height / HEIGHT, top]])
    return cv2.warpAffine(photo, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def make(target: Path) -> None:
    import av

    with tempfile.TemporaryDirectory() as folder, av.open(str(target), "w") as container:
        pictures = photos(Path(folder))
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "27", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        number = 0
        for name, seconds, begin, end in SHOTS:
            for step in np.linspace(0, 1, seconds * FPS):
                # Slow at both ends, as a hand would move the camera.
                eased = step * step * (3 - 2 * step)
                x, y, width = (a + (b - a) * eased for a, b in zip(begin, end))
                frame = av.VideoFrame.from_ndarray(view(pictures[name], x, y, width), format="bgr24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode())
    print(f"{target}: {target.stat().st_size} bytes")


def measure() -> list[tuple[int, list[str], set[str]]]:
    """(second, what is read in each of its frames, what is there) with the demo source and the default settings."""
    from edge_mnv2 import run

    with open(ROOT / "models/demo.labels.csv", newline="", encoding="utf-8") as handle:
        there = {int(row["second"]): set(row["labels"].split("|")) for row in csv.DictReader(handle)}
    read: dict[int, list[str]] = {second: [] for second in there}
    for result in run(source="demo", every_frame=True):
        shown = result.shown
        read[min(result.frame.index // FPS, max(there))].append(shown[0].label if shown else "")
    return [(second, labels, there[second]) for second, labels in read.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--make", type=Path, metavar="FILE.mp4")
    arguments = parser.parse_args()
    if arguments.make:
        make(arguments.make)
        return
    for second, labels, there in measure():
        last = labels[-1] if labels else ""
        verdict = "nothing recognized" if not last else "there" if last in there else "not there"
        print(f"{second:2} s  {last or '-':30} {verdict}")


if __name__ == "__main__":
    main()
