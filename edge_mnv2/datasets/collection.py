"""Pictures that a run collected because they are worth an answer, with the answers that people gave.

A collection is a folder: `pictures/ID.jpg`, and `index.jsonl`, to which one line is appended for each event (collected,
answered, deleted). A line that a power cut left unfinished is passed over. Everything is readable by its owner alone.
Several processes may use one collection.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.datasets.collected_picture import (
    ID,
    LOOK_SIZE,
    SAME_LOOK,
    Answer,
    Item,
    answer_of,
    identity_of,
    item_of,
    line_of,
    shared,
)
from edge_mnv2.errors import UsageError
from edge_mnv2.files import OutputFolder

log = logging.getLogger(__name__)

_MOST_WASTE = 4
_TAIL = 256
_UNKNOWN = "without a record"
"""The reason of a picture whose line is lost."""


class Collection:
    """The collection in `folder`; made where it is not there yet, unless `create` is False.

    Raises UsageError where the folder cannot be used. Any thread may call anything.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.folder = Path(folder)
        self._index = self.folder / "index.jsonl"
        self._lock_file = self.folder / ".lock"
        self._pictures = self.folder / "pictures"
        self._lock = threading.RLock()
        self._items: dict[str, Item] = {}
        self._deleted: set[str] = set()
        self._read_to = self._lines = self._inode = 0
        self._tail = b""
        self._place: Optional[OutputFolder] = None
        try:
            if create:
                self._place = OutputFolder(self.folder)
                self._make()
                self.tidy()
            elif not self._index.is_file():
                raise UsageError(f"{folder} is not a collection", hint="name a folder that `run --collect` has written")
            self._refresh()
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be used for collected pictures: {error.strerror or error}",
                hint="choose a folder that you can write to",
            ) from None

    @property
    def folders(self) -> list[Path]:
        return [self.folder]

    def items(self) -> list[Item]:
        """Every picture that is there, in the order of collection."""
        with self._lock:
            self._refresh()
            return list(self._items.values())

    def path(self, identity: str) -> Optional[Path]:
        """The file of picture `identity`, None where there is no such picture."""
        if not ID.fullmatch(identity) or identity not in self._items:
            return None
        return self._pictures / f"{identity}.jpg"

    @property
    def size(self) -> int:
        """Bytes of all pictures together."""
        with self._lock:
            return sum(item.bytes for item in self._items.values())

    def novelty(self, look: np.ndarray) -> float:
        """Cosine distance (0..2) of `look` to the nearest picture that is there; 1 where there is none."""
        with self._lock:
            self._refresh()
            looks = [item.look for item in self._items.values() if item.look is not None]
        return float(1 - np.max(np.stack(looks) @ look)) if looks else 1.0

    def add(
        self,
        jpeg: bytes,
        *,
        t: str,
        why: Sequence[str],
        value: float,
        top: Sequence[dict[str, Any]],
        model: str,
        look: Optional[np.ndarray] = None,
        quota: Optional[int] = None,
    ) -> Optional[Item]:
        """Keep a picture, whole or not at all; None where it is there already or worth less than what it would replace.

        Above `quota` bytes the pictures of least value go, never one that was answered. Raises OSError.
        """
        identity = identity_of(jpeg)
        item = Item(identity, t, tuple(why), value, tuple(top), model, len(jpeg), look)
        with self._lock, self._exclusive():
            self._refresh()
            if identity in self._items or not self._make_room(item, quota):
                return None
            with paths.atomic_write(self._pictures / f"{identity}.jpg", private=True) as file:
                file.write(jpeg)
            self._append([line_of(item)])
        return item

    def answer(self, identities: Iterable[str], answer: Optional[Answer]) -> list[str]:
        """Note `answer` for these pictures (None takes answers back); those that are there. Raises OSError."""
        with self._lock, self._exclusive():
            self._refresh()
            there = [identity for identity in identities if identity in self._items]
            said = None if answer is None else {"class": answer.label, "bad": answer.bad}
            self._append([{"id": identity, "answer": said} for identity in there])
        return there

    def delete(self, identities: Optional[Iterable[str]] = None) -> int:
        """Delete these pictures, or all, and every trace of them in the index; how many there were. Raises OSError."""
        with self._lock, self._exclusive():
            self._refresh()
            wanted = self._items if identities is None else dict.fromkeys(identities)
            gone = [one for one in wanted if one in self._items]
            if gone:
                # Said first, and forgotten last: whatever ends this process, they do not come back.
                self._write([{"id": identity, "deleted": True} for identity in gone])
                self._refresh()
                self._unlink(gone)
                self._rewrite()
        return len(gone)

    def tidy(self) -> None:
        """Take in whole pictures that the index does not name (a power cut came between, or folders were put together),
        and remove what is left of others. Raises OSError."""
        lines = []
        with self._exclusive():
            self._refresh()
            for path in self._pictures.iterdir():
                if path.suffix == ".part":
                    path.unlink()
                elif ID.fullmatch(path.stem) and path.stem not in self._items:
                    data = path.read_bytes()
                    if path.stem in self._deleted or identity_of(data) != path.stem:
                        path.unlink()
                        continue
                    taken = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
                    lines.append(line_of(Item(path.stem, taken, (_UNKNOWN,), 0.5, (), "", len(data))))
            self._append(lines)
            if self._deleted:
                self._rewrite()
        if lines:
            log.warning("%s: %d pictures without a record are taken in, unanswered", self.folder, len(lines))

    def _make_room(self, new: Item, quota: Optional[int]) -> bool:
        if quota is None:
            return True
        spare = quota - new.bytes - sum(item.bytes for item in self._items.values())
        leaving: list[str] = []
        for item in sorted(self._items.values(), key=lambda item: item.value):
            if spare >= 0:
                break
            if item.answer is None and item.value < new.value:
                leaving.append(item.id)
                spare += item.bytes
        if spare < 0:
            return False
        # First the line and then the file: what a power cut leaves behind is tidied up at the next start.
        self._write([{"id": identity, "deleted": True} for identity in leaving])
        self._unlink(leaving)
        self._append([])
        return True

    def _make(self) -> None:
        """What belongs into the folder."""
        self._pictures.mkdir(mode=0o700, exist_ok=True)
        for name in (self._index, self._lock_file):
            os.close(os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))

    def _unlink(self, identities: Iterable[str]) -> None:
        for identity in identities:
            (self._pictures / f"{identity}.jpg").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One process writes at a time, to a folder that is there."""
        if self._place and not all(each.exists() for each in (self._pictures, self._index, self._lock_file)):
            self._place.restore()
            self._make()
        with self._lock_file.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _append(self, lines: Sequence[dict[str, Any]]) -> None:
        self._write(lines)
        self._refresh()
        if self._lines > _MOST_WASTE * len(self._items) + 100:
            self._rewrite()

    def _write(self, lines: Sequence[dict[str, Any]]) -> None:
        if not lines:
            return
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        with self._index.open("r+b") as handle:
            end = handle.seek(0, os.SEEK_END)
            if end:
                handle.seek(-1, os.SEEK_END)
                # What a power cut left behind shall not spoil the next line.
                data = data if handle.read(1) == b"\n" else b"\n" + data
            handle.seek(0, os.SEEK_END)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())

    def _rewrite(self) -> None:
        """The index without what is over. Other processes notice that the file is another one."""
        lines = [json.dumps(line_of(item), ensure_ascii=False) + "\n" for item in self._items.values()]
        with paths.atomic_write(self._index, private=True) as file:
            file.write("".join(lines).encode())
        self._refresh()

    def _refresh(self) -> None:
        """Read what was appended since, by whomever. Without an index nothing is there."""
        if not self._index.exists():
            self._forget(0)
            return
        with self._index.open("rb") as handle:
            status = os.fstat(handle.fileno())
            handle.seek(self._read_to - len(self._tail))
            if status.st_ino != self._inode or handle.read(len(self._tail)) != self._tail:
                # Another file. It may have the number of the one before, which is free again.
                self._forget(status.st_ino)
                handle.seek(0)
            for line in handle:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                self._tail = (self._tail + line)[-_TAIL:]
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    self._apply(json.loads(line, object_pairs_hook=shared))
                    self._lines += 1

    def _forget(self, inode: int) -> None:
        """Nothing is known yet of the index that has this number."""
        self._deleted.clear()
        self._items, self._lines, self._read_to, self._tail, self._inode = {}, 0, 0, b"", inode

    def _apply(self, line: dict[str, Any]) -> None:
        identity = line["id"]
        if "t" in line:
            if not ID.fullmatch(identity):
                return
            self._items[identity] = item_of(line)
            self._deleted.discard(identity)
        if line.get("deleted"):
            self._items.pop(identity, None)
            self._deleted.add(str(identity))
        elif "answer" in line and identity in self._items:
            self._items[identity] = replace(self._items[identity], answer=answer_of(line["answer"]))


class Collections:
    """Collections of several boards as one; a picture that several have is answered in each."""

    def __init__(self, parts: Sequence[Collection]) -> None:
        self._parts = parts
        self.folder = parts[0].folder

    @property
    def folders(self) -> list[Path]:
        return [part.folder for part in self._parts]

    @property
    def size(self) -> int:
        return sum(part.size for part in self._parts)

    def items(self) -> list[Item]:
        unique: dict[str, Item] = {}
        for item in (item for part in self._parts for item in part.items()):
            if item.id not in unique or unique[item.id].answer is None:
                unique[item.id] = item
        return list(unique.values())

    def path(self, identity: str) -> Optional[Path]:
        return next((path for part in self._parts if (path := part.path(identity)) is not None), None)

    def answer(self, identities: Iterable[str], answer: Optional[Answer]) -> list[str]:
        wanted = list(identities)
        return list(dict.fromkeys(one for part in self._parts for one in part.answer(wanted, answer)))

    def delete(self, identities: Optional[Iterable[str]] = None) -> int:
        wanted = None if identities is None else list(identities)
        return sum(part.delete(wanted) for part in self._parts)


AnyCollection = Union[Collection, Collections]


def side_by_side(items: Sequence[Item], near: float = 2 * SAME_LOOK) -> list[list[Item]]:
    """`items` in groups of similar looks, the largest group first; inside a group the most valuable first."""
    groups: list[list[Item]] = []
    leaders = np.zeros((len(items), LOOK_SIZE), np.float32)
    for item in sorted(items, key=lambda item: -item.value):
        if item.look is not None and groups:
            likeness = leaders[: len(groups)] @ item.look
            best = int(np.argmax(likeness))
            if 1 - likeness[best] < near:
                groups[best].append(item)
                continue
        if item.look is not None:
            leaders[len(groups)] = item.look
        groups.append([item])
    return sorted(groups, key=len, reverse=True)
