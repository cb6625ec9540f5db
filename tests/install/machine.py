"""Machines to install on: a folder that stands for /, programs that answer as there, and projects to install."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Optional

INSTALL_SH = Path(__file__).resolve().parents[2] / "install.sh"
_FAKE_PYTHON = Path(__file__).with_name("fake_python.py")
THIS_PYTHON = sys.version_info[:3]

_COMMAND = """
import os, pathlib, sys, time
def main():
    command = sys.argv[1]
    print("edge-mnv2 {version}:", *sys.argv[1:], flush=True)
    if command == "doctor":
        time.sleep({slow})
        sys.exit({doctor})
    if command == "pull":
        cache = os.environ.get("EDGE_MNV2_CACHE_DIR") or pathlib.Path.home() / ".cache/edge-mnv2"
        cache = pathlib.Path(cache) / "models"
        cache.mkdir(parents=True, exist_ok=True)
        for name in sys.argv[2:]:
            mirror = os.environ.get("EDGE_MNV2_MIRROR")
            content = (pathlib.Path(mirror) / name).read_text() if mirror else "fetched"
            (cache / name).write_text(content)
"""

_BACKEND = """
import shutil, pathlib
def get_requires_for_build_wheel(config_settings=None):
    return []
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    wheel = next(pathlib.Path(__file__).parent.glob("*.whl"))
    shutil.copy(wheel, wheel_directory)
    return wheel.name
"""


class Machine:
    """One machine. `system` are the Python packages that apt has put there, with their versions."""

    def __init__(
        self,
        folder: Path,
        *,
        uname: str = "x86_64",
        os_release: str = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        model: Optional[str] = None,
        files: Optional[Mapping[str, str]] = None,
        python: Sequence[int] = THIS_PYTHON,
        bits: int = 64,
        glibc: str = "2.36",
        implementation: str = "CPython",
        venv: bool = True,
        system: Optional[Mapping[str, str]] = None,
        more_pythons: Optional[Mapping[str, Sequence[int]]] = None,
        pip: Optional[Path] = None,
    ) -> None:
        self.root, self.home, self.programs = folder / "root", folder / "home", folder / "programs"
        for each in (self.root, self.home, self.programs):
            each.mkdir(parents=True)
        texts = {"etc/os-release": os_release, **(files or {})}
        if model:
            texts["proc/device-tree/model"] = model + "\0"
        for name, text in texts.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.program("uname", f'case "$1" in -s) echo Linux ;; *) echo {uname} ;; esac')
        facts = {
            "bits": bits,
            "glibc": glibc,
            "implementation": implementation,
            "venv": venv,
            "system": dict(system or {}),
            "pip": str(pip),
        }
        pythons = {"python3": python, **(more_pythons or {})}
        for name in {f"python3.{minor}" for minor in range(8, 20)} - set(pythons):
            # What this machine has is not on that one.
            self.program(name, "exit 127")
        for name, version in pythons.items():
            described = folder / f"{name}.json"
            described.write_text(json.dumps({**facts, "version": list(version)}))
            self.program(name, f'exec {sys.executable} -I {_FAKE_PYTHON} {described} "$@"')
        (self.root / "usr/bin").mkdir(parents=True)
        (self.root / "usr/bin/python3").symlink_to(self.programs / "python3")

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "SUDO_"))}
        return {
            **kept,
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "EDGE_MNV2_INSTALL_ROOT": str(self.root),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_NO_CACHE_DIR": "1",
            **more,
        }

    def install(
        self, *arguments: str, script: Path = INSTALL_SH, environment: Optional[Mapping[str, str]] = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(script), *arguments],
            env=self.environment(**(environment or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )

    @property
    def prefix(self) -> Path:
        return self.home / ".local/share/edge-mnv2"

    @property
    def command(self) -> Path:
        return self.home / ".local/bin/edge-mnv2"

    def venvs(self) -> list[str]:
        return sorted(each.name for each in (self.prefix / "venvs").glob("*"))

    def tree(self) -> list[str]:
        """Everything that is there, to see that nothing was changed."""
        return sorted(f"{each} {each.lstat().st_mtime_ns}" for each in self.root.parent.rglob("*"))


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: Iterable[str] = (),
    extras: Iterable[str] = (),
    tag: str = "py3-none-any",
    doctor: int = 0,
    slow: float = 0,
) -> Path:
    """A wheel that pip takes. That of `edge-mnv2` has a command whose `doctor` ends with exit code `doctor`."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Provides-Extra: {each}" for each in extras] + [f"Requires-Dist: {each}" for each in requires]
    members = {
        f"{module}/__init__.py": "",
        f"{module}/command.py": _COMMAND.format(version=version, doctor=doctor, slow=slow),
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if name == "edge-mnv2":
        members[f"{info}/entry_points.txt"] = "[console_scripts]\nedge-mnv2 = edge_mnv2.command:main\n"
    record = []
    for member, text in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{member},sha256={digest},{len(text.encode())}")
    members[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


def make_project(folder: Path, version: str = "1.0", **wheel: object) -> Path:
    """A folder as a clone of the project: install.sh, and something that pip can build without a network."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    make_wheel(folder, "edge-mnv2", version, **wheel)  # type: ignore[arg-type]
    (folder / "backend.py").write_text(_BACKEND)
    extras = "".join(f"{each} = []\n" for each in wheel.get("extras", ()))  # type: ignore[attr-defined]
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "edge-mnv2"\nversion = "{version}"\n'
        f"[project.optional-dependencies]\n{extras}"
    )
    script = folder / "install.sh"
    script.write_bytes(INSTALL_SH.read_bytes())
    shutil.copytree(INSTALL_SH.with_name("install"), folder / "install", dirs_exist_ok=True)
    return script
