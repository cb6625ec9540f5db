"""Sets up a Coral Edge TPU: its runtime from apt, udev rules, the user's group. Standard library only.

Run by `install.sh --edgetpu`. What needs root is shown before it is done, and asked of sudo. `--root` is a folder that
stands for /, for tests. Exit code 1 where something is left to do by hand.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RULES = """\
# Coral Edge TPU: the USB stick before and after its firmware is loaded, and the PCIe card.
SUBSYSTEM=="usb", ATTRS{idVendor}=="1a6e", ATTRS{idProduct}=="089a", GROUP="plugdev", MODE="0660", TAG+="uaccess"
SUBSYSTEM=="usb", ATTRS{idVendor}=="18d1", ATTRS{idProduct}=="9302", GROUP="plugdev", MODE="0660", TAG+="uaccess"
SUBSYSTEM=="apex", GROUP="plugdev", MODE="0660", TAG+="uaccess"
"""
RULES_FILE = "etc/udev/rules.d/65-edge-mnv2-coral.rules"

CLOCKS = {
    "std": "(--edgetpu=max is about twice the clock: faster, more power, and hot enough to burn and to need cooling)",
    "max": "(the maximum clock: the stick gets hot enough to burn; keep it in moving air, or take --edgetpu=std)",
}


def note(text: str) -> None:
    print(f"  {text}", flush=True)


def answer(*command: str) -> str:
    """What a program prints; "" where it is missing or fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


class Setup:
    """One set-up: finds out what is missing, then does it, or says it with `dry_run`."""

    def __init__(self, clock: str, root: Path, dry_run: bool) -> None:
        self.package = f"libedgetpu1-{clock}"
        self.other = f"libedgetpu1-{'std' if clock == 'max' else 'max'}"
        self.rules = root / RULES_FILE
        self.live = root == Path("/")
        self.dry_run = dry_run
        self.user = answer("id", "-un")
        self.sudo = [] if answer("id", "-u") == "0" else ["sudo"]
        self.failed = False

    def missing(self) -> list[str]:
        """Which of "package", "rules" and "group" have to be set up."""
        todo = []
        if is_installed(self.package):
            note(f"{self.package} is installed")
        elif any(
            line.strip().startswith("Candidate:") and "(none)" not in line
            for line in answer("apt-cache", "policy", self.package).splitlines()
        ):
            todo.append("package")
        else:
            note(f"{self.package} is not in this machine's package sources: docs/edgetpu.md says where it comes from")
            self.failed = True
        if not self.rules.is_file() or self.rules.read_text() != RULES:
            todo.append("rules")
        if self.sudo and "plugdev" not in answer("id", "-Gn", self.user).split():
            todo.append("group")
        return todo

    def run(self) -> int:
        todo = self.missing()
        if not todo:
            note("udev rules and group are in place: nothing to do")
            return int(self.failed)
        if self.sudo and not self.dry_run:
            if self.can_ask():
                note("these need root:")
            else:
                print("install.sh: these need root, and sudo cannot ask for a password here; run them yourself:",
                      file=sys.stderr, flush=True)  # fmt: skip
                self.dry_run = self.failed = True
        for step in todo:
            getattr(self, f"set_up_{step}")()
        if not self.dry_run and not self.failed:
            note("plug the stick out and in, then: edge-mnv2 doctor")
        return int(self.failed)

    def can_ask(self) -> bool:
        """Whether sudo is there and works without a password, or can ask for one on a terminal."""
        if shutil.which("sudo") is None:
            return False
        return sys.stdin.isatty() or subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL).returncode == 0

    def as_root(self, *command: str) -> bool:
        """Show a command that needs root, and do it. Whether it succeeded."""
        note(shlex.join([*self.sudo, *command]))
        if self.dry_run:
            return True
        try:
            return subprocess.run([*self.sudo, *command], stdout=subprocess.DEVNULL).returncode == 0
        except OSError:
            return False

    def set_up_package(self) -> None:
        # The two clocks are two packages that exclude each other.
        if is_installed(self.other):
            note(f"({self.other} is installed and will be replaced)")
        if not self.as_root("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", self.package):
            print(f"install.sh: apt could not install {self.package}", file=sys.stderr)
            self.failed = True

    def set_up_rules(self) -> None:
        if self.dry_run:
            note(f"{shlex.join([*self.sudo, 'tee', str(self.rules)])}, with:")
            print("".join(f"    {line}" for line in RULES.splitlines(keepends=True)), end="")
        else:
            with tempfile.NamedTemporaryFile("w", suffix=".rules") as staged:
                staged.write(RULES)
                staged.flush()
                written = self.as_root("mkdir", "-p", str(self.rules.parent)) and self.as_root(
                    "install", "-m", "644", staged.name, str(self.rules)
                )
            if not written:
                print(f"install.sh: {self.rules} could not be written", file=sys.stderr)
                self.failed = True
        # In a container there is no udev to tell.
        if self.live and shutil.which("udevadm"):
            self.as_root("udevadm", "control", "--reload-rules")
            self.as_root("udevadm", "trigger", "--subsystem-match=usb", "--subsystem-match=apex")

    def set_up_group(self) -> None:
        if not answer("getent", "group", "plugdev") and subprocess.run(["getent", "group", "plugdev"]).returncode:
            self.as_root("groupadd", "--system", "plugdev")
        if not self.as_root("usermod", "-aG", "plugdev", self.user):
            self.failed = True
        note("log out and in again: a new group counts from the next login on")


def is_installed(package: str) -> bool:
    return "install ok installed" in answer("dpkg-query", "-W", "-f", "${Status}", package)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="std")
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    print(f"\nCoral Edge TPU, {arguments.clock} clock:")
    note(CLOCKS[arguments.clock])
    return Setup(arguments.clock, arguments.root, arguments.dry_run).run()


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
