"""Makes what a board without a network installs from: a wheelhouse, or a kit with models, a clip and the docs too.

Run by `install.sh --make-wheelhouse DIR` and `--make-kit DIR` on a PC with a network. Standard library only; pip works
in an environment of its own, which is removed at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import packages

PROJECT = Path(__file__).resolve().parent.parent
PYTHONS = {
    "aarch64": ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14"),
    "x86_64": ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14"),
    "armv7l": ("3.9", "3.10", "3.11"),
}
"""The machines that a kit can be for, and the Pythons that the interpreter's wheels are made for there."""

USUAL_GLIBC = {"3.9": 31, "3.10": 35, "3.11": 36, "3.12": 39}
"""A system of this Python has at least this C library (2.N): Bullseye, Ubuntu 22.04, Bookworm, Ubuntu 24.04."""

FROM_APT = {
    "armv7l": {"numpy": "python3-numpy", "pillow": "python3-pil", "pyyaml": "python3-yaml",
               "opencv-python-headless": "python3-opencv", "opencv-python": "python3-opencv"},
}  # fmt: skip
"""Packages without wheels on the main index, and the board's own packages that stand in for them."""

PULL_NEEDS = ("typer", "pyyaml", "requests")
"""What `edge-mnv2 pull` imports of our requirements."""

_MOST_ROUNDS = 20


class Refused(Exception):
    """What cannot be done: an exit code, one line, and what to do."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__(code, lines)
        self.code, self.lines = code, list(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--complete", action="store_true", help="a kit, not only a wheelhouse")
    for name in ("arch", "python", "glibc", "extras", "models", "numpy"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--builder", required=True, help="the Python to make an environment with")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


def check(asked: argparse.Namespace) -> None:
    """Complete the options. Raises Refused."""
    maker = "--make-kit" if asked.complete else "--make-wheelhouse"
    if not asked.arch:
        raise Refused(2, f"{maker} needs --arch", "aarch64 (64-bit Pi, Jetson), armv7l (32-bit Pi OS) or x86_64")
    if asked.arch not in PYTHONS:
        hint = "it is called aarch64 here" if asked.arch == "arm64" else "aarch64, armv7l or x86_64"
        raise Refused(2, f"--arch {asked.arch}", hint)
    if not asked.python:
        raise Refused(2, f"{maker} needs --python", "the board's: 3.11 on Bookworm, 3.13 on Trixie, 3.10 on JetPack 6")
    pythons = PYTHONS[asked.arch]
    if asked.python not in pythons:
        raise Refused(2, f"--python {asked.python}", f"for {asked.arch}: {pythons[0]} to {pythons[-1]}")
    major, _, minor = (asked.glibc or f"2.{USUAL_GLIBC.get(asked.python, 41)}").partition(".")
    if major != "2" or not minor.isdigit() or not 10 <= int(minor) < 100:
        raise Refused(2, f"--glibc {asked.glibc}", "a version such as 2.31 (ldd --version on the board says it)")
    asked.glibc = int(minor)
    if not (PROJECT / "pyproject.toml").is_file():
        raise Refused(2, f"{PROJECT} does not hold the project", "run install.sh from a clone of it")
    try:
        packages.chosen(asked.extras, PROJECT / "pyproject.toml")
    except packages.UnknownExtra as error:
        raise Refused(2, f"--extras {asked.extras}: {error}") from None


class Maker:
    """One kit in the making, in a folder of its own inside the target."""

    def __init__(self, asked: argparse.Namespace, work: Path) -> None:
        self.asked, self.work = asked, work
        self.wheels, self.models = work / "wheels", work / "models"
        self.python = work / "venv/bin/python"
        self.log = work / "make.log"
        self.from_apt = FROM_APT.get(asked.arch, {})
        for folder in (self.wheels, self.models):
            folder.mkdir()

    def run(self, what: str, *command: object, **variables: str) -> None:
        """Run a command; what it says goes into the log. Raises Refused where it fails."""
        with open(self.log, "ab") as log:
            done = subprocess.run(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=None if self.asked.verbose else log,
                stderr=None if self.asked.verbose else log,
                env={**os.environ, **variables},
            )
        if done.returncode:
            story = self.asked.into / "make.log"
            shutil.copy(self.log, story)
            code, lines = packages.explain(story, what, "", self.asked.arch, self.asked.python)
            raise Refused(code, *lines)

    def pip(self, what: str, *arguments: object) -> None:
        self.run(what, self.python, "-m", "pip", *arguments)

    def build(self) -> Path:
        """Our own wheel."""
        self.run("making an environment", self.asked.builder, "-m", "venv", self.work / "venv")
        self.pip("building edge-mnv2", "wheel", "-q", "--no-deps", "-w", self.work, PROJECT)
        return next(self.work.glob("edge_mnv2-*.whl"))

    def ask(self, *arguments: object) -> list[str]:
        """What `packages.py` answers, a line each."""
        command = [self.python, packages.__file__, *arguments]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, end="", file=sys.stderr)
            raise Refused(done.returncode)
        return done.stdout.splitlines()

    def fetch_packages(self, wheel: Path) -> None:
        asked, without, python = self.asked, list(self.from_apt), f"{self.asked.python}.0"
        first = self.work / "first.txt"
        wanted = self.ask("requirements", wheel, asked.extras, asked.arch, python, " ".join(without))
        first.write_text("\n".join(wanted))
        constraints = self.work / "constraints.txt"
        constraints.write_text(f"{asked.numpy if asked.arch == 'aarch64' else ''}\n")
        platforms = [f"manylinux_2_{minor}_{asked.arch}" for minor in range(asked.glibc, 16, -1)]
        platforms += [f"manylinux2014_{asked.arch}", f"linux_{asked.arch}"]
        target = ["--implementation", "cp", "--python-version", asked.python]
        target += [word for abi in (f"cp{asked.python.replace('.', '')}", "abi3", "none") for word in ("--abi", abi)]
        target += [word for platform in platforms for word in ("--platform", platform)]
        download = ["download", "-q", "--only-binary", ":all:", *target, "-d", self.wheels, "-c", constraints]
        if not without:
            self.pip("fetching packages", *download, "-r", first)
        # pip evaluates markers for this machine, and what apt provides there must not be looked for.
        for _ in range(_MOST_ROUNDS):
            still = self.ask("missing", self.wheels, first, asked.arch, python, " ".join(without))
            if not still:
                return
            self.pip("fetching packages", *download, "--no-deps", *still)
        raise Refused(1, f"the wheelhouse does not become complete: {' '.join(still)}")

    def pull(self, wheel: Path) -> list[str]:
        """Fetch the models with the command of the wheel itself; the files' names."""
        names = [name for name in self.asked.models.split(",") if name and name != "none"]
        if not names:
            return []
        version = ".".join(map(str, sys.version_info[:3]))
        needs = self.ask("requirements", wheel, "", os.uname().machine, version, "")
        needs = [one for one in needs if packages.canonical(one.split(";")[0]).startswith(PULL_NEEDS)]
        for arguments in (needs, ["--no-deps", "--no-index", wheel]):
            if arguments:
                self.pip("installing what fetches models", "install", "-q", *arguments)
        command = self.work / "venv/bin/edge-mnv2"
        self.run("fetching models", command, "pull", *names, EDGE_MNV2_CACHE_DIR=str(self.models))
        return sorted(path.name for path in (self.models / "models").glob("*") if path.is_file())

    def put(self, wheel: Path, model_files: list[str]) -> None:
        """Move everything to its place in the target."""
        asked, into = self.asked, self.asked.into
        for old in into.glob("edge_mnv2-*.whl"):
            old.unlink()
        for path in (wheel, *self.wheels.glob("*.whl")):
            path.replace(into / path.name)
        # A stick may serve several boards: one line each, with its extras and models.
        target = f"{asked.arch} {asked.python}"
        for name, line in (
            ("targets", target),
            ("contents", f"{target} extras={asked.extras} models={asked.models if asked.complete else ''}"),
        ):
            file = into / name
            lines = file.read_text().splitlines() if file.is_file() else []
            others = [one for one in lines if one != target and not one.startswith(f"{target} ")]
            file.write_text("\n".join(sorted([*others, line])) + "\n")
        # Where they already lie there, they are what they should be.
        if into != PROJECT:
            shutil.copy(PROJECT / "install.sh", into / "install.sh")
            shutil.copytree(PROJECT / "install", into / "install", dirs_exist_ok=True, ignore=_NO_CACHES)
        if not asked.complete:
            return
        (into / "models").mkdir(exist_ok=True)
        for name in model_files:
            (self.models / "models" / name).replace(into / "models" / name)
        for name in ("README.md", "LICENSE", "CHANGELOG.md"):
            if (PROJECT / name).is_file():
                shutil.copy(PROJECT / name, into / name)
        if (PROJECT / "docs").is_dir():
            shutil.copytree(PROJECT / "docs", into / "docs", dirs_exist_ok=True)
        sums = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(into)}"
            for path in sorted(into.rglob("*"))
            if path.is_file() and self.work not in path.parents and path.name not in ("SHA256SUMS", "make.log")
        ]
        (into / "SHA256SUMS").write_text("\n".join(sums) + "\n")


_NO_CACHES = shutil.ignore_patterns("__pycache__")


def describe(asked: argparse.Namespace, without: Iterable[str]) -> None:
    print("It would do this; nothing is changed now:")
    limits = f", without {' '.join(without)}" if without else f", with {asked.numpy}" if asked.arch == "aarch64" else ""
    steps = [f"build edge-mnv2 from {PROJECT}", f"pip download its requirements for that machine{limits}"]
    if asked.complete:
        steps += [f"fetch {asked.models.replace(',', ', ')}" if asked.models else "fetch no models", "copy the docs"]
    for step in [*steps, f"copy install.sh to {asked.into}"]:
        print(f"  {step}")


def make(asked: argparse.Namespace) -> None:
    check(asked)
    what = "kit" if asked.complete else "wheelhouse"
    extras = f", with {asked.extras}" if asked.extras else ""
    print(
        f"{what} for {asked.arch}, Python {asked.python}, C library 2.{asked.glibc} or newer{extras}, in {asked.into}"
    )
    from_apt = FROM_APT.get(asked.arch, {})
    if asked.dry_run:
        describe(asked, from_apt)
        return
    try:
        asked.into.mkdir(parents=True, exist_ok=True)
        work = tempfile.mkdtemp(prefix=".work.", dir=asked.into)
    except OSError as error:
        raise Refused(2, f"{asked.into} cannot be made: {error.strerror}") from None
    # What a download needs is larger than the memory that /tmp often is.
    os.environ["TMPDIR"] = tempfile.tempdir = work
    steps = 3 if asked.complete else 2
    try:
        maker = Maker(asked, Path(work))
        print(f"[1/{steps}] building edge-mnv2", flush=True)
        wheel = maker.build()
        print(f"[2/{steps}] fetching packages", flush=True)
        maker.fetch_packages(wheel)
        model_files: list[str] = []
        if asked.complete:
            print(f"[3/{steps}] fetching {asked.models.replace(',', ', ') or 'no models'}", flush=True)
            model_files = maker.pull(wheel)
        maker.put(wheel, model_files)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    (asked.into / "make.log").unlink(missing_ok=True)
    megabytes = sum(path.stat().st_size for path in asked.into.rglob("*") if path.is_file()) / 1e6
    print(f"Done: {len(list(asked.into.glob('*.whl')))} wheels, {megabytes:.0f} MB.")
    if from_apt:
        print(f"The board also needs, from apt: {' '.join(sorted(set(from_apt.values())))}")
    print(f"On the board: sh {asked.into.name}/install.sh")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        make(options())
    except Refused as error:
        if error.lines:
            packages.complain(error.lines)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
