"""The camera checks in the virtual machine: `EDGE_MNV2_RIGS=RIGS python -m pytest tests/rigs/test_v4l2.py -s`.

RIGS is the folder of rigs, with `v4l2/build` done. It takes several minutes, so it runs only when it is asked for;
EDGE_MNV2_RIG_CHECKS="unplug busy" picks some; `-k csi` runs the checks of CSI cameras alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click
import numpy as np
import pytest
import typer

REPO = Path(__file__).parent.parent.parent
_RIGS = os.environ.get("EDGE_MNV2_RIGS")
_CHECKS = os.environ.get("EDGE_MNV2_RIG_CHECKS", "")


pytestmark = [
    pytest.mark.skipif(not _RIGS, reason="EDGE_MNV2_RIGS is not set: the virtual machine is run on demand"),
    pytest.mark.timeout(3000),
]


def run_job(folder: Path, data: Path, photo: str, command: str) -> int:
    """Run `command` in the virtual machine, in a `folder` with the package, a small model and a picture."""
    cv2 = pytest.importorskip("cv2")
    for name in ("edge_mnv2", "devices", "models"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    # The machine has the newest versions, this package asks for older ones; both are pure Python.
    for package in (click, typer):
        name = package.__name__
        shutil.copytree(Path(str(package.__file__)).parent, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    shutil.copytree(REPO / "tests/rigs", folder / "tests/rigs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(data / "models/mobilenet_v1_0.25_128_quant.tflite", folder / "small.tflite")
    picture = cv2.resize(cv2.imread(str(data / "images/parrot.jpg")), (640, 480), interpolation=cv2.INTER_AREA)
    assert isinstance(picture, np.ndarray) and cv2.imwrite(str(folder / photo), picture)
    machine = [str(Path(str(_RIGS)) / "v4l2/run"), "-t", "2400", "-w", str(folder), "--", command]
    return subprocess.run(machine, check=False).returncode


def test_a_camera_never_lies(tmp_path: Path, data: Path) -> None:
    job = f"PYTHONPATH=/work:/rigs/v4l2/examples python tests/rigs/v4l2_job.py {_CHECKS}"
    assert run_job(tmp_path, data, "photo.jpg", job) == 0


def test_csi_cameras_through_the_real_picamera2(tmp_path: Path, data: Path) -> None:
    path = 'export PYTHONPATH="$PYTHONPATH:/work:/rigs/v4l2/examples"'
    job = f". /rigs/v4l2/csi/enter; {path}; python tests/rigs/csi_job.py {_CHECKS}"
    assert run_job(tmp_path, data, "picture.jpg", job) == 0
