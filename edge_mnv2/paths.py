"""Where things are: data that ships with the package, and the XDG folders of the user.

`EDGE_MNV2_CACHE_DIR`, `EDGE_MNV2_CONFIG_DIR` and `EDGE_MNV2_STATE_DIR` override the XDG folders; they name the
`edge-mnv2` folder itself, not its parent.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

_APP = "edge-mnv2"

NO_HOME = Path("/nonexistent")
"""Nothing is there and nothing can be made there, so that what needs no home works."""


def packaged(*parts: str) -> Path:
    """A file or folder below `devices/` or `models/` as it ships: inside the wheel, or in a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "data"
    root = installed if installed.is_dir() else here.parent
    return root.joinpath(*parts)


def module_command(module: str, *arguments: str) -> list[str]:
    """Runs a module of ours in a process of its own, as `python -m` does; see `program_command`."""
    return program_command(
        f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)", *arguments
    )


def program_command(program: str, *arguments: str) -> list[str]:
    """Runs `program` as `python -c` does, but for what lies in the current folder: there a file of the user's may be
    called like one of the standard library."""
    # Our package comes last: its folder may be site-packages, which must not stand before the standard library.
    package = str(Path(__file__).resolve().parent.parent)
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path[:] = [*filter(None, sys.path), {package!r}]\n{program}",
        *arguments,
    ]


def _xdg(override: str, variable: str, fallback: str) -> Path:
    if value := os.environ.get(override):
        return Path(value).expanduser()
    base = os.environ.get(variable, "")
    # The XDG specification asks to ignore relative paths.
    root = Path(base) if base.startswith("/") else home() / fallback
    return root / _APP


def home() -> Path:
    """The user's home; `NO_HOME` for one that has none (a number without a name, HOME unset)."""
    try:
        return Path.home()
    except RuntimeError:
        return NO_HOME


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
def atomic_write(target: Path, mode: str = "wb", *, private: bool = False) -> Iterator[IO]:
    """Open a temporary file beside `target` and rename it over `target` when the block ends without an error.

    The file appears whole or not at all; it is flushed to the disk before the rename. With `private` its owner alone
    can read it. A device, a pipe and /dev/stdout are written to as they are: nothing takes their place. Raises OSError.
    """
    if _is_special(Path(target)):
        with Path(target).open(mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
        return
    with _unnamed(Path(target), mode, private) as (handle, part):
        yield handle
        _to_disk(handle)
        part.replace(target)


def write_together(contents: Sequence[tuple[Path, bytes]]) -> None:
    """Write files that belong together: all are on the disk before the first one takes its name.

    A kill or a signal leaves all old ones or all new ones: what is still to be renamed is noted beside the last file of
    `contents`, and `finish_writing`, which readers of that file call first, renames it. Raises OSError, whose
    `filename` is the file that could not be written; then none has changed.
    """
    finish_writing(contents[-1][0])
    with contextlib.ExitStack() as unnamed:
        parts = []
        for target, content in contents:
            try:
                if target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                if _is_special(target):
                    raise OSError(errno.EINVAL, "it is no regular file")
                handle, part = unnamed.enter_context(_unnamed(target, "wb"))
                handle.write(content)
                _to_disk(handle)
            except OSError as error:
                error.filename = str(target)
                raise
            parts.append((part, target))
        note = _note_beside(target)
        together = [(part.name, target.name) for part, target in parts if target.parent == note.parent]
        try:
            if len(together) > 1:
                with atomic_write(note, "w") as handle:
                    json.dump(together, handle)
                sync_folder(note.parent)
            for (part, target), (_, content) in zip(parts, contents):
                try:
                    part.replace(target)
                except FileNotFoundError:
                    # A reader may have come upon the note, and done it.
                    if not target.is_file() or target.read_bytes() != content:
                        raise
            sync_folder(note.parent)
        except Exception:
            raise
        except BaseException:
            # A signal: as after a kill, what was begun is completed.
            finish_writing(contents[-1][0])
            raise
        finally:
            note.unlink(missing_ok=True)


def finish_writing(target: Path) -> None:
    """Complete what a killed `write_together` with `target` as its last file began; usually there is nothing to do."""
    try:
        note = _note_beside(target)
        pairs = json.loads(note.read_text(encoding="utf-8"))
        for part, name in pairs:
            # Only what `write_together` makes: plain names of this folder.
            if part == Path(part).name and name == Path(name).name and part.startswith(f".{name}."):
                with contextlib.suppress(FileNotFoundError):
                    (note.parent / part).replace(note.parent / name)
        sync_folder(note.parent)
        note.unlink(missing_ok=True)
    except (OSError, ValueError, TypeError, RecursionError):
        return


def _is_special(target: Path) -> bool:
    """Whether `target` is a device or a pipe, or a name of the system's for something that is open already."""
    if target.is_symlink() and str(target.parent).startswith(("/dev", "/proc")):
        return True
    return target.exists() and not (target.is_file() or target.is_dir())


def _note_beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.together")


def sync_folder(folder: Path) -> None:
    """Bring renames in `folder` to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _unnamed(target: Path, mode: str, private: bool = False) -> Iterator[tuple[IO, Path]]:
    """A temporary file beside `target`, open, and its path; gone where the block ends with an error."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        if not private:
            # mkstemp makes private files; what we write is as readable as any other file of the user.
            os.fchmod(descriptor, 0o666 & ~_umask())
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle, Path(name)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _umask() -> int:
    """Rights that new files do not get. `os.umask` tells them by taking them away, from other threads' files too."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_bytes().partition(b"\nUmask:")[2].split()[0], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _to_disk(handle: IO) -> None:
    handle.flush()
    os.fsync(handle.fileno())
