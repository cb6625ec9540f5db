"""Guided taking of pictures: one class after the other, by a countdown or a key; the pictures stay if it is ended."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2.camera.frame import Frame, FrameSource
from edge_mnv2.errors import SourceError, UsageError
from edge_mnv2.paths import atomic_write
from edge_mnv2.runtime.classifier import Prediction
from edge_mnv2.teach.guide import Guide

Say = Callable[[str], None]
Key = Callable[[], Optional[str]]
"""The whole line typed since the last call, or None. It never waits."""

See = Callable[[np.ndarray], Sequence[Prediction]]
"""What is in an RGB uint8 picture HxWx3, best first."""

Watch = Callable[[Frame, Sequence[Prediction]], None]
"""Receives each frame with the last predictions."""

_LOOK_EVERY_S = 0.4
_QUALITY = 95
_STILL_S = 0.2
"""Seconds between two looks at a picture that waits."""


@dataclass(frozen=True)
class Plan:
    """`shots` pictures of each of `classes`, one in `every_s` seconds, after `countdown_s` seconds or a key."""

    classes: Sequence[str]
    shots: int = 20
    every_s: float = 0.5
    countdown_s: float = 3.0

    def __post_init__(self) -> None:
        for name in self.classes:
            if not name.strip() or name.startswith(".") or "/" in name or "\0" in name:
                raise UsageError(f"--class '{name}'", hint="a name that can be a folder's, without / and no dot first")
        if len(set(self.classes)) < len(self.classes):
            raise UsageError("the same --class twice", hint="name each class once")
        if not 0 <= self.countdown_s < math.inf:
            raise UsageError(f"--countdown {self.countdown_s:g}", hint="a number of seconds")
        if self.shots < 1:
            raise UsageError(f"--shots {self.shots}", hint="at least 1")


class GuidedCapture:
    """Takes the pictures of `plan` from an open `source` into `folder`/CLASS/. `guide` says how far it is."""

    def __init__(
        self,
        source: FrameSource,
        folder: Path,
        plan: Plan,
        *,
        say: Say,
        show: Say,
        keys: Optional[Mapping[str, Key]] = None,
        see: Optional[See] = None,
        watch: Optional[Watch] = None,
        guide: Guide,
    ) -> None:
        """`say` is for lines that stay, `show` for one that changes. Any of `keys`, by what a person is told to do,
        starts each class; without any, a countdown does."""
        self._source, self._folder, self._plan = source, folder, plan
        self._say, self._show, self._see, self._watch = say, show, see, watch
        self._keys = dict(keys or {})
        self._asked = " or ".join(self._keys)
        self._looked_at = 0.0
        self._seen: Sequence[Prediction] = ()
        self.guide = guide

    def run(self) -> None:
        """Raises SourceError if the source ends before every class has a picture, UsageError if none can be written."""
        for number, name in enumerate(self._plan.classes):
            # What was typed or pressed before the question is no answer.
            self._started()
            self.guide.ask(name)
            first = self._wait(name)
            self.guide.take(name)
            while first is not None and self._taken(name) < self._plan.shots:
                self._save(name, first)
                self._show(f"{name}: {self._taken(name)} of {self._plan.shots}{self._sees()}")
                first = self._next(first) if self._taken(name) < self._plan.shots else first
            if first is None:
                self.guide.reached = 0
                left = [other for other in self._plan.classes[number:] if not self._taken(other)]
                if left:
                    raise SourceError(
                        f"{self._source.description} ended before there was a picture of {', '.join(left)}",
                        hint=f"what was taken is in {self._folder}",
                    )
                self._say(f"{self._source.description} ended after {self._taken(name)} pictures of {name}")
                return
            self._say(f"{name}: {self._taken(name)} pictures taken")

    def _taken(self, name: str) -> int:
        return self.guide.taken[name]

    def _wait(self, name: str) -> Optional[Frame]:
        """The frame to begin with; None at the source's end."""
        frame = self._source.read()
        # What is opened once more goes on where it was.
        while not self._source.live and frame is not None and frame.index < self.guide.reached:
            frame = self._source.read()
        # A clip whose page nobody looks at begins by itself.
        if frame is None or not (self._source.live or self._watch is not None):
            return frame
        asked = f"then {self._asked}" if self._keys else f"it starts in {self._plan.countdown_s:.0f} s"
        shown = "show it to the camera, move it a little meanwhile" if self._source.live else "the source waits here"
        self._say(f"{name}: {shown}; {asked}")
        began = time.monotonic()
        while True:
            self._look(frame)
            left = self._plan.countdown_s - (time.monotonic() - began)
            if self._keys:
                self._show(f"{name}: {self._asked}{self._sees()}")
                if self._started():
                    return frame
            elif left <= 0:
                return frame
            else:
                self._show(f"{name}: {left:.0f} s{self._sees()}")
            if not self._source.live:
                time.sleep(_STILL_S)
                continue
            following = self._source.read()
            if following is None:
                return None
            frame = following

    def _started(self) -> bool:
        """One of the keys was used since the last call."""
        used = [key() for key in self._keys.values()]
        return any(line is not None for line in used)

    def _next(self, last: Frame) -> Optional[Frame]:
        """The first frame at least `every_s` after `last`; of a folder the next picture."""
        while True:
            frame = self._source.read()
            if frame is None:
                return None
            self._look(frame)
            if frame.position_ns is not None and last.position_ns is not None:
                passed = frame.position_ns - last.position_ns
            else:
                passed = frame.captured_at - last.captured_at
            if passed >= self._plan.every_s * 1e9 or frame.name is not None:
                return frame

    def _look(self, frame: Frame) -> None:
        now = time.monotonic()
        if self._see is not None and now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._seen = self._see(_rgb(frame))
        if self._watch is not None:
            self._watch(frame, self._seen)

    def _sees(self) -> str:
        best = next(iter(self._seen), None)
        return "" if best is None else f"; sees {best.label.partition(',')[0]} {best.score:.0%}"

    def _save(self, name: str, frame: Frame) -> None:
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(_rgb(frame)).save(content, "JPEG", quality=_QUALITY)
        place = self._folder / name
        try:
            place.mkdir(parents=True, exist_ok=True)
            path = _free_name(place)
            with atomic_write(path) as file:
                file.write(content.getvalue())
        except OSError as error:
            raise UsageError(f"{place} cannot be written: {error.strerror or error}") from error
        self.guide.add(name, path.name)
        self.guide.reached = frame.index + 1


def _rgb(frame: Frame) -> np.ndarray:
    region = frame.region
    return np.ascontiguousarray(region if frame.order == "rgb" else region[:, :, ::-1])


def _free_name(folder: Path) -> Path:
    number = len(list(folder.glob("shot_*.jpg"))) + 1
    while (folder / f"shot_{number:04}.jpg").exists():
        number += 1
    return folder / f"shot_{number:04}.jpg"
