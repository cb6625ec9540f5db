"""Read the files by which a board describes itself, from `/` or from a copy of a board's tree."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Optional, Union

_LIMIT = 4 << 20
_MAX_LINKS = 40


class Sysroot:
    """A folder that holds `proc/`, `sys/`, `etc/` as a board shows them.

    Paths are given without the leading slash. Links are followed inside the folder, absolute ones too, so that a copied
    tree never answers with this machine's files. What cannot be read is None: sensors come and go.
    """

    def __init__(self, root: Union[str, Path] = "/") -> None:
        self.path = Path(root).absolute()

    @property
    def live(self) -> bool:
        """Whether this is the running system and not a tree copied from somewhere."""
        return self.path == Path("/")

    def resolve(self, path: str) -> Optional[Path]:
        """Where `path` really is, or None where nothing is there (or the links go round in circles)."""
        if self.live:
            place = self.path / path
            return place if place.exists() else None
        pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
        place, links = self.path, 0
        while pending:
            part = pending.pop()
            if part == "..":
                place = place.parent if place != self.path else place
                continue
            candidate = place / part
            try:
                target = str(candidate.readlink())
            except OSError:
                place = candidate
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            if target.startswith("/"):
                place = self.path
            pending.extend(part for part in target.split("/")[::-1] if part not in ("", "."))
        return place if place.exists() else None

    def read_bytes(self, path: str, limit: int = _LIMIT) -> Optional[bytes]:
        """The first `limit` bytes of a regular file, or None."""
        try:
            place = f"/{path}" if self.live else self.resolve(path)
            if place is None:
                return None
            # Not blocking, so that a pipe in a copied tree cannot hang us.
            handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                return _read_all(handle, limit)
            finally:
                os.close(handle)
        except (OSError, ValueError):
            return None

    def read(self, path: str) -> Optional[str]:
        """The text of a file without surrounding blanks and NUL bytes, or None where it is missing or empty."""
        data = self.read_bytes(path)
        if data is None:
            return None
        return data.decode("utf-8", "replace").strip(" \t\r\n\0") or None

    def read_int(self, path: str) -> Optional[int]:
        """A decimal number from a file, or None."""
        text = self.read(path)
        try:
            return int(text) if text else None
        except ValueError:
            return None

    def fields(self, path: str, separator: str = ":") -> dict[str, str]:
        """The lines `NAME : VALUE` of a file, without blanks and quotes; of several with one name, the first."""
        fields: dict[str, str] = {}
        for line in (self.read(path) or "").splitlines():
            name, present, value = line.partition(separator)
            if present and not name.startswith("#"):
                fields.setdefault(name.strip(), value.strip().strip("\"'"))
        return fields

    def exists(self, path: str) -> bool:
        try:
            return self.resolve(path) is not None
        except OSError:
            return False

    def names(self, folder: str, prefix: str = "") -> list[str]:
        """Names in `folder` that begin with `prefix`, in numeric order; empty where it is missing."""
        try:
            place = self.resolve(folder)
            names = [] if place is None else [entry.name for entry in place.iterdir() if entry.name.startswith(prefix)]
        except OSError:
            return []
        return sorted(names, key=_natural)

    def which(self, program: str) -> Optional[str]:
        """The path of a program: on PATH for the running system, in the tree's own `bin` folders otherwise."""
        if self.live and (path := shutil.which(program)):
            return path
        for folder in ("bin", "usr/bin", "usr/sbin", "sbin", "opt/vc/bin"):
            try:
                place = self.resolve(f"{folder}/{program}")
                if place is not None and place.is_file() and os.access(place, os.X_OK):
                    return str(place)
            except OSError:
                continue
        return None


def _read_all(handle: int, limit: int) -> bytes:
    parts = []
    while limit > 0:
        part = os.read(handle, min(limit, 1 << 16))
        if not part:
            break
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _natural(name: str) -> tuple[str, int]:
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0
_RETRY_S = 60.0


class BoardTool:
    """One program. An answer is kept for `keep_s` seconds.

    A question that has never been answered rests for a minute; one that has is asked again soon, then ever more seldom.
    """

    def __init__(self, tree: Sysroot, program: str, keep_s: float = 2.0) -> None:
        self._path = tree.which(program)
        self._keep_s = keep_s
        self._answers: dict[tuple[str, ...], tuple[float, Optional[str]]] = {}
        self._failures: dict[tuple[str, ...], int] = {}

    @property
    def present(self) -> bool:
        return self._path is not None

    def ask(self, *arguments: str) -> Optional[str]:
        """What the program prints for `arguments`, or None where it is missing, fails or hangs."""
        if self._path is None:
            return None
        now = time.monotonic()
        if arguments in self._answers:
            until, answer = self._answers[arguments]
            if now < until:
                return answer
        answer = self._run(arguments)
        self._answers[arguments] = (time.monotonic() + self._rest_s(arguments, answer), answer)
        return answer

    def _rest_s(self, arguments: tuple[str, ...], answer: Optional[str]) -> float:
        if answer is not None:
            self._failures[arguments] = 0
            return self._keep_s
        if arguments not in self._failures:
            return _RETRY_S
        self._failures[arguments] += 1
        return min(self._keep_s * 2 ** min(self._failures[arguments], 10), _RETRY_S)

    def _run(self, arguments: tuple[str, ...]) -> Optional[str]:
        try:
            done = subprocess.run(
                [str(self._path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.debug("%s %s: %s", self._path, " ".join(arguments), error)
            return None
        answer = done.stdout.decode("utf-8", "replace").strip()
        if done.returncode != 0 or answer.startswith("error"):
            log.debug("%s %s ended with %d: %s", self._path, " ".join(arguments), done.returncode, answer)
            return None
        return answer
