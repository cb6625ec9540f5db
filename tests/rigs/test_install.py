"""install.sh from zero on real systems: `EDGE_MNV2_RIG_INSTALL=1 python -m pytest tests/rigs/test_install.py -s`.

This machine from its package index. With `EDGE_MNV2_RIGS=RIGS`, the folder of rigs with `arm/build` done, also Arm
systems under emulation, as root: a wheelhouse made here, installed there without a network, and from the index.
The root bookworm-armhf-opencv is a copy of bookworm-armhf with apt's python3-opencv. Emulation takes ten minutes and
more, so this runs only when it is asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
_RIGS = os.environ.get("EDGE_MNV2_RIGS", "")
pytestmark = [
    pytest.mark.skipif(not os.environ.get("EDGE_MNV2_RIG_INSTALL"), reason="EDGE_MNV2_RIG_INSTALL is not set"),
    pytest.mark.timeout(3600),
]
needs_rigs = pytest.mark.skipif(not _RIGS, reason="EDGE_MNV2_RIGS is not set: no Arm systems to install on")
ROOTS = {
    "bookworm-arm64": ("aarch64", "3.11"),
    "trixie-arm64": ("aarch64", "3.13"),
    "bookworm-armhf-opencv": ("armv7l", "3.11"),
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files as git has them: nothing that lies around in a working tree may be needed."""
    folder = tmp_path_factory.mktemp("clone")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPO, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder


# In a network namespace of its own, with nothing but loopback.
LOOPBACK = (
    sys.executable,
    "-c",
    "import fcntl, os, socket, struct, sys; s = socket.socket(); f = struct.pack('16sh', b'lo', 1 | 64);"
    "fcntl.ioctl(s, 0x8914, f + bytes(22)); os.execvp(sys.argv[1], sys.argv[1:])",
)
PAGE = """
edge-mnv2 -q run --source demo --loop --web 8080 --duration 40 --json >/tmp/summary.json &
for attempt in $(seq 60); do
    sleep 1
    python3 -c "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/').read())" 2>/dev/null && break
done
wait
cat /tmp/summary.json
"""


class Root:
    """An Arm system with an empty home, which is removed after the test."""

    def __init__(self, name: str, binds: dict[Path, str], network: bool) -> None:
        self._words = [] if network else ["unshare", "-n", *LOOPBACK]
        self._words += [f"{_RIGS}/arm/enter", name]
        for here, there in binds.items():
            self._words += ["-b", f"{here}:{there}"]
        self._words += [
            "-e",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "-e",
            "HOME=/home/zero",
        ]
        if self.call("sh", "-c", "rm -rf /home/zero && mkdir /home/zero").returncode:
            pytest.skip(f"there is no Arm system {name}")

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self._words, "-C", "/", "--", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}")
        return done

    def edge(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.call("/home/zero/.local/bin/edge-mnv2", "-q", *words)

    def works(self) -> None:
        assert self.edge("doctor").returncode == 0
        done = self.edge("run", "--source", "test", "--max-frames", "20", "--json")
        assert done.returncode == 0
        assert (json.loads(done.stdout)["frames"], json.loads(done.stdout)["ended"]) == (20, "max_frames")
        done = self.edge("classify", "/data/images/cat.bmp", "--json")
        assert done.returncode == 0
        best = json.loads(done.stdout)["results"][0]["top"][0]
        assert (best["label"], best["score"] > 0.5) == ("Egyptian cat", True)

    def close(self) -> None:
        self.call("rm", "-rf", "/home/zero")


@needs_rigs
@pytest.mark.parametrize("name", ROOTS)
def test_arm_without_a_network(name: str, clone: Path, data: Path, tmp_path: Path) -> None:
    arch, python = ROOTS[name]
    stick = tmp_path / "stick"
    command = ["sh", str(clone / "install.sh"), "--make-kit", str(stick), "--arch", arch, "--python", python]
    assert subprocess.run(command, check=False).returncode == 0
    root = Root(name, {stick: "/stick", data: "/data"}, network=False)
    try:
        done = root.call("sh", "/stick/install.sh")
        assert done.returncode == 0
        assert "no network" in done.stdout
        assert len(done.stdout.splitlines()) < 30 and done.stderr == ""
        root.works()
        done = root.edge("run", "--source", "demo", "--every-frame", "--max-frames", "50", "--json")
        assert (json.loads(done.stdout)["frames"], json.loads(done.stdout)["fallback"]) == (50, False)
        done = root.call("sh", "-c", f"PATH=/home/zero/.local/bin:$PATH; {PAGE}")
        assert "<title>" in done.stdout and '"frames"' in done.stdout
        assert root.call("sh", "/stick/install.sh", "--uninstall").returncode == 0
        assert root.call("ls", "-A", "/home/zero/.local/share", "/home/zero/.local/bin").stdout.count("edge-mnv2") == 0
    finally:
        root.close()


@needs_rigs
def test_32_bit_without_opencv_is_told_before_it_begins(clone: Path) -> None:
    root = Root("bookworm-armhf", {clone: "/clone"}, network=False)
    try:
        done = root.call("/clone/install.sh")
        assert (done.returncode, done.stdout) == (1, "")
        assert "sudo apt install python3-opencv" in done.stderr
    finally:
        root.close()


@needs_rigs
@pytest.mark.parametrize("name", ROOTS)
def test_arm_from_the_index(name: str, clone: Path, data: Path) -> None:
    root = Root(name, {clone: "/clone", data: "/data"}, network=True)
    try:
        assert root.call("/clone/install.sh").returncode == 0
        root.works()
    finally:
        root.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path / ".local", ignore_errors=True)


def test_this_machine(home: Path, clone: Path) -> None:
    """This Python and the released requirements take 350 MB at most."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["HOME"] = str(home)
    done = subprocess.run(
        [str(clone / "install.sh"), "--python", sys.executable],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    if done.returncode == 7:
        pytest.skip(f"no package index within reach: {done.stderr}")
    assert done.returncode == 0
    size = subprocess.run(["du", "-sm", str(home / ".local")], capture_output=True, text=True, check=True).stdout
    assert int(size.split()[0]) <= 350
    ran = subprocess.run(
        [str(home / ".local/bin/edge-mnv2"), "run", "--source", "test", "--max-frames", "3", "--json"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["frames"] == 3
