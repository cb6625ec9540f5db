"""The checks: one row each, with its fix. A check never raises and never takes the process with it.

And what `doctor --report FILE` writes for others to read: versions, board, checks, figures; nothing that is a secret.
User, host, home and temporary folders are replaced by words, credentials are left out, and of the board's serial number
there is not even a hash.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Optional

from edge_mnv2 import paths, signals
from edge_mnv2.addresses import redact
from edge_mnv2.board import accelerators
from edge_mnv2.board.accelerators import Accelerator
from edge_mnv2.board.cpus import resolve_threads
from edge_mnv2.board.detect import detect
from edge_mnv2.board.health import Health
from edge_mnv2.errors import Check, EdgeMnv2Error
from edge_mnv2.html_report import write_page
from edge_mnv2.installed import pip, repair_hint
from edge_mnv2.runtime.contest import has_device, known, rivals
from edge_mnv2.runtime.table import TABLE, installed, reference, rows
from edge_mnv2.zoo.registry import DEFAULT_MODEL

log = logging.getLogger(__name__)

_LEAST_FREE_MB = 200

_NUMPY_AND_OPENCV = "import numpy, cv2; print(f'numpy {numpy.__version__}, OpenCV {cv2.__version__}')"

_ONE_INFERENCE = """
import sys, time
import numpy as np
from edge_mnv2.runtime.classifier import Classifier
with Classifier.open(sys.argv[1], runtime=sys.argv[2]) as model:
    model.warm_up()
    height, width = model.input_size
    began = time.perf_counter()
    model.classify(np.full((height, width, 3), 128, np.uint8))
    took = (time.perf_counter() - began) * 1e3
    print(f"{model.interpreter.runtime}, delegate {model.interpreter.delegate}, one inference {took:.1f} ms")
"""


_ABOUT = """
import sys
from edge_mnv2.runtime.table import row
print(row(sys.argv[1]).about())
"""


def run_checks(root: str = "/") -> Iterator[Check]:
    """Every check in order, as it is done."""
    checks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", _python),
        ("numpy+opencv", _numpy_and_opencv),
        ("model", _default_model),
        ("runtime", _runtime),
        ("fastest", _fastest),
        ("camera", partial(_camera, root)),
        *((one.name, partial(_accelerator, one, root)) for one in accelerators.rows() if one.visible),
        ("profile", partial(_profile, root)),
        ("disk", _disk),
    ]
    for name, check in checks:
        try:
            yield from check()
        except EdgeMnv2Error as error:
            yield Check(name, "fail", error.message, error.hint, error.exit_code)
        except Exception as error:
            log.debug("check %s", name, exc_info=True)
            yield Check(name, "warn", f"the check failed: {type(error).__name__}: {error}", "run doctor with --debug")


def _python() -> Iterator[Check]:
    bits = "64" if sys.maxsize > 2**32 else "32"
    detail = f"Python {platform.python_version()}, {bits} bit, {platform.machine()}"
    yield Check("python", "ok", detail)


def _numpy_and_opencv() -> Iterator[Check]:
    attempt = run_python(_NUMPY_AND_OPENCV)
    if attempt.ok:
        yield Check("numpy+opencv", "ok", attempt.output)
        return
    fix = attempt.fix
    if "_ARRAY_API" in attempt.output or "multiarray" in attempt.output:
        fix = "numpy 1 and 2 are mixed: install the environment again, with system packages or without, not both"
    elif "libGL" in attempt.output:
        fix = f"OpenCV needs a desktop here: remove opencv-python, {pip()} --force-reinstall opencv-python-headless"
    elif "cv2" in attempt.output:
        fix = f"{pip()} opencv-python-headless, or apt install python3-opencv and a venv with --system-site-packages"
    yield Check("numpy+opencv", "fail", attempt.output, fix or repair_hint(), 1)


def _default_model() -> Iterator[Check]:
    from edge_mnv2.zoo.resolve import resolve

    model = resolve(DEFAULT_MODEL)
    yield Check("model", "ok", f"{model.name}, sha256 {model.sha256[:12]} as registered")


def _runtime() -> Iterator[Check]:
    from edge_mnv2.zoo.resolve import resolve

    rows = installed()
    usual = [row for row in rows if ".tflite" in row.suffixes]
    if not usual:
        yield Check("runtime", "fail", "no interpreter is installed", f"{pip()} ai-edge-litert", 1)
        return
    path = str(resolve(DEFAULT_MODEL).path)
    for row in filter(has_device, rows):
        if row in usual:
            attempt = run_python(_ONE_INFERENCE, path, row.name)
            default = " (run uses it for .tflite models)" if row == rows[0] and len(rows) > 1 else ""
            name, status = "runtime", "fail" if row == rows[0] else "warn"
            fix = f"{pip()} --force-reinstall {row.distributions[0]}"
        else:
            attempt = run_python(_ABOUT, row.name)
            default, name, status, fix = "", row.name, "warn", row.install_hint()
        if attempt.ok:
            yield Check(name, "ok", attempt.output + default)
            continue
        if "numpy" in attempt.output:
            fix = f"{pip()} 'numpy<2', or {pip()} ai-edge-litert"
        else:
            fix = attempt.fix or fix
        detail = f"{row.distributions[0]}: {attempt.output}"
        yield Check(name, status, detail, fix, 1 if status == "fail" else 0)


def _fastest() -> Iterator[Check]:
    """What is known of other runtimes' speed here, and what could still be found out."""
    from edge_mnv2.zoo.resolve import resolve

    path, threads, first = resolve(DEFAULT_MODEL).path, resolve_threads("auto")[0], reference().name
    contest = known(path, threads)
    if contest is None:
        others = [row for row in TABLE if row.twins and not row.needs_device and row.version() is None]
        if sys.maxsize <= 2**32 or sys.version_info < (3, 10):
            # Nothing faster is published for these (pyproject.toml's extras).
            others = []
        if rivals(path):
            detail = f"{first}; the first run of some seconds compares others with it, by answers and speed"
        elif others:
            detail = (
                f"{first}, the only one installed; run would compare {others[-1].name} ({others[-1].install_hint()})"
            )
        else:
            return
    elif contest.winner is not None:
        detail = f"{contest.winner}, {contest.ratio:.2f} times as fast as {first} with equal answers"
    else:
        detail = f"{first}: no other with equal answers is faster"
    left_out = "".join(f"; {name} is left out: {why}" for name, why in (contest.left_out if contest else {}).items())
    yield Check("fastest", "ok", f"{detail}{left_out} ({DEFAULT_MODEL}, {threads} threads)")


def _camera(root: str) -> Iterator[Check]:
    from edge_mnv2.camera.v4l2 import attached_cameras

    cameras = attached_cameras(root, formats=False)
    if not cameras:
        fix = "plug one in; a Pi's ribbon camera needs `apt install python3-picamera2`"
        yield Check("camera", "warn", "no camera found", fix)
    for camera in cameras:
        readable = camera.number is not None or os.access(camera.path, os.R_OK | os.W_OK) or root != "/"
        detail = f"{camera.name} ({camera.path})"
        if readable:
            yield Check("camera", "ok", detail)
        else:
            yield Check("camera", "warn", f"{detail}: no permission", "sudo usermod -aG video $USER, then log in again")


def _accelerator(row: Accelerator, root: str) -> Iterator[Check]:
    for check in row.load().diagnose(root):
        if not isinstance(check, Check):
            raise TypeError(f"{row.name} of an installed package yields {check!r}, which is no Check")
        yield check


def _profile(root: str) -> Iterator[Check]:
    from edge_mnv2.settings.profile import resolve

    settings = resolve(None, root=root)
    yield Check("profile", "ok", f"{settings.profile} ({settings.reason})")


def _disk() -> Iterator[Check]:
    folder = paths.cache_dir()
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free_mb = shutil.disk_usage(place).free / 1e6
    detail = f"{free_mb:.0f} MB free for {folder}"
    if not os.access(place, os.W_OK):
        yield Check("disk", "warn", f"{folder} cannot be written", "set EDGE_MNV2_CACHE_DIR to a folder of yours")
    elif free_mb < _LEAST_FREE_MB:
        yield Check("disk", "warn", detail, "remove what you do not need (`edge-mnv2 models remove NAME`)")
    else:
        yield Check("disk", "ok", detail)


_FIXES = {
    "SIGILL": "an installed wheel is built for a newer CPU than this one: install the distribution's package instead "
    "(apt install python3-numpy python3-opencv), or a 64-bit system",
    "SIGSEGV": "two packages do not fit each other: make the environment anew (install.sh, or a new venv)",
    "SIGBUS": "the storage or memory failed while a library was read: check the card and `dmesg`",
    "SIGKILL": "the system ended it, most likely for want of memory: close other programs or add swap",
    "SIGABRT": "a library gave up while it was loaded: make the environment anew (install.sh, or a new venv)",
}


@dataclass(frozen=True)
class Attempt:
    """How a child ended: `output` of a good one, else what went wrong and what to do."""

    ok: bool
    output: str
    fix: Optional[str] = None


def run_python(code: str, *arguments: str, timeout: float = 120.0) -> Attempt:
    """Run `code` in this Python, in a process of its own."""
    try:
        done = subprocess.run(
            paths.program_command(code, *arguments), capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Attempt(False, f"no answer after {timeout:.0f} s", "look at `dmesg` and the load of the machine")
    except OSError as error:
        return Attempt(False, f"cannot start {sys.executable}: {error.strerror}", "check the Python installation")
    if done.returncode == 0:
        return Attempt(True, done.stdout.strip())
    if done.returncode < 0:
        name = signals.name_of(-done.returncode)
        return Attempt(False, f"the process was killed by {name}", _FIXES.get(name, "run it again with --debug"))
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return Attempt(False, lines[-1] if lines else f"exit code {done.returncode}")


_PACKAGES = ("numpy", "opencv-python-headless", "opencv-python", "typer")
_TIMES = 30
_SHORTEST = 3
"""A name of fewer letters would take words apart."""


def write_report(target: Path, checks: Sequence[dict[str, Any]]) -> None:
    """Write the report whole or not at all. Raises UsageError."""
    write_page(target, json.dumps(_without_names(report(checks)), indent=1, ensure_ascii=False) + "\n")


def report(checks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report's fields, names not yet replaced."""
    board = {name: value for name, value in vars(detect()).items() if name != "serial"}
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    versions.update({row.name: version for row in rows() if (version := row.version())})
    return {
        "edge_mnv2": _version("edge-mnv2"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "versions": versions,
        "board": board,
        "health": Health().sample().as_dict(),
        "figures": _figures(),
        "checks": list(checks),
    }


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _figures() -> dict[str, Any]:
    """The default model as `run` opens it, one inference after another."""
    import numpy as np

    from edge_mnv2.runtime.opening import open_classifiers
    from edge_mnv2.settings.profile import resolve

    try:
        with open_classifiers(resolve(), workers=1) as opened:
            classifier = opened.classifiers[0]
            grey = np.full((*classifier.input_size, 3), 128, np.uint8)
            took = [classifier.classify(grey).inference_ns / 1e6 for _ in range(_TIMES)]
            facts = {"model": opened.model, "runtime": opened.runtime, "delegate": opened.delegate}
            return {**facts, "threads": opened.threads, "inference_ms": round(median(took), 2)}
    except EdgeMnv2Error as error:
        return {"error": error.message}


def _without_names(value: Any) -> Any:
    """`value` with every text in it redacted."""
    if isinstance(value, dict):
        return {key: _without_names(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_names(one) for one in value]
    if not isinstance(value, str):
        return value
    text = redact(value)
    for name, word in _names():
        text = text.replace(name, word)
    return text


def _names() -> list[tuple[str, str]]:
    """(text, what stands for it), the longest first."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = ""
    known = [(str(paths.home()), "~"), (tempfile.gettempdir(), "TMP"), (socket.gethostname(), "HOST")]
    known += [(user, "USER")] if user != "root" else []
    return sorted([one for one in known if len(one[0]) >= _SHORTEST], key=lambda one: -len(one[0]))
