"""The one place where a frame waits between the thread that reads it and the one that classifies it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from typing import Generic, Optional, TypeVar

from edge_mnv2.errors import SourceLost

T = TypeVar("T")


class Silence(SourceLost):
    """A device that is open gives nothing any more."""


class Handover(Generic[T]):
    """The newest item (`depth` 0: an item that nobody took is replaced and counted in `dropped`), or a queue of `depth`
    whose writer waits until half of it is free: waking it for each item would cost a thread switch each time.

    One writer, any number of readers.
    """

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        lock = threading.Lock()
        self._filled, self._room = threading.Condition(lock), threading.Condition(lock)
        self._ended = False
        self._error: Optional[BaseException] = None
        self.closed = False
        self.dropped = 0

    def put(self, item: T) -> bool:
        """Hand `item` over. False where nobody reads any more: the writer shall stop."""
        with self._filled:
            while self._depth and len(self._items) >= self._depth and not self._ended:
                self._room.wait()
            if self._ended:
                self.dropped += 1
                return False
            if not self._depth and self._items:
                self._items.clear()
                self.dropped += 1
            self._items.append(item)
            self._filled.notify()
            return True

    def finish(self, error: Optional[BaseException] = None) -> None:
        """The writer has no more items; `error` is raised to the readers after the last one is taken."""
        with self._filled:
            self._error = self._error or error
            self._ended = True
            self._filled.notify_all()

    def close(self) -> None:
        """The readers are done: what is left counts as dropped, a waiting writer or reader is let go."""
        with self._filled:
            self.closed = self._ended = True
            self.dropped += len(self._items)
            self._items.clear()
            self._filled.notify_all()
            self._room.notify_all()

    def ready(self, limit_s: float) -> bool:
        """Wait at most `limit_s` seconds for an item and leave it there. Raises the writer's error."""
        with self._filled:
            self._wait(limit_s)
            return bool(self._items)

    def take(self, limit_s: float) -> Optional[T]:
        """The next item; None after `limit_s` seconds and at the end (see `ended`). Raises the writer's error."""
        with self._filled:
            self._wait(limit_s)
            if not self._items:
                return None
            item = self._items.popleft()
            if self._depth and len(self._items) <= self._depth // 2:
                self._room.notify()
            return item

    @property
    def ended(self) -> bool:
        """No item is left and none will come."""
        return self._ended and not self._items

    def __len__(self) -> int:
        """Items that wait to be taken."""
        return len(self._items)

    def _wait(self, limit_s: float) -> None:
        until = time.monotonic() + limit_s
        while not self._items and not self._ended:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._filled.wait(left)
        if self._error is not None and not self._items and not self.closed:
            raise self._error


class NewestItem(Handover[tuple[T, int]]):
    """The newest item of a live device called `name`, numbered from 0, and whether the device has fallen silent."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._count = 0
        self._silent_since = math.inf

    def add(self, item: T) -> bool:
        """`put` with the item's number."""
        self._count += 1
        return self.put((item, self._count - 1))

    def skip(self, count: int) -> None:
        """Number `count` items that came and are not handed over."""
        self._count += count

    def take_within(self, stall_s: float, limit_s: Optional[float] = None) -> Optional[tuple[T, int]]:
        """(newest item, its number), each item once; None after `limit_s` seconds, or once closed.

        Raises Silence after `stall_s` seconds without an item.
        """
        self._silent_since = min(self._silent_since, time.monotonic())
        left = max(0.0, self._silent_since + stall_s - time.monotonic())
        taken = self.take(left if limit_s is None else min(left, limit_s))
        now = time.monotonic()
        if taken is not None:
            self._silent_since = now
        elif not self.closed and now - self._silent_since >= stall_s:
            raise Silence(f"{self._name} has given no frame for {stall_s:.1f} s")
        return taken
