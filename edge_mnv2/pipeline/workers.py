"""Frames of a file several at once, results in frame order: by several interpreters, or several in a row by one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Optional

from edge_mnv2.camera.frame import Frame
from edge_mnv2.pipeline.capture import Capture
from edge_mnv2.pipeline.controls import Controls
from edge_mnv2.pipeline.result import FrameClassifier, classified
from edge_mnv2.pipeline.stages import SceneGate
from edge_mnv2.runtime.classifier import Classified, Prepared

Done = tuple[Frame, Optional[Classified], FrameClassifier]
"""A frame, what was found in it, and who looked."""

_BURST = 4
"""More frames in a row are hardly faster and take more memory."""
_FAST_NS = 25_000_000
"""Slower frames come one by one: whoever stops a run, or reads its log, waits for no more than the one in work."""


class _Burst:
    """Frames in a row for one classifier. Without `pixels` they are prepared at once and lose theirs: the next one has
    its place in memory."""

    def __init__(self, by: FrameClassifier, pixels: bool) -> None:
        self._by, self._pixels = by, pixels
        self._frames: list[tuple[Frame, bool]] = []
        self._prepared: list[Prepared] = []

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame, still: bool) -> None:
        """`still`: it needs no inference."""
        if not self._pixels:
            if not still:
                self._prepared.append(self._by.prepare(frame.region, frame.order, len(self)))
            frame = frame.without_pixels()
        self._frames.append((frame, still))

    def done(self) -> Iterator[Done]:
        """Raises what the classifier raises, behind the frames before."""
        answers = iter(()) if self._pixels else self._by.answers(self._prepared)
        for frame, still in self._frames:
            answer = None if still else classified(self._by, frame) if self._pixels else next(answers)
            yield frame, answer, self._by


class _Pace:
    """How many frames are to be taken in a row: `most` of fast ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._began = self.took = 0

    def next(self) -> int:
        began, self._began = self._began, time.monotonic_ns()
        return self._most if self.took and self._began - began <= _FAST_NS * self.took else 1


class Workers:
    """One thread a classifier takes frames from `capture`; `next_in_order` gives results in the order they were taken.

    A worker waits before it is more than a round ahead of the oldest unfinished frame, so that few results are held.
    A frame in which `gate` sees nothing move comes out with None: it shows what the one before it shows. `most` frames
    are taken altogether. With `bursts`, fast workers take a few in a row, and results have no pixels (see `Bursts`).
    """

    def __init__(
        self,
        classifiers: Sequence[FrameClassifier],
        capture: Capture,
        controls: Controls,
        poll_s: float,
        gate: Optional[SceneGate] = None,
        most: Optional[int] = None,
        bursts: bool = False,
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
        self._most: float = math.inf if most is None else most
        self._pixels, self._in_a_row = not bursts, _BURST if bursts else 1
        self._most_ahead = 2 * len(classifiers) * self._in_a_row
        self._halt = False
        self._error: Optional[Exception] = None
        self._failed_at: float = math.inf
        """The first frame of which nothing comes; the `_error` is why."""
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
        """The next frame with what was found in it, or None after `timeout` seconds. Raises what a worker met, behind
        the frames before, whoever has them."""
        with self._changed:
            if self._delivered not in self._done and self._delivered < self._failed_at:
                self._changed.wait(timeout)
            done = self._done.pop(self._delivered, None)
            if done is not None:
                self._delivered += 1
                self._changed.notify_all()
                return done
            if self._error is not None and self._delivered >= self._failed_at:
                raise self._error
            return None

    def swap(self, classifiers: list[FrameClassifier], gate: Optional[SceneGate]) -> None:
        """Frames that are taken from now on are classified by these; those taken before come out before."""
        # Not under the lock of those who take: one of them nearly always has it, and waits for a frame.
        with self._changed:
            self._set = (classifiers, gate)

    def _work(self, worker: int) -> None:
        pace, first = _Pace(self._in_a_row), 0
        results: list[Done] = []
        try:
            while True:
                with self._changed:
                    while not self._halt and self._taken - self._delivered >= self._most_ahead:
                        self._changed.wait()
                    if self._halt:
                        return
                with self._take_lock:
                    first = self._taken
                    burst = self._take(worker, pace.next())
                    if burst is None and (self._capture.ended or self._error or first >= self._most):
                        return
                pace.took = 0 if burst is None else len(burst)
                try:
                    results.extend(burst.done() if burst is not None else ())
                finally:
                    with self._changed:
                        self._done.update(enumerate(results, first))
                        self._changed.notify_all()
                burst, results = None, []  # the next one may have their buffers
        except Exception as error:
            self._fail(error, first + len(results))

    def _take(self, worker: int, most: int) -> Optional[_Burst]:
        """What the worker is to do next, None where nothing came."""
        burst, gate = None, None
        while self._taken < self._most and (burst is None or len(burst) < most):
            try:
                frame = self._capture.take(self._poll_s if burst is None else 0.0, self._controls.paused)
            except Exception as error:
                # Before another worker takes, which may find that nothing comes any more, as at an end.
                self._fail(error, self._taken)
                break
            if frame is None:
                break
            still, counted = False, False
            while not counted:
                chosen = self._set
                gate = chosen[1] if burst is None else gate
                still = gate is not None and gate.still(frame)
                with self._changed:
                    # Others may have taken over meanwhile: then they look at this frame.
                    if burst is not None or chosen is self._set:
                        self._taken, counted = self._taken + 1, True
            if burst is None:
                burst = _Burst(chosen[0][worker], self._pixels)
            burst.add(frame, still)
            frame = None  # the next one may have its buffer
        return burst

    def _fail(self, error: Exception, at: int) -> None:
        with self._changed:
            if at < self._failed_at:
                self._error, self._failed_at = error, at
            self._changed.notify_all()


class Bursts:
    """As `Workers`, with one classifier in the caller's thread and a few frames in a row.

    An inference empties the processor's caches, so that what comes before and after it, the decoder too where it reads
    here, runs faster several times in a row. Results have no pixels: the frames would take too much memory.
    """

    def __init__(
        self,
        classifiers: Sequence[FrameClassifier],
        capture: Capture,
        controls: Controls,
        gate: Optional[SceneGate] = None,
        most: Optional[int] = None,
    ) -> None:
        self.classifiers = list(classifiers)
        self._capture, self._controls, self._gate = capture, controls, gate
        self._left: float = math.inf if most is None else most
        self._pace = _Pace(_BURST)
        self._waiting = 0
        """Frames that are not given out yet."""
        self._done: Iterator[Done] = iter(())
        self._error: Optional[Exception] = None

    def __enter__(self) -> Bursts:
        return self

    def __exit__(self, *exc: object) -> None:
        self._capture.give_back(self._waiting)

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
        if not self._waiting and self._error is None:
            self._take(timeout)
        if not self._waiting:
            if self._error is not None:
                raise self._error
            return None
        done = next(self._done)
        self._waiting -= 1
        return done

    def _take(self, timeout: float) -> None:
        most = int(min(self._pace.next(), self._left))
        burst = _Burst(self.classifiers[0], pixels=False)
        while len(burst) < most:
            try:
                frame = self._capture.take(0.0 if len(burst) else timeout, self._controls.paused)
            except Exception as error:
                # After what was taken before.
                self._error = error
                break
            if frame is None:
                break
            burst.add(frame, self._gate is not None and self._gate.still(frame))
            frame = None  # the next one may have its buffer
        self._waiting = self._pace.took = len(burst)
        self._left -= len(burst)
        self._done = burst.done()
