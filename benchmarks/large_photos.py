"""Large photos: do reduced and full decoding give the same answers, and what do they cost?

    python benchmarks/large_photos.py PHOTOS [--enlarge 4] [--count 500] [--model NAME|PATH]

Each JPEG of the folder PHOTOS is enlarged (bicubic) and written at quality 90, then decoded whole and as `classify`
does it, and classified both ways; and as it was. Besides, one photo of 4000x3000 and one of 640x480 are decoded in new
processes: CPU time, and the memory that the large one takes at its peak above the small one. Of two figures the first
is whole decoding, the second that of `classify`.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from edge_mnv2.board.cpus import processor
from edge_mnv2.camera.still import read_still
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.zoo.resolve import resolve

COST = """
import sys, time
from edge_mnv2.board.cpus import processor
from edge_mnv2.camera.still import read_still
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
side = int(sys.argv[3]) or None
read_still(sys.argv[1], side)
before, began = peak(), time.process_time()
read_still(sys.argv[2], side)
print(time.process_time() - began, peak() - before)
"""


def cost(small: Path, large: Path, side: int) -> tuple[float, float]:
    """(ms of CPU, MB above the small photo) of decoding the large one, the least of five processes."""
    rows = []
    for _ in range(5):
        command = [sys.executable, "-c", COST, str(small), str(large), str(side)]
        rows.append([float(word) for word in subprocess.run(command, capture_output=True, check=True).stdout.split()])
    return round(1000 * min(row[0] for row in rows), 1), round(min(row[1] for row in rows), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--enlarge", type=int, default=4)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    options = parser.parse_args()
    files = sorted(options.photos.glob("*.jpg"))
    files = files[:: max(1, len(files) // options.count)][: options.count]
    same, smaller, same_smaller, seconds, originals = 0, 0, 0, [0.0, 0.0], [0, 0]
    with tempfile.TemporaryDirectory() as folder, Classifier.open(resolve(options.model).path) as classifier:
        path, small, large = (Path(folder, name) for name in ("enlarged.jpg", "small.jpg", "large.jpg"))
        for photo in files:
            image = Image.open(photo).convert("RGB")
            size = image.width * options.enlarge, image.height * options.enlarge
            image.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
            answers, shapes = [], []
            for which, side in enumerate((None, classifier.least_side)):
                began = time.process_time()
                pixels = read_still(path, side)
                seconds[which] += time.process_time() - began
                answers.append(np.argmax(classifier.scores(pixels)))
                shapes.append(pixels.shape)
            original = np.argmax(classifier.scores(np.asarray(image)))
            originals = [count + int(answer == original) for count, answer in zip(originals, answers)]
            agree, reduced = answers[0] == answers[1], shapes[0] != shapes[1]
            same, smaller, same_smaller = same + agree, smaller + reduced, same_smaller + (agree and reduced)
        image = Image.open(io.BytesIO(files[0].read_bytes())).convert("RGB")
        image.resize((640, 480)).save(small)
        image.resize((4000, 3000), Image.Resampling.BICUBIC).save(large, quality=92)
        costs = [cost(small, large, side) for side in (0, classifier.least_side)]
    print(
        json.dumps(
            {
                "processor": processor().name,
                "photos": len(files),
                "enlarge": options.enlarge,
                "same_top1": round(same / len(files), 4),
                "decoded_smaller": smaller,
                "same_top1_of_these": round(same_smaller / smaller, 4) if smaller else None,
                "same_top1_as_not_enlarged": [round(count / len(files), 4) for count in originals],
                "cpu_ms_a_photo": [round(1000 * part / len(files), 1) for part in seconds],
                "12_megapixels": {"cpu_ms": [one[0] for one in costs], "mb_above_640x480": [one[1] for one in costs]},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
