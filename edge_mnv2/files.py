"""What a file is: by its first bytes, for the message about one that is not what it should be; by its sha256, computed
again only when it has changed. And files that are written to: what room a file system keeps for others.

A sha256 is remembered in `hashes.json` in the state folder with the file's size, times and inode. The change time
(ctime) cannot be set back by a program, so a file that was altered and given its old modification time is seen. The
memory is an aid: where it cannot be read or written, files are simply hashed each time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Optional, Union

from edge_mnv2 import paths

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_MOST_REMEMBERED = 500
_TICK_NS = 2_500_000_000
"""FAT stores times in steps of two seconds: a file changed so recently may change again within the same stamp."""


def sha256_of(path: Union[Path, str], *, fresh: bool = False) -> str:
    """The sha256 of a file as hex digits. `fresh` hashes it even where nothing seems to have changed.

    Raises OSError.
    """
    path = Path(path)
    key = os.path.realpath(path)
    stamp = _stamp(path)
    memory = {} if fresh else _remembered()
    known = memory.get(key)
    if known is not None and known[:-1] == stamp:
        return known[-1]
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    hexdigest = digest.hexdigest()
    if _stamp(path) == stamp and _settled(stamp):
        _remember(key, [*stamp, hexdigest])
    return hexdigest


def _stamp(path: Path) -> list:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _settled(stamp: list) -> bool:
    # Times ahead of the clock (a board that starts in 1970) count as settled too.
    return all(abs(time.time_ns() - at) > _TICK_NS for at in stamp[1:3])


def _memory() -> Path:
    return paths.state_dir() / "hashes.json"


def _remembered() -> dict:
    try:
        memory = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(memory, dict):
        return {}
    return {key: row for key, row in memory.items() if isinstance(row, list) and len(row) == 6}


def _remember(key: str, row: list) -> None:
    memory = _remembered()
    memory[key] = row
    if len(memory) > _MOST_REMEMBERED:
        memory = {path: row for path, row in memory.items() if Path(path).exists()}
        memory = dict(list(memory.items())[-_MOST_REMEMBERED:])
    with contextlib.suppress(OSError):
        _memory().parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic_write(_memory(), "w") as handle:
            json.dump(memory, handle)


_MOST_FLOOR = 50_000_000
_FLOOR_SHARE = 0.02
_LOOK_S = 1.0


class Floor:
    """Free bytes below which nothing more is written to the file system of `path`.

    Without `least`: two percent of the file system, at most 50 MB, so that the rest of the board goes on working.
    The file system is asked once a second.
    """

    def __init__(self, path: Path, least: Optional[int] = None) -> None:
        self._path = path
        self._least = least
        self._looked_at = 0.0
        self._low: Optional[int] = None

    def low(self, *, now: bool = False) -> bool:
        """There is less room than that; `now` looks whatever was seen a moment ago."""
        if now or time.monotonic() - self._looked_at >= _LOOK_S:
            self._looked_at = time.monotonic()
            self._low = self._missing()
        return self._low is not None

    def check(self) -> None:
        """Raises OSError (ENOSPC) where there is less room than that."""
        if self.low():
            assert self._low is not None
            raise OSError(errno.ENOSPC, f"less than {_in_words(self._low)} free there")

    def _missing(self) -> Optional[int]:
        """The floor in bytes where it is reached, else None."""
        try:
            room = os.statvfs(self._path)
        except OSError:
            # What is wrong shows when something is written.
            return None
        least = self._least
        if least is None:
            least = min(_MOST_FLOOR, int(room.f_blocks * room.f_frsize * _FLOOR_SHARE))
        return least if room.f_bavail * room.f_frsize < least else None


class OutputFolder:
    """A folder that is written to for as long as a run lasts: made here, and made anew where it was removed meanwhile.

    Nothing is put where its disk was mounted and is not any more: the disk comes back with what it holds.
    Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._mount = Path(os.path.realpath(path))
        while not os.path.ismount(self._mount):
            self._mount = self._mount.parent

    @property
    def there(self) -> bool:
        """Whether it is there, and not only the place where its disk was."""
        return self.path.exists() and os.path.ismount(self._mount)

    def restore(self) -> None:
        """Make it anew, and say so. Raises OSError where its disk is not there."""
        if not os.path.ismount(self._mount):
            raise OSError(errno.ENODEV, f"the disk of {self._mount} is not there")
        self.path.mkdir(parents=True, exist_ok=True)
        log.warning("%s was removed or emptied, and is made anew", self.path)


def moved(descriptor: int, path: Path) -> bool:
    """`path` is no longer the file that `descriptor` writes to: it was deleted, renamed or replaced."""
    here = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)


def append_whole(descriptor: int, data: bytes) -> None:
    """Append to a regular file that is open at its end: everything, or nothing and OSError."""
    size = os.fstat(descriptor).st_size
    try:
        write_all(descriptor, data)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
            os.lseek(descriptor, size, os.SEEK_SET)
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however often that takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _in_words(size: int) -> str:
    for unit, step in (("GB", 10**9), ("MB", 10**6)):
        if size >= step:
            return f"{size / step:.3g} {unit}"
    return f"{size / 1000:.3g} kB"


LFS_POINTER = "a Git LFS pointer, not the file itself"

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(!doctype html|html|head|body|meta|script|title)\b", re.I | re.S)
_MOST_SHOWN = 80
_BINARY = (
    (0, b"PK", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x89HDF", "an HDF5 file"),
    (4, b"TFL3", "a .tflite model"),
    (0, b"RKNN", "a model that is compiled for a Rockchip NPU"),
    (0, b"\0" * 8, "zeros at its beginning: the copy did not finish"),
)


def content(head: bytes) -> Optional[str]:
    """The first bytes of a file in words ("a ZIP archive", "an HTML page 'Sign in'"), None for an unknown kind."""
    for start, mark, words in _BINARY:
        if head[start : start + len(mark)] == mark:
            return words
    return text_content(head)


def text_content(head: bytes) -> Optional[str]:
    """The first bytes of a text in words ("an HTML page 'Sign in'"), None where they are no text."""
    if not head:
        return "an empty body"
    text = _text(head)
    if text is None:
        return None
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("version https://git-lfs"):
        return LFS_POINTER
    if _MARKUP.match(start):
        title = _TITLE.search(text)
        import html

        name = " ".join(html.unescape(title.group(1)).split())[:_MOST_SHOWN] if title else ""
        return f"an HTML page '{name}'" if name else "an HTML page"
    if start[:1] == "<":
        return "an XML document"
    first = " ".join(start.split("\n", 1)[0].split())[:_MOST_SHOWN]
    return f"text that begins '{first}'" if first else "an empty page"


def _text(head: bytes) -> Optional[str]:
    """The head as text, None where it holds bytes that text does not."""
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head):
        return None
    text = head.decode("utf-8", errors="replace")
    # A page in another encoding is still a page; half of a binary file is not.
    return text if text.count("\ufffd") <= len(text) // 4 else None
