"""Where the start of `run` goes: CPU milliseconds to the first label, by package.

    python benchmarks/start_up.py [--rounds 10] [--model NAME|PATH]

Each round is a new process of `run --no-web --source test --max-frames 1`, whose imports are timed: what a module takes
itself, without those that it imports; "dataclasses" is the part of it that makes the methods of dataclasses. A figure
is the least of the rounds. "not imports" is all else: the interpreter's own start, looking for files, options, the
board's profile, the model's sha256, loading it, two inferences, a frame. Byte code has to be there (an installed
package has it; `python -m compileall edge_mnv2` makes it).

"floor" is what nobody can do without, in turn with the rest: a program that imports numpy, OpenCV and LiteRT, opens the
same model, resizes one picture and runs the model twice; without command line, options, settings, checks and results.
"wall_ms" are milliseconds from the start of a process to its end, "peak_mb" its largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from edge_mnv2.board.cpus import processor
from edge_mnv2.zoo.resolve import resolve

TIMED = """
import importlib._bootstrap as bootstrap, json, os, sys, time
open_imports, own = [], {}
load = bootstrap._load_unlocked
def timed(spec):
    began = time.process_time()
    open_imports.append(0.0)
    try:
        return load(spec)
    finally:
        took = time.process_time() - began
        own[spec.name] = took - open_imports.pop()
        if open_imports:
            open_imports[-1] += took
bootstrap._load_unlocked = timed
import dataclasses
make, spent = dataclasses._process_class, []
def made(*words, **names):
    began = time.process_time()
    try:
        return make(*words, **names)
    finally:
        spent.append(time.process_time() - began)
dataclasses._process_class = made
place, leave = sys.argv[1], os._exit
def ended(code=0):
    with open(place, "w") as file:
        json.dump({"cpu": time.process_time(), "own": own, "dataclasses": sum(spent)}, file)
    leave(code)
os._exit = ended
from edge_mnv2.__main__ import main
sys.argv = ["edge-mnv2", *sys.argv[2:]]
try:
    main()
finally:
    ended()
"""

FLOOR = """
import json, sys, time
import cv2, numpy
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[2], num_threads=1)
interpreter.allocate_tensors()
given = interpreter.get_input_details()[0]
pixels = cv2.resize(numpy.zeros((480, 640, 3), numpy.uint8), tuple(map(int, given["shape"][2:0:-1])))
for _ in range(2):
    interpreter.set_tensor(given["index"], pixels.astype(given["dtype"])[None])
    interpreter.invoke()
interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax()
with open(sys.argv[1], "w") as file:
    json.dump({"cpu": time.process_time()}, file)
"""


def timed(program: str, place: Path, *words: str) -> dict[str, Any]:
    """What `program` leaves in `place`, with the seconds and megabytes of its process."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", program, str(place), *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"it ended with {process.returncode}")
    wall = time.perf_counter() - began
    return {**json.loads(place.read_text()), "wall": wall, "peak": usage.ru_maxrss * 1024 / 1e6}


def least(rounds: list[dict[str, Any]]) -> dict[str, float]:
    best = {key: min(one[key] for one in rounds) for key in ("cpu", "wall", "peak")}
    return {
        "cpu_ms": round(1e3 * best["cpu"], 1),
        "wall_ms": round(1e3 * best["wall"], 1),
        "peak_mb": round(best["peak"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    options = parser.parse_args()
    rounds, floor = [], []
    words = ["-q", "run", "--no-web", "--source", "test", "--max-frames", "1", "--model", options.model]
    model = str(resolve(options.model).path)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "times.json")
        for _ in range(options.rounds):
            rounds.append(timed(TIMED, place, *words))
            floor.append(timed(FLOOR, place, model))
    packages: dict[str, float] = defaultdict(float)
    for name in rounds[0]["own"]:
        top = name.split(".")[0]
        own = min(one["own"].get(name, 1.0) for one in rounds)
        packages["standard library" if top in sys.stdlib_module_names else top] += 1000 * own
    total = 1000 * min(one["cpu"] for one in rounds)
    packages["not imports"] = total - sum(packages.values())
    ordered = sorted(packages.items(), key=lambda item: -item[1])
    classes = 1000 * min(one["dataclasses"] for one in rounds)
    document: dict[str, Any] = {"processor": processor().name, **least(rounds), "floor": least(floor)}
    document.update(modules=len(rounds[0]["own"]), dataclasses=round(classes, 1))
    print(json.dumps({**document, "by_package": {name: round(value, 1) for name, value in ordered}}, indent=2))


if __name__ == "__main__":
    main()
