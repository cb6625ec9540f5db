"""What install.sh would do on which machine, and which machines it refuses, with what advice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.install.machine import INSTALL_SH, Machine

PI_OS_12 = 'PRETTY_NAME="Raspberry Pi OS GNU/Linux 12 (bookworm)"\nID=raspbian\nID_LIKE=debian\n'
PI_OS_13 = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n'
PI_4, PI_5 = "Raspberry Pi 4 Model B Rev 1.4", "Raspberry Pi 5 Model B Rev 1.0"
JETPACK = "# R{0} (release), REVISION: 1.0, GCID: 1, BOARD: generic\n"
UBUNTU = 'PRETTY_NAME="Ubuntu {0} LTS"\nID=ubuntu\nVERSION_ID="{0}"\n'
FROM_APT = {"numpy": "1.24.2", "PIL": "9.4.0", "yaml": "6.0"}
ALL_FROM_APT = {**FROM_APT, "cv2": "4.6.0"}
MARKER = {"usr/lib/python3.11/EXTERNALLY-MANAGED": "[externally-managed]\n"}


@pytest.mark.parametrize(
    ("machine", "said", "unsaid"),
    [
        pytest.param(
            {
                "uname": "aarch64",
                "os_release": PI_OS_12,
                "model": PI_4,
                "python": (3, 11, 2),
                "system": {"numpy": "1.24.2", "cv2": "4.6.0", "picamera2": "0.3.12"},
                "files": MARKER,
            },
            ["--system-site-packages", "picamera2", "without opencv-python-headless", "numpy>=1.24.2,<2", PI_4],
            ["apt install"],
            id="pi4-bookworm",
        ),
        pytest.param(
            {
                "uname": "aarch64",
                "os_release": PI_OS_13,
                "model": PI_5,
                "python": (3, 13, 5),
                "system": {"numpy": "2.2.4", "picamera2": "0.3.30"},
            },
            ["--system-site-packages", "numpy>=2.2.4,<3"],
            ["without opencv"],
            id="pi5-trixie-no-opencv",
        ),
        pytest.param(
            {"uname": "aarch64", "os_release": PI_OS_12, "model": PI_4, "python": (3, 11, 2)},
            ["--system-site-packages", "of the system nothing yet\n", "numpy<2"],
            ["without opencv"],
            id="pi4-lite-nothing-there-yet",
        ),
        pytest.param(
            {"uname": "aarch64", "bits": 32, "model": PI_4, "python": (3, 11, 2), "system": ALL_FROM_APT},
            [
                "(armv7l, Python 3.11.2)",
                "--system-site-packages",
                "of the system OpenCV 4.6.0, numpy 1.24.2\n",
                "numpy>=1.24.2,<2",
            ],
            [],
            id="32-bit-on-64-bit-kernel",
        ),
        pytest.param(
            {"uname": "armv7l", "bits": 32, "python": (3, 11, 2), "system": ALL_FROM_APT},
            ["--system-site-packages", "without opencv-python-headless"],
            [],
            id="32-bit-debian",
        ),
        pytest.param(
            {
                "uname": "aarch64",
                "os_release": UBUNTU.format("22.04"),
                "model": "NVIDIA Jetson Orin Nano Developer Kit",
                "files": {"etc/nv_tegra_release": JETPACK.format("R36")},
                "python": (3, 10, 12),
                "glibc": "2.35",
                "system": {"numpy": "1.21.5", "cv2": "4.8.0"},
            },
            ["--system-site-packages", "without opencv-python-headless", "numpy>=1.21.5,<2"],
            [],
            id="jetpack6-opencv-with-gstreamer",
        ),
        pytest.param(
            {"os_release": UBUNTU.format("24.04"), "python": (3, 12, 3), "system": {"numpy": "1.26.4", "cv2": "4.6.0"}},
            ["Ubuntu 24.04 LTS (x86_64, Python 3.12.3)", "-m venv"],
            ["--system-site-packages", "without opencv", "numpy"],
            id="pc-isolated",
        ),
        pytest.param(
            {"os_release": UBUNTU.format("20.04"), "python": (3, 8, 10), "more_pythons": {"python3.11": (3, 11, 9)}},
            ["Python 3.8 is not supported; using", "python3.11 -m venv"],
            [],
            id="another-python-on-path",
        ),
    ],
)
def test_plan(machine: dict[str, Any], said: list[str], unsaid: list[str], tmp_path: Path) -> None:
    made = Machine(tmp_path, **machine)
    before = made.tree()
    done = made.install("--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    for text in said:
        assert text in done.stdout
    for text in unsaid:
        assert text not in done.stdout
    assert "edge-mnv2 doctor" in done.stdout
    assert made.tree() == before, "--dry-run changed something"


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        pytest.param(
            {"uname": "armv7l", "bits": 32, "os_release": PI_OS_13, "python": (3, 13, 5), "system": FROM_APT},
            ["Python 3.13 on 32-bit Arm", "64-bit Raspberry Pi OS"],
            id="trixie-32-bit",
        ),
        pytest.param(
            {"uname": "aarch64", "bits": 32, "model": PI_4, "python": (3, 13, 5), "system": FROM_APT},
            ["64-bit Raspberry Pi OS"],
            id="trixie-32-bit-on-64-bit-kernel",
        ),
        pytest.param(
            {"uname": "armv7l", "bits": 32, "glibc": "2.31", "python": (3, 9, 2)}, ["2.34", "64-bit"], id="bullseye-32"
        ),
        pytest.param(
            {"uname": "armv7l", "bits": 32, "python": (3, 11, 2), "system": {"yaml": "6.0"}},
            ["sudo apt install python3-numpy python3-pil python3-opencv"],
            id="32-bit-without-apt-packages",
        ),
        pytest.param(
            {"uname": "armv7l", "bits": 32, "python": (3, 11, 2), "system": FROM_APT},
            ["sudo apt install python3-opencv, then"],
            id="32-bit-without-opencv",
        ),
        pytest.param({"uname": "armv6l", "bits": 32, "python": (3, 11, 2)}, ["ARMv6", "Zero 2 W"], id="pi-zero"),
        pytest.param({"uname": "i686", "bits": 32}, ["32-bit x86"], id="x86-32"),
        pytest.param({"uname": "riscv64"}, ["riscv64", "aarch64"], id="riscv"),
        pytest.param(
            {
                "uname": "aarch64",
                "files": {"etc/nv_tegra_release": JETPACK.format("R32")},
                "os_release": UBUNTU.format("18.04"),
                "glibc": "2.27",
                "python": (3, 6, 9),
            },
            ["Python 3.6", "too old", "./install.sh --python ~/python311/bin/python"],
            id="jetpack4",
        ),
        pytest.param(
            {
                "uname": "aarch64",
                "files": {"etc/nv_tegra_release": JETPACK.format("R35")},
                "os_release": UBUNTU.format("20.04"),
                "glibc": "2.31",
                "python": (3, 8, 10),
            },
            ["Python 3.8", "sudo apt install python3.9 python3.9-venv && ./install.sh --python python3.9"],
            id="jetpack5",
        ),
        pytest.param(
            {
                "uname": "aarch64",
                "files": {"etc/mendel_version": "5.3\n"},
                "os_release": 'PRETTY_NAME="Mendel GNU/Linux 5 (Eagle)"\nID=mendel\n',
                "glibc": "2.28",
                "python": (3, 7, 3),
            },
            ["Python 3.7 of Mendel", "./install.sh --python"],
            id="coral-dev-board",
        ),
        pytest.param({"python": (3, 15, 0)}, ["Python 3.15 is newer", "--python python3.13"], id="too-new"),
        pytest.param({"venv": False}, ["sudo apt install python3-venv"], id="no-venv"),
        pytest.param({"glibc": "2.24"}, ["2.24", "older than 2.27"], id="old-libc"),
        pytest.param({"glibc": ""}, ["GNU C library"], id="musl"),
        pytest.param({"implementation": "PyPy"}, ["PyPy", "CPython"], id="pypy"),
    ],
)
def test_refusal(machine: dict[str, Any], said: list[str], tmp_path: Path, tools: Path) -> None:
    made = Machine(tmp_path, **machine)
    before = made.tree()
    done = made.install(environment={"PATH": f"{made.programs}:{tools}"})
    assert done.returncode == 1
    assert done.stdout == ""
    for text in said:
        assert text in done.stderr
    assert len(done.stderr.splitlines()) <= 5
    assert made.tree() == before, "a refusal changed something"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "unknown option --nonsense"),
        (["--prefix"], "--prefix needs a value"),
        (["--bin="], "--bin needs a value"),
        (["extra"], "unknown option extra"),
        (["--extras", "web;rm"], "--extras web;rm"),
        (["--extras", "nope"], "there is no extra nope: there are all, "),
        (["--extras", "window,Nope"], "there is no extra nope"),
        (["--make-kit", "k", "--arch", "aarch64", "--python", "3.11", "--extras", "nope"], "there is no extra nope"),
        (["--wheelhouse", "/etc"], "no edge_mnv2-*.whl"),
        (["--system-packages", "maybe"], "auto, yes or no"),
        (["--edgetpu=turbo"], "std (normal clock) or max"),
        (["--python", "/no/such/python"], "--python /no/such/python"),
        (["--wheelhouse", "/no/such/folder"], "no such folder"),
        (["--arch", "aarch64"], "--make-wheelhouse"),
        (["--", "--camera", "0"], "--service"),
        (["--make-wheelhouse", "w"], "needs --arch"),
        (["--make-wheelhouse", "w", "--arch", "arm64", "--python", "3.11"], "aarch64"),
        (["--make-wheelhouse", "w", "--arch", "mips", "--python", "3.11"], "--arch mips"),
        (["--make-wheelhouse", "w", "--arch", "aarch64"], "needs --python"),
        (["--make-wheelhouse", "w", "--arch", "armv7l", "--python", "3.13"], "3.9 to 3.11"),
        (["--make-wheelhouse", "w", "--arch", "aarch64", "--python", "3.11.2"], "--python 3.11.2"),
        (["--make-wheelhouse", "w", "--arch", "aarch64", "--python", "3.11", "--glibc", "new"], "--glibc new"),
        (["--prefix", "/dev/null/nothing"], "no right to write"),
        (["--prefix", "a:b"], "colon"),
    ],
)
def test_wrong_call(arguments: list[str], said: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    before = machine.tree()
    done = machine.install(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert any(each in done.stderr for each in said.split("|"))
    assert machine.tree() == before, "a wrong call made something"


def test_commas_of_a_list_that_name_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    done = machine.install("--dry-run", "--extras", ",window,, record,")
    assert done.returncode == 0, done.stderr
    assert "  extras       window,record\n" in done.stdout and "edge-mnv2[window,record] asks for" in done.stdout
    done = machine.install("--dry-run", "--extras", ",")
    assert "extras  " not in done.stdout and "edge-mnv2[" not in done.stdout


def test_help(tmp_path: Path) -> None:
    done = Machine(tmp_path).install("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_sudo_is_not_wanted(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.program("id", "echo 0")
    done = machine.install(environment={"SUDO_USER": "maker"})
    assert done.returncode == 2
    assert "run it without sudo" in done.stderr


def test_what_belongs_to_others_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.command.parent.mkdir(parents=True)
    machine.command.write_text("#!/bin/sh\n")
    done = machine.install()
    assert done.returncode == 2
    assert f"{machine.command} is there" in done.stderr
    done = machine.install("--uninstall")
    assert done.returncode == 0
    assert machine.command.read_text() == "#!/bin/sh\n"


def test_never_breaks_the_system_packages() -> None:
    assert "break-system" not in INSTALL_SH.read_text()
