"""The stand-in for the Edge TPU library, built when the tests run."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STALL = "edge_mnv2.runtime.supervised.contact.STALL_S"
PATIENCE_S = 20.0
"""Where no hang is played: a machine that stops for a second is not taken for one of the device."""


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as a shared library. It plays one TPU and fails as the variable `STANDIN` says (see standin.c)."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the Edge TPU stand-in cannot be built")
    if sys.maxsize < 2**32 or platform.system() != "Linux":
        pytest.skip("the Edge TPU stand-in is for 64-bit Linux")
    source = Path(__file__).with_name("standin.c")
    target = tmp_path_factory.mktemp("standin") / "libedgetpu.so.1"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"]
    subprocess.run([compiler, *flags, "-o", str(target), str(source)], check=True)
    return target


@pytest.fixture
def tpu(standin: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The stand-in found as the library, with locks of this test's own. Set `STANDIN` through what is returned."""
    monkeypatch.setenv("EDGE_MNV2_EDGETPU_LIB", str(standin))
    monkeypatch.setenv("EDGE_MNV2_LOCK_DIR", str(isolated))
    for name in ("STANDIN", "STANDIN_LOG", "STANDIN_VERSION", "STANDIN_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(STALL, PATIENCE_S)
    return monkeypatch
