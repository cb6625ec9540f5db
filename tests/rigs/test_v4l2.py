"""The camera checks in the virtual machine: `EDGE_MNV2_RIGS=RIGS python -m pytest tests/rigs/test_v4l2.py -s`.

RIGS is the folder of rigs, with `v4l2/build` done. It takes several minutes, so it runs only when it is asked for;
EDGE_MNV2_RIG_CHECKS="unplug busy" picks some.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).parent.parent.parent
_RIGS = os.environ.get("EDGE_MNV2_RIGS")
_CHECKS = os.environ.get("EDGE_MNV2_RIG_CHECKS", "")


@pytest.mark.skipif(not _RIGS, reason="EDGE_MNV2_RIGS is not set: the virtual machine is run on demand")
@pytest.mark.timeout(3000)
def test_a_camera_never_lies(tmp_path: Path, data: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for name in ("edge_mnv2", "devices", "models"):
        shutil.copytree(REPO / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copytree(REPO / "tests/rigs", tmp_path / "tests/rigs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(data / "models/mobilenet_v1_0.25_128_quant.tflite", tmp_path / "small.tflite")
    photo = cv2.resize(cv2.imread(str(data / "images/parrot.jpg")), (640, 480), interpolation=cv2.INTER_AREA)
    assert isinstance(photo, np.ndarray) and cv2.imwrite(str(tmp_path / "photo.jpg"), photo)
    job = f"PYTHONPATH=/work:/rigs/v4l2/examples python tests/rigs/v4l2_job.py {_CHECKS}"
    command = [str(Path(str(_RIGS)) / "v4l2/run"), "-t", "2400", "-w", str(tmp_path), "--", job]
    assert subprocess.run(command, check=False).returncode == 0
