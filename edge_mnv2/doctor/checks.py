"""The checks: one row each, with its fix. A check never raises and never takes the process with it."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edge_mnv2 import paths
from edge_mnv2.doctor.child import run_python
from edge_mnv2.errors import AcceleratorError, EdgeMnv2Error, ModelError
from edge_mnv2.runtime.interpreter import RUNTIMES, installed_runtimes
from edge_mnv2.runtime.onnx_backend import INSTALL
from edge_mnv2.runtime.onnx_backend import version as onnx_version
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


_ONNX = """
from edge_mnv2.runtime.onnx_backend import import_onnxruntime, providers
module = import_onnxruntime()
names = [one if isinstance(one, str) else one[0] for one in providers(module)]
told = ", ".join(name.replace("ExecutionProvider", "") for name in names)
print(f"onnxruntime {module.__version__}, on {told} (run uses it for .onnx models)")
"""


@dataclass(frozen=True)
class Check:
    """One row: `status` is "ok", "warn" or "fail"; `code` is the exit code that a failure asks for."""

    id: str
    status: str
    detail: str
    fix: str = ""
    code: int = 0

    def as_dict(self) -> dict[str, Any]:
        row = asdict(self)
        del row["code"]
        row["fix"] = self.fix or None
        return row


def run_checks(root: str = "/") -> Iterator[Check]:
    """Every check in order, as it is done."""
    for check in _CHECKS:
        try:
            yield from check(root)
        except EdgeMnv2Error as error:
            yield Check(check.__name__.lstrip("_"), "fail", error.message, error.hint or "", error.exit_code)
        except Exception as error:
            log.debug("check %s", check.__name__, exc_info=True)
            name = check.__name__.lstrip("_")
            yield Check(name, "warn", f"the check itself failed: {type(error).__name__}: {error}", "see --debug")


def _python(root: str) -> Iterator[Check]:
    bits = "64" if sys.maxsize > 2**32 else "32"
    detail = f"Python {platform.python_version()}, {bits} bit, {platform.machine()}"
    yield Check("python", "ok", detail)


def _numpy_and_opencv(root: str) -> Iterator[Check]:
    tried = run_python(_NUMPY_AND_OPENCV)
    if tried.ok:
        yield Check("numpy+opencv", "ok", tried.output)
        return
    fix = tried.fix
    if "_ARRAY_API" in tried.output or "multiarray" in tried.output:
        fix = "numpy 1 and 2 are mixed: install the environment again, with system packages or without, not both"
    elif "libGL" in tried.output:
        fix = "this OpenCV wants a desktop: pip uninstall opencv-python; pip install opencv-python-headless"
    elif "cv2" in tried.output:
        fix = "pip install opencv-python-headless, or apt install python3-opencv and a venv with --system-site-packages"
    yield Check("numpy+opencv", "fail", tried.output, fix or "run install.sh again", 1)


def _default_model(root: str) -> Iterator[Check]:
    from edge_mnv2.zoo.resolve import resolve

    found = resolve(DEFAULT_MODEL)
    yield Check("model", "ok", f"{found.name}, sha256 {found.sha256[:12]} as registered")


def _runtime(root: str) -> Iterator[Check]:
    from edge_mnv2.zoo.resolve import resolve

    names = installed_runtimes()
    if not names:
        yield Check("runtime", "fail", "no interpreter is installed", "pip install ai-edge-litert", 1)
        return
    path = str(resolve(DEFAULT_MODEL).path)
    others = len(names) > 1 or onnx_version() is not None
    for position, name in enumerate(names):
        tried = run_python(_ONE_INFERENCE, path, name)
        default = " (run uses it for .tflite models)" if position == 0 and others else ""
        if tried.ok:
            yield Check("runtime", "ok", tried.output + default)
        else:
            fix = tried.fix or f"pip install --force-reinstall {RUNTIMES[name][1]}"
            if "numpy" in tried.output:
                fix = "pip install 'numpy<2' or ai-edge-litert"
            status = "fail" if position == 0 else "warn"
            yield Check("runtime", status, f"{RUNTIMES[name][1]}: {tried.output}", fix, 1 if status == "fail" else 0)
    if onnx_version() is not None:
        tried = run_python(_ONNX)
        detail = tried.output if tried.ok else f"onnxruntime: {tried.output}"
        yield Check("onnxruntime", "ok" if tried.ok else "warn", detail, "" if tried.ok else tried.fix or INSTALL)


def _camera(root: str) -> Iterator[Check]:
    from edge_mnv2.camera.v4l2 import list_cameras

    cameras = list_cameras(root)
    if not cameras:
        yield Check(
            "camera",
            "warn",
            "no camera found",
            "plug one in; a Pi's ribbon camera needs `apt install python3-picamera2`",
        )
    for camera in cameras:
        readable = os.access(camera.path, os.R_OK | os.W_OK) or root != "/"
        detail = f"{camera.name} ({camera.path})"
        if readable:
            yield Check("camera", "ok", detail)
        else:
            yield Check("camera", "warn", f"{detail}: no permission", "sudo usermod -aG video $USER, then log in again")


def _edgetpu(root: str) -> Iterator[Check]:
    from edge_mnv2.runtime.edgetpu.checks import checks
    from edge_mnv2.runtime.edgetpu.pairs import worth_trying

    rows = checks(root)
    for row in rows:
        yield Check(row.id, row.status, row.detail, row.fix or "")
    wrong = {row.id for row in rows if row.status != "ok"}
    if root == "/" and worth_trying() and not wrong & {"edgetpu-library", "edgetpu-rights", "edgetpu-held"}:
        yield _edgetpu_contact()


def _edgetpu_contact() -> Check:
    from edge_mnv2.runtime.edgetpu.opening import try_device
    from edge_mnv2.runtime.edgetpu.pairs import DEFAULT_COMPILED
    from edge_mnv2.zoo.resolve import resolve

    try:
        compiled = resolve(DEFAULT_COMPILED).path
    except ModelError:
        compiled = None
    try:
        return Check("edgetpu-contact", "ok", try_device(compiled))
    except AcceleratorError as error:
        return Check("edgetpu-contact", "warn", error.message, error.hint or "")


def _profile(root: str) -> Iterator[Check]:
    from edge_mnv2.settings.profile import resolve

    settings = resolve(None, root=root)
    yield Check("profile", "ok", f"{settings.profile} ({settings.reason})")


def _disk(root: str) -> Iterator[Check]:
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


_CHECKS: tuple[Callable[[str], Iterator[Check]], ...] = (
    _python,
    _numpy_and_opencv,
    _default_model,
    _runtime,
    _camera,
    _edgetpu,
    _profile,
    _disk,
)
