"""What the installed runtime makes of a model: does it load, and which operators does XNNPACK take?

The model is loaded in a child process (`python -m edge_mnv2.inspect.delegation FILE`), because a native loader may
die on a file that nobody has seen before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.paths import module_command
from edge_mnv2.signals import name_of

_SECONDS = 120


@dataclass(frozen=True)
class Delegation:
    """`xnnpack`: whether XNNPACK runs at least a part of the graph, None where that could not be found out.

    `operators` are the positions of the operators that it runs, `parts` in how many pieces. `problem` says why the
    model does not load.
    """

    runtime: Optional[str] = None
    xnnpack: Optional[bool] = None
    operators: tuple[int, ...] = ()
    parts: int = 0
    problem: Optional[str] = None


def find(path: Path) -> Delegation:
    """Load `path` in a child process and see."""
    try:
        done = subprocess.run(module_command(__name__, str(path)), capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Delegation(problem=f"the runtime has not loaded it within {_SECONDS} s")
    except OSError as error:
        return Delegation(problem=f"cannot start {sys.executable}: {error.strerror}")
    if done.returncode < 0:
        return Delegation(problem=f"the runtime crashes on it ({name_of(-done.returncode)})")
    try:
        answer = json.loads(done.stdout)
        return Delegation(**{**answer, "operators": tuple(answer.get("operators", ()))})
    except (ValueError, TypeError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return Delegation(problem=f"the runtime could not be asked: {''.join(last) or 'no answer'}")


def taken(details: Sequence[dict]) -> tuple[list[int], int]:
    """Positions of the operators that delegate nodes replace, and how many such nodes there are.

    `details` are the runtime's operators after delegation: the original ones, then the delegate nodes, each with the
    tensors it reads and writes. An operator belongs to a node when the node's outputs can be followed back to it
    without leaving through the node's inputs.
    """
    makers: dict[int, int] = {}
    nodes = []
    for position, entry in enumerate(details):
        if entry["op_name"] == "DELEGATE":
            nodes.append(entry)
        else:
            makers.update((int(tensor), position) for tensor in entry["outputs"])
    inside: set[int] = set()
    for node in nodes:
        border = {int(tensor) for tensor in node["inputs"]}
        pending = [int(tensor) for tensor in node["outputs"]]
        while pending:
            tensor = pending.pop()
            position = makers.get(tensor, -1)
            if tensor in border or position < 0 or position in inside:
                continue
            inside.add(position)
            pending.extend(int(source) for source in details[position]["inputs"] if source >= 0)
    return sorted(inside), len(nodes)


def _answer(path: str) -> dict:
    from edge_mnv2.errors import EdgeMnv2Error
    from edge_mnv2.runtime.interpreter import open_interpreter
    from edge_mnv2.runtime.table import RuntimeMissing

    try:
        with open_interpreter(path) as interpreter:
            positions, parts = taken(interpreter.ops_details())
            return {
                "runtime": interpreter.runtime,
                "xnnpack": interpreter.delegate == "xnnpack",
                "operators": positions,
                "parts": parts,
            }
    except RuntimeMissing as error:
        return {"problem": error.message}
    except EdgeMnv2Error as error:
        return {"xnnpack": False, "problem": error.message.replace(path, "it", 1)}


if __name__ == "__main__":
    json.dump(_answer(sys.argv[1]), sys.stdout)
