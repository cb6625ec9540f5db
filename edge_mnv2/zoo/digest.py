"""sha256 of files, computed again only when a file has changed.

What was computed is remembered in `hashes.json` in the state folder with the file's size, times and inode. The
change time (ctime) cannot be set back by a program, so a file that was altered and given its old modification time is
seen. The memory is an aid: where it cannot be read or written, files are simply hashed each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Union

from edge_mnv2 import paths

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
    memory = {} if fresh else _read()
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


def _read() -> dict:
    try:
        memory = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(memory, dict):
        return {}
    return {key: row for key, row in memory.items() if isinstance(row, list) and len(row) == 6}


def _remember(key: str, row: list) -> None:
    memory = _read()
    memory[key] = row
    if len(memory) > _MOST_REMEMBERED:
        memory = {path: row for path, row in memory.items() if Path(path).exists()}
        memory = dict(list(memory.items())[-_MOST_REMEMBERED:])
    with contextlib.suppress(OSError):
        _memory().parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic_write(_memory(), "w") as handle:
            json.dump(memory, handle)
