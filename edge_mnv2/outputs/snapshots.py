"""Pictures of what appeared, kept within a quota."""

from __future__ import annotations

import contextlib
import re
import threading
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.errors import UsageError
from edge_mnv2.files import Floor, OutputFolder
from edge_mnv2.outputs.picture import bgr, jpeg
from edge_mnv2.outputs.records import timestamp
from edge_mnv2.outputs.sink import Sink
from edge_mnv2.outputs.table import OutputValues, default
from edge_mnv2.pipeline.decision import APPEARED
from edge_mnv2.pipeline.result import Result

_OURS = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z_.*\.jpg")
_TORN = re.compile(r"\." + _OURS.pattern + r"\..*\.part")


class SnapshotSink(Sink):
    """Saves the frame of every "appeared" event to `folder` as `TIME_CLASS_SCORE.jpg`, each file whole or not at all.

    When they take more than `quota` bytes together, the oldest are deleted; other files there are left alone.
    Raises UsageError where the folder cannot be made or written to.
    """

    wants_pictures = True

    def __init__(self, folder: str, quota: int = default("snapshots-quota"), least_free: Optional[int] = None) -> None:
        self._folder = Path(folder)
        self.name = folder
        self._quota = quota
        self._floor = Floor(self._folder, least_free)
        self._lock = threading.Lock()
        try:
            self._place = OutputFolder(self._folder)
            with paths.atomic_write(self._folder / ".writable") as probe:
                probe.write(b"")
            (self._folder / ".writable").unlink()
            for entry in self._folder.glob(".*.part"):
                # A power cut came between a picture's first byte and its name.
                if _TORN.fullmatch(entry.name):
                    entry.unlink()
            # The oldest first: those of earlier runs by their names, then ours as they come. A clock that is set while
            # we run, or was wrong when we began, must not make new pictures old.
            earlier = sorted((entry for entry in self._folder.iterdir() if _OURS.fullmatch(entry.name)), key=str)
            self._sizes = {entry.name: entry.stat().st_size for entry in earlier}
        except OSError as error:
            raise UsageError(
                f"--snapshots {folder}: {error.strerror or error}", hint="choose a folder that you can write to"
            ) from None

    def wants(self, result: Result) -> bool:
        """Only these results are given to `write`."""
        return any(event.kind == APPEARED for event in result.events)

    def write(self, result: Result) -> None:
        for event in result.events:
            if event.kind == APPEARED:
                self._save(result, f"{_plain(event.label)}_{event.best * 100:.0f}")

    def take(self, result: Result) -> str:
        """Save this frame because a person asked for it; the file's name. Any thread. Raises OSError."""
        return self._save(result, "snapshot")

    def close(self) -> None:
        pass

    def _save(self, result: Result, what: str) -> str:
        data = jpeg(bgr(result.frame), 90)
        name = f"{timestamp(result.wall_time).replace(':', '-')}_{what}.jpg"
        with self._lock:
            if not self._place.there:
                self._place.restore()
                self._sizes.clear()
            self._make_room(len(data))
            self._floor.check()
            with paths.atomic_write(self._folder / name) as file:
                file.write(data)
            self._sizes.pop(name, None)
            self._sizes[name] = len(data)
        return name

    def _make_room(self, more: int) -> None:
        """Delete the oldest until `more` bytes fit into the quota and the disk has room."""
        while self._sizes and (sum(self._sizes.values()) + more > self._quota or self._floor.low(now=True)):
            oldest = next(iter(self._sizes))
            with contextlib.suppress(FileNotFoundError):
                (self._folder / oldest).unlink()
            del self._sizes[oldest]


def _plain(label: str) -> str:
    """A label as a part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", label.split(",")[0], flags=re.UNICODE).strip("-.")[:60] or "class"


def open_output(values: OutputValues, live: Any) -> SnapshotSink:
    """What the page and the window may ask for a picture, too."""
    live.snapshots = SnapshotSink(values["snapshots"], values["snapshots-quota"], values["min-free"])
    return live.snapshots
