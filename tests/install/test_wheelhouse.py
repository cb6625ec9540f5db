"""Wheels gathered on a PC for a board without a network, and installed from there."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest

from tests.install.machine import Machine, make_project, make_wheel

REQUIRES = [
    "alpha>=1",
    "native",
    "gamma; platform_machine == 'armv7l'",
    "intel; platform_machine == 'x86_64'",
    "numpy>=1.23",
    "opencv-python-headless>=4; platform_machine != 'armv7l'",
    "omega; extra == 'web'",
    "edge-mnv2[web]; extra == 'all'",
]


@pytest.fixture
def pc(tmp_path: Path, pip: Path) -> Machine:
    return Machine(tmp_path / "pc", pip=pip)


@pytest.fixture
def offers(tmp_path: Path) -> dict[str, str]:
    """What stands in for the index: some for every machine, some for one architecture and C library."""
    folder = tmp_path / "index"
    make_wheel(folder, "alpha", "1.5", requires=["beta; python_version < '3.10'", "delta[fast]"])
    make_wheel(folder, "beta", "1.0")
    make_wheel(folder, "delta", "1.0", requires=["epsilon; extra == 'fast'"], extras=["fast"])
    for name in ("epsilon", "gamma", "intel", "omega"):
        make_wheel(folder, name)
    make_wheel(folder, "opencv-python-headless", "4.12")
    for version in ("1.26.4", "2.4.0"):
        make_wheel(folder, "numpy", version)
    for arch in ("aarch64", "armv7l", "x86_64"):
        make_wheel(folder, "native", "1.0", tag=f"py3-none-manylinux_2_27_{arch}")
        make_wheel(folder, "native", "2.0", tag=f"py3-none-manylinux_2_39_{arch}")
    return {"PIP_FIND_LINKS": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "held", "missing", "said"),
    [
        (
            ["aarch64", "3.11"],
            [
                "native-1.0-py3-none-manylinux_2_27_aarch64",
                "epsilon-1.0",
                "numpy-1.26.4",
                "opencv_python_headless-4.12",
            ],
            ["beta", "gamma", "intel", "omega", "numpy-2"],
            "26",
        ),
        (["aarch64", "3.13", "--extras", "all"], ["native-2.0", "numpy-2.4.0", "omega-1.0"], ["beta", "gamma"], ""),
        (["aarch64", "3.13", "--glibc", "2.31"], ["native-1.0"], ["native-2.0"], ""),
        (["x86_64", "3.9"], ["beta-1.0", "intel-1.0", "numpy-2.4.0"], ["gamma"], ""),
        (["armv7l", "3.11"], ["gamma-1.0", "native-1.0"], ["numpy", "opencv", "intel"], "python3-opencv"),
    ],
)
def test_gathered(
    target: list[str],
    held: list[str],
    missing: list[str],
    said: str,
    pc: Machine,
    offers: dict[str, str],
    tmp_path: Path,
) -> None:
    script = make_project(tmp_path / "clone", requires=REQUIRES, extras=["web", "all"])
    folder = tmp_path / "stick"
    arch, python, *more = target
    arguments = ["--make-wheelhouse", str(folder), "--arch", arch, "--python", python, *more]
    before = pc.tree()
    done = pc.install(*arguments, "--dry-run", script=script, environment=offers)
    assert done.returncode == 0, done.stderr
    assert pc.tree() == before
    assert not folder.exists()

    done = pc.install(*arguments, script=script, environment=offers)
    assert done.returncode == 0, done.stderr
    wheels = sorted(each.name for each in folder.glob("*.whl"))
    for name in ("edge_mnv2-1.0", "alpha-1.5", "delta-1.0", *held):
        assert any(each.startswith(name) for each in wheels), (name, wheels)
    for name in missing:
        assert not any(each.startswith(name) for each in wheels), (name, wheels)
    assert sorted(each.name for each in folder.iterdir() if each.suffix != ".whl") == [
        "contents",
        "install",
        "install.sh",
        "targets",
    ]
    if said.startswith("python3"):
        assert said in done.stdout


@pytest.mark.slow
def test_install_from_the_stick(pc: Machine, offers: dict[str, str], tmp_path: Path, pip: Path) -> None:
    here, arch = f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine()
    script = make_project(tmp_path / "clone", requires=REQUIRES, extras=["web", "all"])
    stick = tmp_path / "stick"
    arguments = ["--make-wheelhouse", str(stick), "--arch", arch, "--python"]
    assert pc.install(*arguments, here, script=script, environment=offers).returncode == 0

    board = Machine(tmp_path / "board", pip=pip, uname=arch, glibc="2.41")
    done = board.install(script=stick / "install.sh")
    assert done.returncode == 0, done.stderr
    assert f"{stick}, no network" in done.stdout
    assert board.command.exists()

    # From the clone too, when told where the wheels are.
    done = board.install("--wheelhouse", str(stick), script=script)
    assert done.returncode == 0, done.stderr

    # A stick for another machine is recognized before anything is done.
    foreign = "aarch64" if arch != "aarch64" else "x86_64"
    other = Machine(tmp_path / "other", pip=pip, uname=foreign)
    done = other.install(script=stick / "install.sh")
    assert done.returncode == 2
    assert f"is for {arch} {here}; this is {foreign} {here}" in done.stderr

    # One file lost on the way is named.
    next(stick.glob("delta-*.whl")).unlink()
    done = board.install(script=stick / "install.sh")
    assert done.returncode == 1
    assert "delta" in done.stderr
    assert f"--make-wheelhouse DIR --arch {arch} --python {here}" in done.stderr
    assert board.command.exists()

    shutil.rmtree(stick)
    stick.mkdir()
    done = board.install("--wheelhouse", str(stick), script=script)
    assert done.returncode == 2
    assert "no edge_mnv2-*.whl" in done.stderr


@pytest.mark.slow
def test_kit(pc: Machine, offers: dict[str, str], tmp_path: Path, pip: Path) -> None:
    """Its extras and models are installed without being named again; what was damaged on the way is named."""
    here, arch = f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine()
    script = make_project(tmp_path / "clone", requires=REQUIRES, extras=["web", "all"])
    (tmp_path / "clone/docs").mkdir()
    (tmp_path / "clone/docs/page.md").write_text("a page")
    kit = tmp_path / "kit"
    arguments = ["--make-kit", str(kit), "--arch", arch, "--python", here, "--extras", "web", "--models", "demo,bird"]
    before = pc.tree()
    done = pc.install(*arguments, "--dry-run", script=script, environment=offers)
    assert (done.returncode, pc.tree() == before, kit.exists()) == (0, True, False), done.stderr
    assert "fetch demo, bird" in done.stdout

    done = pc.install(*arguments, script=script, environment=offers)
    assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in kit.iterdir() if each.suffix != ".whl") == [
        "SHA256SUMS", "contents", "docs", "install", "install.sh", "models", "targets"
    ]  # fmt: skip
    assert sorted(each.name for each in (kit / "models").iterdir()) == ["bird", "demo"]

    board = Machine(tmp_path / "board", pip=pip, uname=arch, glibc="2.41")
    done = board.install("--dry-run", script=kit / "install.sh")
    assert "pull demo bird" in done.stdout
    done = board.install(script=kit / "install.sh")
    assert done.returncode == 0, done.stderr
    assert "edge-mnv2 1.0 with web" in done.stdout
    assert next(board.prefix.glob("current/lib/python3*/site-packages/omega")).is_dir()
    assert (board.home / ".cache/edge-mnv2/models/bird").read_text() == "fetched"

    (kit / "models/bird").write_text("damaged")
    (kit / "docs/page.md").unlink()
    done = board.install(script=kit / "install.sh")
    assert done.returncode == 1
    assert "damaged or missing: docs/page.md models/bird" in done.stderr
    # No wheel of the kit, and nothing of it is asked for twice.
    for wrong in (["--python", "2.7"], ["--python", "3.x"], []):
        done = pc.install("--make-kit", str(kit), "--arch", arch, *wrong, script=script)
        assert done.returncode == 2 and done.stderr.startswith("install.sh: ") and len(done.stderr.splitlines()) == 2
        assert " ".join(wrong or ["needs --python"]) in done.stderr


@pytest.mark.slow
def test_one_stick_for_two_boards(pc: Machine, offers: dict[str, str], tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    for version, arch, python in (("1.0", "aarch64", "3.11"), ("1.1", "armv7l", "3.11")):
        script = make_project(tmp_path / "clone", version, requires=REQUIRES, extras=["web", "all"])
        arguments = ["--make-wheelhouse", str(stick), "--arch", arch, "--python", python]
        assert pc.install(*arguments, script=script, environment=offers).returncode == 0
    assert (stick / "targets").read_text() == "aarch64 3.11\narmv7l 3.11\n"
    assert [each.name for each in stick.glob("edge_mnv2-*.whl")] == ["edge_mnv2-1.1-py3-none-any.whl"]
