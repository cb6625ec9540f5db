"""Events that wait for somebody who may be away: bounded, in order, each with a name of its own."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Iterable
from typing import Any, Optional

from edge_mnv2.outputs.log_file import as_event
from edge_mnv2.pipeline.decision import Event

MOST_WAITING = 1000


class Outbox:
    """A queue of event documents. The oldest is given up when more than `most` wait, and counted in `lost`.

    Every document has an `id` that no other event of any run has, so that a receiver can tell a repetition.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._waiting: deque[dict[str, Any]] = deque()
        self._most = most
        self._run = uuid.uuid4().hex[:12]
        self._count = 0
        self._lock = threading.Lock()
        self.lost = 0

    def put(self, events: Iterable[Event]) -> None:
        """Put events at the end."""
        with self._lock:
            for event in events:
                self._count += 1
                self._waiting.append({"id": f"{self._run}-{self._count}", **as_event(event)})
            while len(self._waiting) > self._most:
                self._waiting.popleft()
                self.lost += 1

    def take(self) -> Optional[dict[str, Any]]:
        """The oldest, removed; None where nothing waits."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def give_up(self) -> None:
        """Count as lost what still waits."""
        with self._lock:
            self.lost += len(self._waiting)
            self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)
