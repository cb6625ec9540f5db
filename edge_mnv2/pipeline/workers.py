"""Frames of a file several at once, results in frame order: by several interpreters, or several in a row by one."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Optional

from edge_mnv2.camera.frame import Frame
from edge_mnv2.pipeline.capture import Capture
from edge_mnv2.pipeline.controls import Controls
from edge_mnv2.pipeline.result import FrameClassifier, classified
from edge_mnv2.pipeline.stages import SceneGate
from edge_mnv2.runtime.classifier import Classified

Done = tuple[Frame, Optional[Classified], FrameClassifier]
"""A frame, what was found in it, and who looked."""

_BURST = 4
"""More frames in a row are hardly faster and take more memory."""
_FAST_NS = 25_000_000
"""Slower frames come one by one: whoever stops a run, or reads its log, waits for no more than the one in work."""


class Workers:
    """One thread a classifier takes frames from `capture`; `next_in_order` gives results in the order they were taken.

    A worker waits before it is more than a round ahead of the oldest unfinished frame, so that few results are held.
    A frame in which `gate` sees nothing move comes out with None: it shows what the one before it shows.
    """

    def __init__(
        self,
        classifiers: Sequence[FrameClassifier],
        capture: Capture,
        controls: Controls,
        poll_s: float,
        gate: Optional[SceneGate] = None,
    ) -> None:
        self._capture = capture
        self._controls = controls
        # One pair, so that it is always read whole.
        self._set = (list(classifiers), gate)
        self._poll_s = poll_s
        self._take_lock = threading.Lock()
        self._changed = threading.Condition()
        self._done: dict[int, Done] = {}
        self._taken = 0
        self._delivered = 0
        self._most_ahead = 2 * len(classifiers)
        self._halt = False
        self._error: Optional[BaseException] = None
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(len(classifiers))
        ]

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._halt = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5.0)
        self._capture.give_back(self._taken - self._delivered)

    @property
    def classifiers(self) -> list[FrameClassifier]:
        """Those that classify what is taken from now on."""
        return self._set[0]

    @property
    def ended(self) -> bool:
        """Everything that was taken is delivered and nothing more will come: not where a worker has met an error."""
        with self._changed:
            # An error is known before another worker finds that nothing comes any more.
            return self._capture.ended and self._error is None and self._delivered == self._taken

    @property
    def idle(self) -> bool:
        """Everything that was taken is delivered."""
        with self._changed:
            return self._delivered == self._taken

    def next_in_order(self, timeout: float) -> Optional[Done]:
        """The next frame with what was found in it, or None after `timeout` seconds. Raises what a worker met."""
        with self._changed:
            if self._delivered not in self._done and self._error is None:
                self._changed.wait(timeout)
            done = self._done.pop(self._delivered, None)
            if done is not None:
                self._delivered += 1
                self._changed.notify_all()
                return done
            if self._error is not None:
                raise self._error
            return None

    def swap(self, classifiers: list[FrameClassifier], gate: Optional[SceneGate]) -> None:
        """Frames that are taken from now on are classified by these; those taken before come out before."""
        # Not under the lock of those who take: one of them nearly always has it, and waits for a frame.
        with self._changed:
            self._set = (classifiers, gate)

    def _work(self, worker: int) -> None:
        try:
            while True:
                with self._changed:
                    while not self._halt and self._taken - self._delivered >= self._most_ahead:
                        self._changed.wait()
                    if self._halt:
                        return
                with self._take_lock:
                    try:
                        frame = self._capture.take(self._poll_s, self._controls.paused)
                    except Exception as error:
                        # Before another worker takes, which may find that nothing comes any more, as at an end.
                        self._fail(error)
                        return
                    number = None
                    while frame is not None and number is None:
                        chosen = self._set
                        still = chosen[1] is not None and chosen[1].still(frame)
                        with self._changed:
                            # Others may have taken over meanwhile: then they look at this frame.
                            if chosen is self._set:
                                number = self._taken
                                self._taken += 1
                if frame is None or number is None:
                    if self._capture.ended:
                        return
                    continue
                classifier = chosen[0][worker]
                answer = None if still else classified(classifier, frame)
                with self._changed:
                    self._done[number] = (frame, answer, classifier)
                    self._changed.notify_all()
                frame = None  # the next one may have its buffer
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


class Bursts:
    """As `Workers`, with one classifier in the caller's thread and a few frames in a row.

    An inference empties the processor's caches, so that what comes before and after it, the decoder too where it reads
    here, runs faster several times in a row. `most` frames are taken altogether. Without `pixels`, frames lose theirs
    once they are prepared: the next one has its place in memory.
    """

    def __init__(
        self,
        classifiers: Sequence[FrameClassifier],
        capture: Capture,
        controls: Controls,
        gate: Optional[SceneGate] = None,
        most: Optional[int] = None,
        pixels: bool = True,
    ) -> None:
        self.classifiers = list(classifiers)
        self._capture, self._controls, self._gate, self._pixels = capture, controls, gate, pixels
        self._left: float = math.inf if most is None else most
        self._taken = self._began = 0
        self._waiting: deque[tuple[Frame, bool]] = deque()
        """Frames that are not given out yet, and whether they were found still."""
        self._answers: Iterator[Classified] = iter(())
        self._error: Optional[Exception] = None

    def __enter__(self) -> Bursts:
        return self

    def __exit__(self, *exc: object) -> None:
        self._capture.give_back(len(self._waiting))

    @property
    def ended(self) -> bool:
        """Everything that was taken is delivered and nothing more will come."""
        return self._capture.ended and self.idle and self._error is None

    @property
    def idle(self) -> bool:
        """Everything that was taken is delivered."""
        return not self._waiting

    def swap(self, classifiers: list[FrameClassifier], gate: Optional[SceneGate]) -> None:
        """Frames that are taken from now on are classified by these."""
        self.classifiers, self._gate = classifiers, gate

    def next_in_order(self, timeout: float) -> Optional[Done]:
        """As `Workers.next_in_order`."""
        if not self._waiting:
            self._take(timeout)
        if not self._waiting:
            if self._error is not None:
                raise self._error
            return None
        frame, still = self._waiting[0]
        answer = None if still else next(self._answers)
        self._waiting.popleft()
        return frame, answer, self._by

    def _take(self, timeout: float) -> None:
        if self._error is not None:
            return
        now = time.monotonic_ns()
        fast = self._taken > 0 and now - self._began <= _FAST_NS * self._taken
        classifier, prepared = self.classifiers[0], []
        self._began = now
        for place in range(int(min(_BURST if fast else 1, self._left))):
            try:
                frame = self._capture.take(0.0 if place else timeout, self._controls.paused)
            except Exception as error:
                # After what was taken before.
                self._error = error
                break
            if frame is None:
                break
            still = self._gate is not None and self._gate.still(frame)
            if not still:
                prepared.append(classifier.prepare(frame.region, frame.order, place))
            self._waiting.append((frame if self._pixels else frame.without_pixels(), still))
            frame = None  # the next one may have its buffer
        self._taken = len(self._waiting)
        self._left -= self._taken
        self._by, self._answers = classifier, classifier.answers(prepared)
