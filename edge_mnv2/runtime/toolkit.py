"""The makers' toolkits for accelerators, each in a Python environment of its own: they pin old versions of everything.

A toolkit's Python runs one function of ours, which needs numpy and the toolkit there and nothing of ours but this
package's source. That Python is the one that is asked for, else the environment at `TOOLKITS/NAME` below our cache
folder (`~/.cache/edge-mnv2/toolkits/NAME`), else the Python that runs this.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.errors import AcceleratorError

VARIABLE = "EDGE_MNV2_TOOLKIT_PYTHON"
FOLDER = "toolkits"
_TIMEOUT_S = 3600
_LEAST_FREE = 1 << 20
_PACKAGE = Path(__file__).resolve().parents[1]
_SAFE = """
import sys
sys.path[:] = filter(None, sys.path)
"""
"""Nothing is imported that lies in the current folder: it may be called as a module of the standard library is."""
BOOT = f"""{_SAFE}
import importlib.util as util
spec = util.spec_from_file_location("edge_mnv2", {str(_PACKAGE / "__init__.py")!r},
                                    submodule_search_locations=[{str(_PACKAGE)!r}])
sys.modules["edge_mnv2"] = module = util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
"""Makes this package importable, and nothing that lies beside it: that may be another Python's site-packages."""
_RUN = """
import importlib, json
module, function = sys.argv[1].split(":")
answer = getattr(importlib.import_module(module), function)(json.load(open(sys.argv[2])))
json.dump(answer, open(sys.argv[3], "w"))
"""
_LOOK = f"""{_SAFE}
import importlib.util, json, platform
from importlib import metadata
have = [name for name in sys.argv[1].split(",") if importlib.util.find_spec(name.strip())]
try:
    version = metadata.version(sys.argv[2])
except metadata.PackageNotFoundError:
    version = None
print(json.dumps(dict(python=sys.version_info[:2], machine=platform.machine(), have=have, version=version)))
"""


@dataclass(frozen=True)
class Toolkit:
    """A maker's toolkit: `modules` must be importable, `packages` is what pip calls them, the first has the version.

    `pythons` are the oldest and the newest Python that it supports, `programs` what else must be on PATH (name → how to
    get it).
    """

    name: str
    title: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    pythons: tuple[tuple[int, int], tuple[int, int]]
    machines: tuple[str, ...] = ("x86_64",)
    programs: tuple[tuple[str, str], ...] = ()

    @property
    def home(self) -> Path:
        """Where its environment is looked for."""
        return paths.cache_dir() / FOLDER / self.name

    def install_hint(self) -> str:
        """What a person types who lacks it, with the newest suitable Python on PATH."""
        (major, oldest), (_, newest) = self.pythons
        names = [f"python{major}.{minor}" for minor in range(newest, oldest - 1, -1)]
        python = next((name for name in names if shutil.which(name)), names[0])
        # numpy and setuptools of today are too new for some of what the toolkits import.
        home = shlex.quote(str(self.home))
        return f"{python} -m venv {home} && {home}/bin/pip install {shlex.join(self.packages)}"

    def find(self, asked: Optional[Path] = None) -> tuple[Path, str]:
        """(Python, version of the toolkit). Raises AcceleratorError with the one thing that is missing."""
        machine = platform.machine()
        if machine not in self.machines:
            raise AcceleratorError(
                f"{self.title} exists for {' and '.join(self.machines)} Linux only, and this machine is {machine}",
                hint="run the same command on such a machine and copy the result back",
            )
        python = self._python(asked)
        facts = self._facts(python)
        oldest, newest = self.pythons
        shown, first, last = (".".join(map(str, one)) for one in (facts["python"], oldest, newest))
        if tuple(facts["python"]) < oldest:
            # Our own files do not run there either.
            raise AcceleratorError(f"{python} is Python {shown}, too old", hint=self.install_hint())
        if tuple(facts["python"]) > newest and facts["version"] is None:
            raise AcceleratorError(
                f"{self.title} has no release for Python {shown} ({python})",
                hint=f"it takes {first} to {last}: {self.install_hint()}",
            )
        missing = [name for name in self.modules if name not in facts["have"]]
        if missing:
            raise AcceleratorError(
                f"{self.title} is not installed for {python} ({missing[0]} is missing)",
                hint=f"{self.install_hint()}; or name its Python with --toolkit-python",
            )
        for program, how in self.programs:
            if shutil.which(program) is None:
                raise AcceleratorError(f"{self.title} needs {program}, which is not on PATH", hint=how)
        return python, f"{self.packages[0].partition('=')[0].partition('[')[0]} {facts['version'] or 'unknown'}"

    def run(self, python: Path, function: str, order: dict[str, Any], log: Path) -> dict[str, Any]:
        """What `function` ("module:name" of this package) makes of `order`, in the toolkit's Python.

        Everything that it prints goes into the file `log`. Raises AcceleratorError where it fails, OSError (ENOSPC)
        where there is no space left for what lies between.
        """
        with tempfile.TemporaryDirectory(prefix="edge-mnv2-toolkit-") as folder:
            asked, answer = Path(folder, "order.json"), Path(folder, "answer.json")
            asked.write_text(json.dumps(order), encoding="utf-8")
            command = [str(python), "-c", BOOT + _RUN, function, str(asked), str(answer)]
            try:
                with (
                    log.open("wb") as sink,
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=sink,
                        stderr=subprocess.STDOUT,
                        cwd=folder,
                        env=environment(python),
                        start_new_session=True,
                    ) as process,
                ):
                    try:
                        code = process.wait(_TIMEOUT_S)
                    except BaseException:
                        # With the compilers that it has started.
                        os.killpg(process.pid, signal.SIGKILL)
                        raise
            except subprocess.TimeoutExpired:
                raise AcceleratorError(f"{self.title} has not finished within {_TIMEOUT_S} s") from None
            if code != 0 or not answer.is_file():
                if shutil.disk_usage(log.parent).free < _LEAST_FREE:
                    # Then the log lacks its last words.
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log.parent))
                raise AcceleratorError(f"{self.title} fails: {last_words(log, code)}")
            result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return result

    def _python(self, asked: Optional[Path]) -> Path:
        if asked is None and os.environ.get(VARIABLE):
            asked = Path(os.environ[VARIABLE])
        if asked is None:
            return python_of(self.home) or Path(sys.executable)
        named = python_of(asked)
        if named is None:
            raise AcceleratorError(
                f"--toolkit-python {asked}: no Python there", hint="name an environment's folder, or its bin/python"
            )
        return named

    def _facts(self, python: Path) -> dict[str, Any]:
        command = [str(python), "-c", _LOOK, ",".join(self.modules), self.packages[0].partition("[")[0]]
        try:
            done = subprocess.run(
                command, capture_output=True, errors="replace", env=environment(python), timeout=120, check=False
            )
            facts: dict[str, Any] = {**json.loads(done.stdout)}
        except (ValueError, TypeError):
            said = next(iter((done.stderr or done.stdout).strip().splitlines()[-1:]), "it says nothing")[:300]
            raise AcceleratorError(
                f"{python} is no Python that works ({said})", hint="name an environment's folder, or its bin/python"
            ) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AcceleratorError(f"{python} cannot be run: {error}", hint=self.install_hint()) from None
        return facts


def python_of(place: Path) -> Optional[Path]:
    """The Python that `place` is, or that the environment in this folder has; None where there is none."""
    place = place.expanduser()
    # Not resolved: a virtual environment's Python is a link, and which one is called decides what it imports.
    candidate = (place / "bin" / "python" if place.is_dir() else place).absolute()
    return candidate if os.access(candidate, os.X_OK) and candidate.is_file() else None


def environment(python: Path) -> dict[str, str]:
    """The variables for a toolkit's Python: what makes ours import other packages is left out."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables["PATH"] = os.pathsep.join([str(python.parent), variables.get("PATH", os.defpath)])
    return variables


def last_words(log: Path, code: int) -> str:
    """The last line of the log that says something."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or line.startswith(("E ", "ERROR"))]
    return (errors or lines or [f"it ended with exit code {code} and said nothing"])[-1][:300]
