"""What pip cannot be asked: the requirements of another machine, and what its complaints mean.

    packages.py extras SOURCE EXTRAS                                 refuses extras that a wheel or pyproject.toml lacks
    packages.py requirements WHEEL EXTRAS MACHINE PYTHON WITHOUT     what the wheel asks for, one requirement a line
    packages.py missing WHEELS FIRST MACHINE PYTHON WITHOUT          what FIRST (a file) and the wheels still ask for
    packages.py explain LOG WHAT WHEELHOUSE MACHINE PYTHON           what went wrong, on stderr, and its exit code

Run by install.sh with a Python that has pip. pip evaluates the markers of requirements for the machine that it runs on,
and by the kernel's name: it is wrong for a 32-bit system on a 64-bit kernel, which 32-bit Raspberry Pi OS is on a Pi 4.
"""

from __future__ import annotations

import re
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

NO_CONNECTION = re.compile(
    r"Temporary failure|Name or service|Network is unreachable|NewConnectionError|Connection (refused|broken|reset)"
    r"|Read timed out|ConnectTimeout|ProxyError|SSLError|CERTIFICATE_VERIFY"
)
"""How pip says that it did not reach the index."""


class UnknownExtra(ValueError):
    """An extra that the wheel does not offer."""


def canonical(name: str) -> str:
    """The normalized name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def metadata(wheel: Path) -> Message:
    """The METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(member for member in archive.namelist() if member.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def environment(machine: str, python: str) -> dict:
    """The markers' environment of CPython `python` ("3.11.2") on Linux, whose programs are for `machine`."""
    from pip._vendor.packaging.markers import default_environment

    return {
        **default_environment(),
        "platform_machine": machine,
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python,
        "implementation_version": python,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
    }


def required(head: Message, extras: list, target: dict) -> list:
    """The requirements of a wheel for `target` with `extras`, without their markers."""
    from pip._vendor.packaging.requirements import Requirement

    requirements = []
    for text in head.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**target, "extra": extra}) for extra in ["", *extras]):
            requirement.marker = None
            requirements.append(requirement)
    return requirements


def offered(source: Path) -> list:
    """The extras of a wheel, or of a `pyproject.toml`: old Pythons have no reader of TOML, and ours has a line each."""
    if source.suffix == ".whl":
        return metadata(source).get_all("Provides-Extra") or []
    section = source.read_text(encoding="utf-8").partition("[project.optional-dependencies]\n")[2]
    return re.findall(r"^([A-Za-z0-9_.-]+) *=", re.split(r"^\[", section, flags=re.MULTILINE)[0], re.MULTILINE)


def chosen(extras: str, source: Path) -> list:
    """The names in the list `extras`. Raises UnknownExtra for one that `source` does not offer."""
    names = [canonical(extra) for extra in extras.split(",") if extra]
    known = [canonical(extra) for extra in offered(source)]
    for name in names:
        if name not in known:
            raise UnknownExtra(f"there is no extra {name}: there are {', '.join(sorted(known))}")
    return names


def own_requirements(wheel: Path, extras: str, machine: str, python: str, without: list) -> list:
    """What our wheel asks for there, extras of extras included, as texts. Raises UnknownExtra."""
    head, names = metadata(wheel), chosen(extras, wheel)
    target, own = environment(machine, python), canonical(head["Name"])
    while True:
        requirements = required(head, names, target)
        inner = {canonical(extra) for one in requirements if canonical(one.name) == own for extra in one.extras}
        if inner <= set(names):
            break
        names += sorted(inner - set(names))
    return [str(one) for one in requirements if canonical(one.name) not in (own, *without)]


def missing(wheels: Path, first: list, machine: str, python: str, without: list) -> list:
    """What the requirements `first`, and the wheels in a folder, still ask for there; empty when nothing is missing."""
    from pip._vendor.packaging.requirements import Requirement

    target = environment(machine, python)
    heads = {canonical(head["Name"]): head for head in map(metadata, sorted(wheels.glob("*.whl")))}
    todo = [Requirement(text) for text in first]
    asked: dict = {}
    while todo:
        one = todo.pop()
        name = canonical(one.name)
        if name in without or str(one) in asked.get(name, {}):
            continue
        asked.setdefault(name, {})[str(one)] = one
        if name in heads:
            todo += required(heads[name], list(one.extras), target)
    return [
        name + ",".join(str(one.specifier) for one in ones.values() if str(one.specifier))
        for name, ones in sorted(asked.items())
        if name not in heads
    ]


def explain(log: Path, what: str, wheelhouse: str, machine: str, python: str) -> tuple:
    """(exit code, lines): the last thing that pip complained of in `log`, and what it means."""
    text = log.read_text(encoding="utf-8", errors="replace")
    complaints = re.findall(r"^ *((?:ERROR|error):.*)$", text, re.MULTILINE)
    cause = complaints[-1][:300] if complaints else "pip gave no reason"
    story = f"everything that pip said is in {log}"
    if re.search("no space left", text, re.IGNORECASE):
        return 1, [f"{what} failed: the disk is full", "make room, or choose another folder"]
    if wheelhouse:
        fill = f"make it again on a PC: ./install.sh --make-wheelhouse DIR --arch {machine} --python {python}"
        return 1, [f"{what} failed: {wheelhouse} lacks something that this machine needs", cause, fill, story]
    if NO_CONNECTION.search(text):
        offline = "without a network: --make-kit DIR (or --make-wheelhouse DIR) on a PC, then sh DIR/install.sh here"
        return 7, [f"{what} failed: the package index could not be reached", cause, offline, story]
    return 1, [f"{what} failed", cause, story]


def complain(lines: list) -> None:
    """One line, then what to do below it, as install.sh writes it."""
    print(f"install.sh: {lines[0]}", *(f"  {line}" for line in lines[1:]), sep="\n", file=sys.stderr)


def main(command: str, *arguments: str) -> int:
    if command in ("extras", "requirements"):
        source, extras, *rest = arguments
        try:
            if command == "extras":
                chosen(extras, Path(source))
                return 0
            machine, python, without = rest
            lines = own_requirements(Path(source), extras, machine, python, without.split())
        except UnknownExtra as error:
            complain([f"--extras {extras}: {error}"])
            return 2
        print(*lines, sep="\n")
        return 0
    if command == "missing":
        wheels, first, machine, python, without = arguments
        texts = Path(first).read_text().split("\n")
        lines = missing(Path(wheels), [text for text in texts if text], machine, python, without.split())
        print(*lines, sep="\n", end="\n" if lines else "")
        return 0
    log, what, wheelhouse, machine, python = arguments
    code, lines = explain(Path(log), what, wheelhouse, machine, python)
    complain(lines)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
