"""Where the taking of pictures stands, and the button that goes on with it. Any thread may look and press."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Step:
    """Where a guided lesson stands: "starting", "waiting" (for a press), "taking", "learning", "done" or "failed".

    `label` is the class it is about, `done` of `total` pictures are learned from, `lines` say what came of it.
    """

    phase: str
    label: Optional[str] = None
    done: int = 0
    total: int = 0
    lines: tuple[str, ...] = ()


class Guide:
    """`taken` counts the pictures of each class. One thread moves the guide on; others read `document` and `press`."""

    def __init__(self, classes: Sequence[str], shots: int) -> None:
        self.taken: dict[str, int] = dict.fromkeys(classes, 0)
        self._shots = shots
        self._step = Step("starting")
        self._pressed = threading.Event()

    def ask(self, name: str) -> None:
        """Class `name` is next: it begins with a press."""
        self._pressed.clear()
        self._step = Step("waiting", name)

    def take(self, name: str) -> None:
        """Pictures of class `name` are being taken."""
        self._step = Step("taking", name)

    def learn(self, done: int, total: int) -> None:
        """`done` of `total` pictures are learned from."""
        self._step = Step("learning", done=done, total=total)

    def end(self, lines: Sequence[str], *, failed: bool = False) -> None:
        """What came of it, in words."""
        self._step = Step("failed" if failed else "done", lines=tuple(lines))

    def press(self) -> bool:
        """Begin with the class that waits; False where none does."""
        waits = self._step.phase == "waiting"
        if waits:
            self._pressed.set()
        return waits

    def pressed(self) -> Optional[str]:
        """An empty line where the button was pressed since the last call, else None."""
        if not self._pressed.is_set():
            return None
        self._pressed.clear()
        return ""

    def document(self) -> dict[str, Any]:
        """The step, the wanted pictures a class, and `taken` as a list of labels and pictures."""
        taken = [{"label": label, "pictures": count} for label, count in self.taken.items()]
        return {**asdict(self._step), "shots": self._shots, "taken": taken}
