"""Hand-over between a thread that captures and one that reads: only the newest item counts."""

from __future__ import annotations

import threading
import time
from typing import Generic, Optional, TypeVar

T = TypeVar("T")


class Newest(Generic[T]):
    """A slot that holds the newest item. Nothing queues up, whatever the speeds of both sides."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Optional[T] = None
        self._failure: Optional[Exception] = None
        self._closed = False
        self.count = 0

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, item: T) -> bool:
        """Replace whatever lies in the slot. False once the reader has closed: the producer shall stop."""
        with self._changed:
            if self._closed:
                return False
            self._item = item
            self.count += 1
            self._changed.notify_all()
            return True

    def fail(self, error: Exception) -> None:
        """Let the reader's `take` raise `error` once it has taken what lies in the slot."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def close(self) -> None:
        """Wake the reader, which gets None, and turn the producer away."""
        with self._changed:
            self._closed = True
            self._item = None
            self._changed.notify_all()

    def ready(self, limit_s: float) -> bool:
        """Wait until an item lies in the slot, at most `limit_s` seconds. Raises what the producer failed with."""
        with self._changed:
            self._wait(limit_s)
            return self._item is not None

    def take(self, limit_s: float) -> Optional[tuple[T, int]]:
        """(newest item, its number from 0), each item once; None after `close` .

        Raises TimeoutError after `limit_s` seconds without one, and what the producer failed with.
        """
        with self._changed:
            self._wait(limit_s)
            if self._closed:
                return None
            if self._item is None:
                raise TimeoutError
            item, self._item = self._item, None
            return item, self.count - 1

    def _wait(self, limit_s: float) -> None:
        until = time.monotonic() + limit_s
        while self._item is None and not self._closed:
            if self._failure is not None:
                raise self._failure
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)
