"""A live source under supervision: lost when no frame comes or the picture stands still, opened again until it is back.

Results stop while the source is lost, because a frozen frame that is classified for an hour is worse than none.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Optional

import numpy as np

from edge_mnv2.camera.frame import Frame, Source
from edge_mnv2.camera.live import CLOSE_S, LiveSource, NoFrames, PasswordRefused, done_within, in_thread
from edge_mnv2.camera.settings import Roi
from edge_mnv2.errors import SourceError, SourceLost

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

GRID = 48
"""Points a side of the grid on which pictures are compared."""
REFUSED_S = 30.0
"""Between attempts with a password that was refused: cameras lock an account after a few."""
FROZEN_FRAMES = 10
"""So many equal pictures at least are no accident: a slow camera, or a relay, may give one picture a few times."""
PROOF_FRAMES = 2
"""Frames that a source must give after it was opened again: some devices hand out one old buffer."""


class FrozenPicture(SourceLost):
    """Frames come, and all show the same."""


class Watchdog(LiveSource):
    """Wraps a live `source`. Frames that pass are numbered on over interruptions.

    `frozen_s`: seconds of pictures with equal bytes on a grid, `FROZEN_FRAMES` of them at least, after which the source
    counts as lost; 0 for never.
    `give_up_s`: seconds without the source after which `read` raises SourceError; None: it is waited for for ever.
    `warmup_frames` are thrown away after each opening. One thread reads; `close` may come from any other and ends a
    waiting `read` or `open` at once.
    """

    def __init__(
        self,
        source: Source,
        *,
        frozen_s: float = 5.0,
        give_up_s: Optional[float] = None,
        warmup_frames: int = 0,
        backoff: Optional[tuple[float, float]] = None,
    ) -> None:
        super().__init__(source.description)
        self.source = source
        self.keeps_newest = source.keeps_newest
        self._longest_frozen_s = frozen_s
        self._give_up_s = give_up_s
        self._warmup_frames = warmup_frames
        self._backoff = backoff or source.backoff
        self._closing = threading.Event()
        self._opening = False
        self._lost_at: Optional[float] = None
        self._frozen = False
        self._picture = b""
        self._moved_at = 0.0
        self._moved_index = 0
        self._next = 0
        self._base = 0
        self._recovery: Optional[Future[Optional[Frame]]] = None

    def open(self) -> None:
        """Open the source for the first time: here an error is final. Raises SourceError."""
        self._closing.clear()
        self.state, self._lost_at = "ok", None
        self._picture, self._moved_at = b"", time.monotonic()
        if not self._open_source():
            return
        for _ in range(self._warmup_frames):
            if self.source.read() is None:
                break

    @property
    def closed(self) -> bool:
        return self._closing.is_set() or self.finished

    @property
    def _frozen_s(self) -> float:
        return self._longest_frozen_s * self.source.frozen_scale

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        """The newest frame; None after `limit_s` seconds and after `close`.

        Raises SourceError once it has given up.
        """
        while not self._closing.is_set():
            try:
                frame = self.source.take(limit_s) if self._lost_at is None else self._recovered_within(limit_s)
                if frame is None:
                    return None
                self._watch(frame)
            except SourceError as error:
                if self._closing.is_set():
                    break
                self._lose(error)
                continue
            finally:
                self._copy_facts()
            self._next = self._base + frame.index + 1
            return replace(frame, index=self._base + frame.index)
        return None

    def _copy_facts(self) -> None:
        source = self.source
        self.description, self.granted, self.view = source.description, source.granted, source.view
        self.finished = source.finished
        self.errors, self.error_count, self.decode_errors = source.errors, source.error_count, source.decode_errors

    def close(self) -> None:
        until = time.monotonic() + CLOSE_S + 1
        self._closing.set()
        self.source.close()
        # Another thread may have been just about to open it.
        while self._opening and time.monotonic() < until:
            time.sleep(0.02)
            self.source.close()

    def set_roi(self, roi: Optional[Roi]) -> None:
        self.source.set_roi(roi)

    def _open_source(self) -> bool:
        """Open the source; False where `close` came meanwhile."""
        self._opening = True
        try:
            if not self._closing.is_set():
                self.source.open()
                self._copy_facts()
            if self._closing.is_set():
                self.source.close()
                return False
            return True
        finally:
            self._opening = False

    def _watch(self, frame: Frame) -> None:
        """Raise SourceLost where the picture has stood still for too long."""
        if not self._frozen_s:
            return
        picture, now = fingerprint(frame.pixels), time.monotonic()
        if picture != self._picture:
            self._picture, self._moved_at, self._moved_index = picture, now, frame.index
        elif frame.index - self._moved_index >= FROZEN_FRAMES and now - self._moved_at >= self._frozen_s:
            raise FrozenPicture(
                f"{self.source.description} has shown the same picture for {now - self._moved_at:.1f} s "
                "(setting camera.frozen_s)"
            )

    def _lose(self, error: SourceError) -> None:
        if self._lost_at is not None:
            raise error
        self._lost_at = time.monotonic()
        self._frozen = isinstance(error, FrozenPicture)
        self.state = "stalled"
        log.warning("%s: no results until it returns", error.message)

    def _recovered_within(self, limit_s: Optional[float]) -> Optional[Frame]:
        """`_recovered`, in a thread of its own where the caller cannot wait for it; None after `limit_s` seconds."""
        if limit_s is None and self._recovery is None:
            return self._recovered()
        recovery = self._recovery = self._recovery or in_thread("recovery", self._recovered)
        if not done_within(recovery, limit_s):
            return None
        self._recovery = None
        return recovery.result()

    def _recovered(self) -> Optional[Frame]:
        """Open the source again and again; its first good frame, or None after `close`."""
        assert self._lost_at is not None
        pause, longest = self._backoff
        said = ""
        while True:
            self.source.close()
            left = None if self._give_up_s is None else self._lost_at + self._give_up_s - time.monotonic()
            if left is not None and left <= 0:
                raise SourceError(f"{self.source.description} did not come back within {self._give_up_s:g} s")
            wait = pause * random.uniform(0.75, 1.25)
            if self._closing.wait(wait if left is None else min(wait, left)):
                return None
            pause = min(pause * 2, longest)
            longest = self._backoff[1]
            try:
                frame = self._opened_in_time()
            except SourceError as error:
                self.state = "stalled" if isinstance(error, NoFrames) else "reconnecting"
                if isinstance(error, PasswordRefused):
                    pause = longest = REFUSED_S
                if error.message != said:
                    log.debug("not back: %s", error)
                    said = error.message
                continue
            if frame is not None:
                away = time.monotonic() - self._lost_at
                self.reconnects += 1
                self.state, self._lost_at = "ok", None
                self._moved_at, self._moved_index = time.monotonic(), frame.index
                log.warning("%s is back after %.1f s", self.source.description, away)
            return frame

    def _opened_in_time(self) -> Optional[Frame]:
        """`_opened_again`, broken off when the time to give up has come: opening a silent stream takes long."""
        if self._give_up_s is None or self._lost_at is None:
            return self._opened_again()
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.source.close()

        timer = threading.Timer(max(0.0, self._lost_at + self._give_up_s - time.monotonic()), give_up)
        timer.daemon = True
        timer.start()
        try:
            frame = self._opened_again()
        finally:
            timer.cancel()
            timer.join()
        if late.is_set() and not self._closing.is_set():
            raise SourceLost(f"{self.source.description} came back too late")
        return frame

    def _opened_again(self) -> Optional[Frame]:
        if not self._open_source():
            return None
        frame = None
        for _ in range(max(self._warmup_frames, PROOF_FRAMES) + 1):
            frame = self.source.read()
            if frame is None:
                return None
        # A picture that froze must change before it is believed again.
        until = time.monotonic() + self._frozen_s
        while self._frozen and frame is not None and fingerprint(frame.pixels) == self._picture:
            self.state = "stalled"
            if time.monotonic() > until:
                raise NoFrames(f"{self.source.description} still shows the same picture")
            frame = self.source.read()
        if frame is not None:
            self._base = self._next - frame.index
        return frame


def fingerprint(pixels: np.ndarray) -> bytes:
    """The bytes of `pixels` (HxWx3 uint8) on a grid of at most GRID x GRID points."""
    height, width = pixels.shape[:2]
    rows, columns = max(1, height // GRID), max(1, width // GRID)
    return pixels[rows // 2 :: rows, columns // 2 :: columns].tobytes()
