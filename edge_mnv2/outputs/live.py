"""A run as it is now: what the page, the window and other systems are shown."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Protocol

import numpy as np

from edge_mnv2.camera.frame import Frame
from edge_mnv2.outputs.records import as_event, as_record
from edge_mnv2.pipeline.decision import Event
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result
from edge_mnv2.pipeline.statistics import resident_mb
from edge_mnv2.runtime.classifier import Prediction

if TYPE_CHECKING:
    from edge_mnv2.datasets.collection import AnyCollection, Collection
    from edge_mnv2.outputs.snapshots import SnapshotSink

_EVENTS = 20

STALLED_S = 10.0
"""Seconds without a result after which a run that is not paused counts as stalled, more where its source is slow."""


@dataclass(frozen=True)
class Facts:
    """What does not change during a run, as the summary names it."""

    model: str = ""
    runtime: str = ""
    delegate: str = ""
    threads: int = 0
    workers: int = 1
    device: str = ""
    source: str = ""


class DeviceUse(Protocol):
    """How the engines of a run were used: losses of an accelerator; seconds by engine, None where there is only one."""

    @property
    def tpu_losses(self) -> int: ...

    @property
    def seconds(self) -> Optional[dict[str, float]]: ...


class Lesson(Protocol):
    """Pictures are taken for a lesson; whoever looks begins with the next class, mends them, says what is next."""

    def document(self) -> dict[str, Any]: ...

    def press(self, action: str = ..., label: Optional[str] = None) -> bool: ...

    def pictures(self) -> dict[str, list[str]]: ...

    def picture(self, label: str, file: str) -> Optional[Path]: ...

    def delete(self, label: str, file: str) -> bool: ...


Embed = Callable[[np.ndarray], np.ndarray]
"""Makes an embedding, by which pictures of one scene are known, of RGB uint8 HxWx3."""


class Collector(Protocol):
    """Keeps pictures that are worth an answer."""

    @property
    def collection(self) -> Collection: ...

    @property
    def collected(self) -> int: ...

    def use(self, model: str, open_embedder: Callable[[], Optional[Embed]]) -> None: ...


class Workbench(Protocol):
    """What the page can do with the run's model: answers, teaching, other models. Each call may take its time."""

    @property
    def collection(self) -> Optional[AnyCollection]: ...

    def document(self) -> dict[str, Any]: ...

    def teach(self) -> None: ...

    def cancel(self) -> None: ...

    def swap(self, model: str, force: bool) -> dict[str, Any]: ...

    def set_roi(self, roi: Any) -> None: ...

    def classify(self, name: str, picture: bytes) -> dict[str, Any]: ...


class Live:
    """Keeps the newest result of a loop and its last events. Any thread may look.

    Before `attach` and before the first result, everything that is unknown is None.
    """

    name = "live view"

    def __init__(self) -> None:
        self.facts = Facts()
        self.loop: Optional[FrameLoop] = None
        self.latest: Optional[Result] = None
        self.snapshots: Optional[SnapshotSink] = None
        self.collector: Optional[Collector] = None
        self.lesson: Optional[Lesson] = None
        self.page: Optional[str] = None
        """The address of the page, where other machines can reach it."""
        self.waits_for_source = False
        """A run comes that has no source yet: a person is told the page's address when it has one."""
        self.ca: Optional[str] = None
        """The file of a private authority (`--ca`), which outputs trust beside the system's."""
        self.workbench: Optional[Workbench] = None
        self.remote = False
        """Another output than the page takes orders to switch models."""
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self.began = time.monotonic()
        self._source_state: Callable[[], Optional[str]] = lambda: None
        self.reconnects: Callable[[], int] = lambda: 0
        self.write_errors: Callable[[], int] = lambda: 0
        self._engines: Optional[DeviceUse] = None

    def attach(
        self,
        loop: FrameLoop,
        facts: Facts,
        *,
        source_state: Callable[[], Optional[str]] = lambda: None,
        reconnects: Callable[[], int] = lambda: 0,
        write_errors: Callable[[], int] = lambda: 0,
        engines: Optional[DeviceUse] = None,
    ) -> None:
        """The loop is about to run; what came before it, such as a lesson or a slow load, is no stall of it."""
        self.began = time.monotonic()
        self._engines = engines
        self._source_state, self.reconnects, self.write_errors = source_state, reconnects, write_errors
        self.facts = facts
        self.loop = loop

    def detach(self) -> None:
        """The loop has ended, and another may follow."""
        self.loop = self.workbench = self._engines = None
        self._events.clear()
        self._source_state, self.reconnects, self.write_errors = lambda: None, lambda: 0, lambda: 0

    def write(self, result: Result) -> None:
        self.latest = result
        if result.events:
            self._events.extend(result.events)

    def announce(self, events: Sequence[Event]) -> None:
        self._events.extend(events)

    def show(self, frame: Frame, top: Sequence[Prediction]) -> None:
        """A picture without a loop, and what was seen in it."""
        now = time.monotonic_ns()
        uptime = now / 1e9 - self.began
        self.latest = Result(
            frame, tuple(top), now, time.time(), uptime, now - frame.captured_at, 0, fps=0.0, dropped=0, engine=""
        )

    @property
    def tpu_losses(self) -> int:
        return self._engines.tpu_losses if self._engines is not None else 0

    @property
    def device_seconds(self) -> dict[str, float]:
        """Seconds that each engine was in use; empty where there is no choice of engines."""
        return (self._engines.seconds if self._engines is not None else None) or {}

    @property
    def state(self) -> str:
        """ "starting", "ok", "paused", "stalled" or "reconnecting"."""
        loop, latest = self.loop, self.latest
        if loop is None:
            return "starting" if latest is None else "ok"
        if loop.controls.paused:
            return "paused"
        source = self._source_state()
        if source not in (None, "ok"):
            return str(source)
        since = self.began if latest is None else latest.finished_at / 1e9
        if time.monotonic() - since > loop.statistics.patience_s(STALLED_S):
            return "stalled"
        return "starting" if latest is None else "ok"

    def document(self) -> dict[str, Any]:
        """Everything, as plain values: the newest result as in a log line, the facts, the controls."""
        loop, latest = self.loop, self.latest
        record = as_record(latest) if latest is not None else dict.fromkeys(_RECORD)
        fps = None
        if loop is not None and latest is not None:
            fps = round(loop.statistics.recent_fps(), 2)
        return {
            **record,
            "top": record["top"] or [],
            "unsure": latest is not None and latest.unsure,
            "present": list(latest.present) if latest is not None else [],
            "events": [as_event(event) for event in reversed(list(self._events))],
            "fps": fps,
            "state": self.state,
            "frames": loop.statistics.frames if loop else 0,
            "dropped": loop.dropped if loop else 0,
            "reconnects": self.reconnects(),
            "write_errors": self.write_errors(),
            "tpu_losses": self.tpu_losses,
            "rss_mb": resident_mb(),
            "snapshots": self.snapshots is not None,
            "collected": self.collector.collected if self.collector is not None else None,
            "controls": loop.controls.as_dict() if loop else None,
            "roi": self._roi(),
            "lesson": self.lesson.document() if self.lesson else None,
            **dataclasses.asdict(self.facts),
        }

    def _roi(self) -> Optional[list[float]]:
        """The region that is classified, in fractions of the picture, where somebody may set it."""
        if self.latest is None or self.workbench is None:
            return None
        frame = self.latest.frame
        height, width = frame.pixels.shape[:2]
        if frame.roi is None or not (height and width):
            return [0.0, 0.0, 1.0, 1.0]
        return [round(part / side, 4) for part, side in zip(frame.roi, (width, height, width, height))]


_RECORD = ("t", "uptime_s", "frame", "top", "latency_ms", "inference_ms", "temp_c", "throttled", "engine")
