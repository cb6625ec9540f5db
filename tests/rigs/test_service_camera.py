"""The service's sandbox before a V4L2 camera, in the rigs' virtual machine:
`EDGE_MNV2_RIGS=RIGS EDGE_MNV2_RIG_SYSTEMD=ROOT python -m pytest tests/rigs/test_service_camera.py -s`.

RIGS is the folder of rigs with `v4l2/build` done, ROOT the root of a Debian trixie as in test_systemd.py. Two minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import typer

REPO = Path(__file__).parents[2]
_RIGS, _ROOT = os.environ.get("EDGE_MNV2_RIGS", ""), os.environ.get("EDGE_MNV2_RIG_SYSTEMD", "")


@pytest.mark.skipif(
    not (_RIGS and _ROOT.startswith("/")), reason="EDGE_MNV2_RIGS and EDGE_MNV2_RIG_SYSTEMD are not set"
)
@pytest.mark.timeout(1200)
def test_the_camera_is_let_in_and_only_by_the_unit(tmp_path: Path) -> None:
    for name in ("edge_mnv2", "devices", "models"):
        shutil.copytree(REPO / name, tmp_path / "edge" / name, ignore=shutil.ignore_patterns("__pycache__"))
    # The machine has the newest versions, this package asks for older ones; both are pure Python.
    for package in (click, typer):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, tmp_path / "edge" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copytree(REPO / "tests/rigs", tmp_path / "tests/rigs", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["cp", "-a", _ROOT, str(tmp_path / "root")], check=True)
    done = subprocess.run(
        [f"{_RIGS}/v4l2/run", "-t", "900", "-w", str(tmp_path), "--", "bash tests/rigs/camera_service.sh"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    print(said)
    shutil.rmtree(tmp_path / "root")
    assert "edge-mnv2 is ready:" in said and "active (running)" in said
    assert '"engine": "cpu"' in said, "results are logged"
    assert "refused without DeviceAllow" in said and "no permission to open /dev/video0" in said
