"""A Python of another machine: runs `-c CODE` with the facts of that machine in place, and makes environments quickly.

Called as `python fake_python.py FACTS.json ARGUMENTS...`; `ARGUMENTS` are those that install.sh gives a Python.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import runpy
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

facts = json.loads(Path(sys.argv[1]).read_text())
arguments = sys.argv[2:]


def pretend() -> None:
    sys.version_info = tuple(facts["version"])  # type: ignore[assignment]
    sys.maxsize = 2 ** (facts["bits"] - 1) - 1
    platform.python_implementation = lambda: facts["implementation"]
    os.confstr = lambda name: f"glibc {facts['glibc']}" if facts["glibc"] else None  # type: ignore[assignment]
    system = facts["system"]  # package -> version
    importlib.util.find_spec = lambda name, package=None: name if name in system else None  # type: ignore

    def version(name: str) -> str:
        if name not in system:
            raise metadata.PackageNotFoundError(name)
        return str(system[name])

    metadata.version = version
    module = types.ModuleType("cv2")
    module.__version__ = system.get("cv2")  # type: ignore[attr-defined]
    sys.modules["cv2"] = module if "cv2" in system else None  # type: ignore[assignment]
    if not facts["venv"]:
        sys.modules["ensurepip"] = None  # type: ignore[assignment]


if "-c" in arguments:
    code = arguments[arguments.index("-c") + 1]
    if facts["version"]:
        pretend()
    exec(compile(code, "<probe>", "exec"), {"__name__": "__main__"})
elif arguments[:2] == ["-m", "venv"]:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", *arguments[2:]], check=True)
    site = next(Path(arguments[-1]).glob("lib/python3*/site-packages"))
    (site / "pip_of_the_tests.pth").write_text(facts["pip"] + "\n")
    (site / "pip/_internal/__pycache__").mkdir(parents=True)
elif script := next((each for each in arguments if each.endswith(".py")), None):
    sys.argv = arguments[arguments.index(script) :]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
else:
    raise SystemExit(f"not expected: {arguments}")
