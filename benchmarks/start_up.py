"""Where the start of `run` goes: CPU milliseconds to the first label, by package.

    python benchmarks/start_up.py [--rounds 10] [--model NAME|PATH]

Each round is a new process of `run --no-web --source test --max-frames 1`, whose imports are timed: what a module takes
itself, without those that it imports; "dataclasses" is the part of it that makes the methods of dataclasses. A figure
is the least of the rounds. "not imports" is all else: the interpreter's own start, looking for files, options, the
board's profile, the model's sha256, loading it, two inferences, a frame. Byte code has to be there (an installed
package has it; `python -m compileall edge_mnv2` makes it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from edge_mnv2.board.cpus import processor

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model", default="mobilenet_v2_1.0_224_int8")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder, "times.json"))
        command = [sys.executable, "-c", TIMED, place, "-q", "run", "--no-web", "--source", "test", "--max-frames", "1"]
        for _ in range(options.rounds):
            subprocess.run([*command, "--model", options.model], check=True, stdout=subprocess.DEVNULL)
            rounds.append(json.loads(Path(place).read_text()))
    packages: dict[str, float] = defaultdict(float)
    for name in rounds[0]["own"]:
        top = name.split(".")[0]
        least = min(one["own"].get(name, 1.0) for one in rounds)
        packages["standard library" if top in sys.stdlib_module_names else top] += 1000 * least
    total = 1000 * min(one["cpu"] for one in rounds)
    packages["not imports"] = total - sum(packages.values())
    ordered = sorted(packages.items(), key=lambda item: -item[1])
    classes = 1000 * min(one["dataclasses"] for one in rounds)
    document = {"processor": processor().name, "cpu_ms": round(total, 1), "modules": len(rounds[0]["own"])}
    document["dataclasses"] = round(classes, 1)
    print(json.dumps({**document, "by_package": {name: round(value, 1) for name, value in ordered}}, indent=2))


if __name__ == "__main__":
    main()
