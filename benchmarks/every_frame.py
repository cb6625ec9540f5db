"""`run --every-frame` beside a bare decode + resize + invoke loop on the same clip and model, in one run.

    python benchmarks/every_frame.py CLIP [--model NAME|PATH] [--rounds 5] [--threads 1]

Each round runs both as fresh processes, one after the other, so that a drift of the machine hits both alike; the
figure is the median of the rounds' ratios. The bare loop is what a hand-made script does at its best: OpenCV decodes,
one LINEAR resize, one colour conversion at the model's size, invoke, argmax; nothing is timed but frames a second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from process import answer

BARE = """
import json, sys, time
import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

clip, model, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
interpreter = Interpreter(model_path=model, num_threads=threads)
interpreter.allocate_tensors()
given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
height, width = given["shape"][1:3]
for _ in range(3):
    interpreter.invoke()
capture = cv2.VideoCapture(clip)
frames, began = 0, time.perf_counter()
while True:
    ok, frame = capture.read()
    if not ok:
        break
    rows, columns = frame.shape[:2]
    side = round(min(rows, columns) * 224 / 256)
    top, left = (rows - side) // 2, (columns - side) // 2
    small = cv2.resize(frame[top:top + side, left:left + side], (width, height))
    interpreter.set_tensor(given["index"], cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[np.newaxis])
    interpreter.invoke()
    int(interpreter.get_tensor(gives["index"]).argmax())
    frames += 1
print(json.dumps({"frames": frames, "fps": frames / (time.perf_counter() - began)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    from edge_mnv2.zoo.resolve import resolve

    path = str(resolve(options.model).path)
    rounds = []
    for _ in range(options.rounds):
        bare = answer([sys.executable, "-c", BARE, options.clip, path, str(options.threads)])
        run = [sys.executable, "-m", "edge_mnv2", "run", "--source", options.clip, "--every-frame", "--json"]
        ours = answer([*run, "--model", options.model, "--threads", str(options.threads)])
        rounds.append({"bare": bare["fps"], "run": ours["fps"], "ratio": ours["fps"] / bare["fps"]})
        print(
            f"bare {bare['fps']:7.1f} FPS   run {ours['fps']:7.1f} FPS   ratio {rounds[-1]['ratio']:.2f}",
            file=sys.stderr,
        )
    print(
        json.dumps(
            {
                "clip": Path(options.clip).name,
                "model": options.model,
                "threads": options.threads,
                "rounds": rounds,
                "median_ratio": round(statistics.median(one["ratio"] for one in rounds), 3),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
