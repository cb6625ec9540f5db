"""How far a guided lesson is, for a page that shows it, and what its visitors want next."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.errors import UsageError

BEGIN, MORE, AGAIN, USE, FINISH = "begin", "more", "again", "use", "finish"
_CHOICES = {
    "waiting": (BEGIN,),
    "trying": (MORE, AGAIN, USE, FINISH),
    "stuck": (MORE, AGAIN, FINISH),
    "untried": (MORE, AGAIN, FINISH),
}
"""What a visitor may do in a phase."""
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Step:
    """The state of a guided lesson.

    `phase`: "starting", "waiting" (for a press), "taking", "learning", "trying" (the new model answers), "stuck" (it
    was not learned; pictures can be mended), "untried" (it was learned, and cannot be tried), "done" or "failed".
    `label` is the class it is about, `done` of `total` pictures are learned from, `lines` say what came of it.
    """

    phase: str
    label: Optional[str] = None
    done: int = 0
    total: int = 0
    lines: tuple[str, ...] = ()


class Guide:
    """A lesson of `classes`, whose pictures are in `folder`/CLASS. One thread moves it on; others read and press.

    `choice` is what a visitor wants after the lesson, with the class it is about; None until then. `reached` is the
    index of the frame of a clip, or of the picture of a folder, with which the next class begins.
    """

    def __init__(self, classes: Sequence[str], shots: int, folder: Path) -> None:
        self._new: dict[str, list[str]] = {name: [] for name in classes}
        self._shots = shots
        self._folder = folder
        self._step = Step("starting")
        self._pressed = threading.Event()
        self._lock = threading.Lock()
        self._revision = 0
        self._changed = False
        self.reached = 0
        self.choice: Optional[tuple[str, Optional[str]]] = None

    @property
    def taken(self) -> dict[str, int]:
        """How many pictures of each class were taken since it was asked for."""
        return {name: len(files) for name, files in self._new.items()}

    def ask(self, name: str) -> None:
        """Class `name` is next: it begins with a press."""
        self._pressed.clear()
        self._new[name] = []
        self._step = Step("waiting", name)

    def take(self, name: str) -> None:
        """Pictures of class `name` are being taken."""
        self._step = Step("taking", name)

    def add(self, name: str, file: str) -> None:
        """`file` is a new picture of class `name`."""
        with self._lock:
            self._new[name].append(file)
            self._touch()

    def learn(self, done: int, total: int) -> None:
        """`done` of `total` pictures are learned from."""
        if self._step.phase != "learning":
            # What goes from here on may have been learned from already.
            self._changed = False
        self._step = Step("learning", done=done, total=total)

    def offer(self, lines: Sequence[str], phase: str = "trying") -> None:
        """A visitor chooses what is next, in one of the phases "trying", "stuck" and "untried"."""
        self.choice = None
        self._step = Step(phase, lines=tuple(lines))

    def end(self, lines: Sequence[str], *, failed: bool = False) -> None:
        """What came of it, in words."""
        self._step = Step("failed" if failed else "done", lines=tuple(lines))

    def press(self, action: str = BEGIN, label: Optional[str] = None) -> bool:
        """A visitor wants `action` ("more" pictures of the class `label`); False where that cannot be now."""
        with self._lock:
            if action not in _CHOICES.get(self._step.phase, ()) or (action == MORE and label not in self._new):
                return False
            if action == BEGIN:
                self._pressed.set()
            elif self.choice is None:
                self.choice = (action, label)
        return True

    def pressed(self) -> Optional[str]:
        """An empty line after a press since the last call, else None."""
        if not self._pressed.is_set():
            return None
        self._pressed.clear()
        return ""

    def pictures(self) -> dict[str, list[str]]:
        """The files of each class, by name, those of former lessons too."""
        return {name: sorted(path.name for path in self._files(name)) for name in self._new}

    def picture(self, label: str, file: str) -> Optional[Path]:
        """The path of a picture; None where there is no such one."""
        if label not in self._new:
            return None
        return next((path for path in self._files(label) if path.name == file), None)

    def delete(self, label: str, file: str) -> bool:
        """Delete a picture. Raises UsageError where it cannot be deleted."""
        path = self.picture(label, file)
        if path is None:
            return False
        try:
            path.unlink()
        except OSError as error:
            raise UsageError(f"{path} cannot be deleted: {error.strerror or error}") from error
        with self._lock:
            if file in self._new[label]:
                self._new[label].remove(file)
            self._touch()
        return True

    def document(self) -> dict[str, Any]:
        """The step, the wanted pictures a class, `taken` as a list of labels and pictures; `revision` is another
        number whenever a picture came or went, `changed` whether one did since the last lesson."""
        taken = [{"label": label, "pictures": count} for label, count in self.taken.items()]
        return {
            **asdict(self._step),
            "shots": self._shots,
            "taken": taken,
            "revision": self._revision,
            "changed": self._changed,
        }

    def _touch(self) -> None:
        self._revision += 1
        self._changed = True

    def _files(self, label: str) -> list[Path]:
        try:
            entries = list((self._folder / label).iterdir())
        except OSError:
            return []
        return [path for path in entries if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")]
