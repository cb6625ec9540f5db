"""How close `run --every-frame` comes to what decode, resize and invoke alone allow, on the same clip and model.

    python benchmarks/frame_loop.py CLIP [--model NAME|PATH] [--rounds 7]

Two settings, each in fresh processes, a bare measurement before and after every run so that a drift of the machine
hits both alike; the figure is the median of the rounds' ratios.

- one core (`taskset -c 0`): the bound is 1 / (decode + resize + invoke);
- two cores, one interpreter thread: the bound is 1 / max(decode, resize + invoke), as capture has a thread of its own.

`resize` is crop, resize and the colour conversion at the model's size. Every stage of the bare loop is timed over the
whole clip, so the bound holds the clip's own mix of easy and hard frames.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from process import answer, on_cores

BARE = """
import json, sys, time
import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

clip, model = sys.argv[1:]
interpreter = Interpreter(model_path=model, num_threads=1)
interpreter.allocate_tensors()
given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
height, width = given["shape"][1:3]
for _ in range(10):
    interpreter.invoke()
capture = cv2.VideoCapture(clip)
decode, resize, invoke = [], [], []
while True:
    a = time.perf_counter()
    ok, frame = capture.read()
    if not ok:
        break
    b = time.perf_counter()
    rows, columns = frame.shape[:2]
    side = round(min(rows, columns) * 224 / 256)
    top, left = (rows - side) // 2, (columns - side) // 2
    small = cv2.resize(frame[top:top + side, left:left + side], (width, height))
    pixels = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[np.newaxis]
    c = time.perf_counter()
    interpreter.set_tensor(given["index"], pixels)
    interpreter.invoke()
    interpreter.get_tensor(gives["index"])
    d = time.perf_counter()
    decode.append(b - a); resize.append(c - b); invoke.append(d - c)
print(json.dumps({"decode": sum(decode) / len(decode), "resize": sum(resize) / len(resize),
                  "invoke": sum(invoke) / len(invoke)}))
"""


def bound_s(bare: dict, cores: int) -> float:
    """The least seconds a frame takes, by the bare stages."""
    work = bare["resize"] + bare["invoke"]
    return bare["decode"] + work if cores == 1 else max(bare["decode"], work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    from edge_mnv2.zoo.resolve import resolve

    path = str(resolve(options.model).path)
    usable = sorted(os.sched_getaffinity(0))
    report = {"clip": Path(options.clip).name, "model": options.model}
    for name, cores in (("one core", {usable[0]}), ("two cores", set(usable[:2]))):
        if len(cores) < 2 and name == "two cores":
            continue
        bare_command = [sys.executable, "-c", BARE, options.clip, path]
        run = [sys.executable, "-m", "edge_mnv2", "run", "--source", options.clip, "--every-frame", "--json"]
        run += ["--model", options.model, "--threads", "1", "--delegate", "none"]
        rounds = []
        before = answer(on_cores(cores, bare_command))
        for _ in range(options.rounds):
            ours = answer(on_cores(cores, run))
            after = answer(on_cores(cores, bare_command))
            bound = (bound_s(before, len(cores)) + bound_s(after, len(cores))) / 2
            stages = {stage: round(1e3 * (before[stage] + after[stage]) / 2, 3) for stage in before}
            rounds.append({"bare_ms": stages, "bound_fps": round(1 / bound, 1), "fps": ours["fps"]})
            rounds[-1]["ratio"] = round(ours["fps"] * bound, 3)
            print(
                f"{name}: bound {1 / bound:6.1f} FPS, run {ours['fps']:6.1f}, {ours['fps'] * bound:.3f}",
                file=sys.stderr,
            )
            before = after
        report[name] = {
            "ratio": round(statistics.median(one["ratio"] for one in rounds), 3),
            "rounds": rounds,
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
