"""Stands for Google's `edgetpu_compiler`, which is no free software and runs on x86-64 only.

Takes its options, reads a real model, writes a model whose supported operators are one custom operator, and prints the
report of version 16 word for word. `standin(FOLDER)` makes an executable of it. `STANDIN_COMPILER` in the environment
makes it misbehave: fail, silent, nothing, empty.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from edge_mnv2.tflite import graph
from edge_mnv2.tflite.edgetpu_limits import operator_problem
from edge_mnv2.tflite.ir import Graph, Operator

VERSION = "16.0.384591198"


def standin(folder: Path) -> Path:
    """The stand-in as an executable named like the compiler."""
    target = folder / "edgetpu_compiler"
    root = Path(__file__).parents[1]
    target.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m {__name__} "$@"\n')
    target.chmod(0o755)
    return target


def size(count: float) -> str:
    """As the compiler prints it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024 or unit == "MiB":
            return f"{count:.2f}{unit}"
        count /= 1024
    raise AssertionError


def compiled(model: Graph) -> tuple[Graph, int]:
    """`model` with everything up to the first unsupported operator melted into one, and how many those are."""
    operators = model.operators
    count = next((place for place, one in enumerate(operators) if operator_problem(one) is not None), len(operators))
    if count:
        melted = Operator(
            "CUSTOM", list(model.inputs), list(operators[count - 1].outputs), custom_code="edgetpu-custom-op"
        )
        model.main.operators = [melted, *operators[count:]]
        model.main.drop_unused()
    return model, count


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("-s", action="store_true")
    options.add_argument("-o", default=".")
    options.add_argument("-m", type=int)
    options.add_argument("model", type=Path)
    given = options.parse_args()
    mode = os.environ.get("STANDIN_COMPILER", "")
    if mode == "silent":
        sys.exit(1)
    print(f"Edge TPU Compiler version {VERSION}")
    print("Started a compilation timeout timer of 180 seconds.")
    model = graph.read(given.model.read_bytes())
    if mode == "fail" or model.inputs[0].dtype == "float32":
        print(f"ERROR: Invalid model: {given.model}\nModel not quantized")
        sys.exit(1)
    if mode == "nothing":
        sys.exit(0)
    kinds = Counter((operator.name, operator_problem(operator)) for operator in model.operators)
    total = len(model.operators)
    melted, mapped = (model, 0) if mode == "empty" else compiled(model)
    out = Path(given.o) / f"{given.model.stem}_edgetpu.tflite"
    out.write_bytes(graph.write(melted))
    weights = given.model.stat().st_size
    print("\nModel compiled successfully in 1379 ms.\n")
    print(f"Input model: {given.model}\nInput size: {size(weights)}")
    print(f"Output model: {out}\nOutput size: {size(out.stat().st_size)}")
    print(f"On-chip memory used for caching model parameters: {size(weights * 0.9)}")
    print(f"On-chip memory remaining for caching model parameters: {size(8e6 - weights)}")
    print("Off-chip memory used for streaming uncached model parameters: 0.00B")
    print(f"Number of Edge TPU subgraphs: {int(mapped > 0)}\nTotal number of operations: {total}")
    print(f"Operation log: {out.with_suffix('.log')}\n")
    if mapped < total:
        print(
            "Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the "
            "model will instead run on the CPU, which is slower. If possible, consider updating your model to use only "
            "operations supported by the Edge TPU. For details, visit g.co/coral/model-reqs."
        )
        print(f"Number of operations that will run on Edge TPU: {mapped}")
        print(f"Number of operations that will run on CPU: {total - mapped}")
    if given.s:
        print("\nOperator                       Count      Status\n")
        for (name, problem), count in kinds.items():
            status = "Mapped to Edge TPU" if problem is None else "Operation is working on an unsupported data type"
            print(f"{name:<30} {count:<10} {status}")
    print("Compilation child process completed within timeout period.\nCompilation succeeded!")


if __name__ == "__main__":
    main()
