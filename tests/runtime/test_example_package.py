"""The worked example of a runtime as a package: installed by pip into a folder, then used by name and by file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "runtime_package"


@pytest.mark.slow
def test_the_example_is_installed_and_runs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(EXAMPLE, source)
    place = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-build-isolation", "--no-deps"]
    done = subprocess.run([*command, "--target", str(place), str(source)], capture_output=True, text=True)
    if "setuptools" in done.stderr and done.returncode:
        pytest.skip("no setuptools to build with")
    assert done.returncode == 0, done.stderr
    model = tmp_path / "paint.colours"
    model.write_text("250 10 10\n10 240 10\n")
    model.with_suffix(".yaml").write_text("labels: [red, green]\n")
    Image.new("RGB", (60, 40), (20, 230, 30)).save(tmp_path / "p.png")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])}

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge_mnv2", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    # Its rows are read at every start.
    seen = "import edge_mnv2_nearest, sys; print({'numpy', 'edge_mnv2.runtime.supervised'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, env=environment)
    assert done.stdout == "set()\n", done.stderr or done.stdout
    done = call("classify", tmp_path / "p.png", "--model", model, "--json")
    assert json.loads(done.stdout)["results"][0]["top"][0]["label"] == "green", done.stderr
    done = call("run", "--source", "test", "--max-frames", 3, "--model", model, "--runtime", "nearest", "--json")
    assert json.loads(done.stdout)["runtime"] == "nearest 1.0", done.stderr
    options = ["--source", "test", "--max-frames", 3, "--model", model, "--json", "--delegate"]
    done = call("run", *options, "nearest:near")
    summary = json.loads(done.stdout)
    assert summary["delegate"] == "nearest:near" and summary["tpu_losses"] == 0, done.stderr
    assert "nearest" in summary["engine_seconds"]
    done = call("run", *options, "nearest:middle")
    assert done.returncode == 2 and "nearest[:near|far]" in done.stderr
    assert "nearest[:near|far]" in "".join(call("run", "--help").stdout.split())
    assert "nearest:near" in call("devices", "accelerators").stdout
    model.write_text("1 2\n")
    done = call("classify", tmp_path / "p.png", "--model", model)
    assert done.returncode == 3 and "RED GREEN BLUE" in done.stderr
