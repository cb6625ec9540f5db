"""Where things are: data that ships with the package, and the XDG folders of the user.

`EDGE_MNV2_CACHE_DIR`, `EDGE_MNV2_CONFIG_DIR` and `EDGE_MNV2_STATE_DIR` override the XDG folders; they name the
`edge-mnv2` folder itself, not its parent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

_APP = "edge-mnv2"


def packaged(*parts: str) -> Path:
    """A file or folder below `devices/` or `models/` as it ships: inside the wheel, or in a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "data"
    root = installed if installed.is_dir() else here.parent
    return root.joinpath(*parts)


def _xdg(override: str, variable: str, fallback: str) -> Path:
    if value := os.environ.get(override):
        return Path(value).expanduser()
    base = os.environ.get(variable, "")
    # The XDG specification asks to ignore relative paths.
    root = Path(base) if base.startswith("/") else Path.home() / fallback
    return root / _APP


def cache_dir() -> Path:
    """Downloaded models and clips (`models/` below it)."""
    return _xdg("EDGE_MNV2_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def config_dir() -> Path:
    """The user's own settings; device profiles are in `devices/` below it."""
    return _xdg("EDGE_MNV2_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")


def state_dir() -> Path:
    """What the tool remembers between runs and can do without."""
    return _xdg("EDGE_MNV2_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def utf8_named(path: Path) -> bool:
    """Whether `path` is called the same in UTF-8, which native libraries are given, as in the file system."""
    try:
        return str(path).encode() == os.fsencode(path)
    except UnicodeEncodeError:
        return False


@contextlib.contextmanager
def atomic_write(target: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside `target` and rename it over `target` when the block ends without an error.

    The file appears whole or not at all; it is flushed to the disk before the rename. Raises OSError.
    """
    target = Path(target)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with _readable(descriptor, mode) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def write_together(contents: Sequence[tuple[Path, bytes]]) -> None:
    """Write files that belong together: all are on the disk before the first one takes its name.

    Raises OSError, whose `filename` is the file that could not be written; then none has changed.
    """
    with contextlib.ExitStack() as open_files:
        # They are left in reverse: the first of `contents` takes its name first.
        for target, content in reversed(contents):
            try:
                if target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                handle = open_files.enter_context(atomic_write(target))
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            except OSError as error:
                error.filename = str(target)
                raise


def _readable(descriptor: int, mode: str) -> IO:
    # mkstemp makes private files; what we write is as readable as any other file of the user.
    umask = os.umask(0)
    os.umask(umask)
    os.fchmod(descriptor, 0o666 & ~umask)
    return os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8")
