"""One frame's way: captured, handed over, classified, smoothed, given to the sinks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Optional, Protocol, Union

import numpy as np

from edge_mnv2.camera.frame import Frame, FrameSource
from edge_mnv2.errors import SourceError
from edge_mnv2.pipeline.capture import Capture
from edge_mnv2.pipeline.controls import Controls, Pending
from edge_mnv2.pipeline.decision import Decider, Event
from edge_mnv2.pipeline.result import FrameClassifier, Result, classified, seen_in
from edge_mnv2.pipeline.stages import SceneGate, Smoother
from edge_mnv2.pipeline.statistics import Statistics
from edge_mnv2.runtime.classifier import Classified, Prediction

_POLL_S = 0.1
_FORGET_S = 5.0
"""Without a result for so long, nothing counts as present; for longer where the source is that slow."""


class ResultSink(Protocol):
    """Where results go. `write` returns at once and never raises: a slow or broken output must not slow the loop.

    A sink with a method `announce(events)` is also told what is gone when results stop coming. One that says
    `wants_pixels = False` may get frames without pixels.
    """

    def write(self, result: Result) -> None: ...


Swap = tuple[list[FrameClassifier], Optional[Decider], Optional[SceneGate], Callable[[], None]]

Health = Callable[[], tuple[Optional[float], Optional[tuple[str, ...]]]]
"""The newest (temperature in degrees Celsius, throttling words), each None where unknown."""


class FrameLoop:
    """Runs `source` (open) through `classifiers` (a worker thread each; a single one works in the caller's thread).

    `run` returns why it ended: "eof", "max_frames", "duration", "signal" or "source_lost" (`lost` then holds the
    error). `stop` may be called from a signal handler or another thread. `controls` (else made of `threshold` and
    `smooth`) may be changed at any time. A frame that `gate` finds still gives a result all the same, from the scores
    of the last inference: smoothing, decisions and outputs go on as if it had been classified. With `inline`, files of
    which no frame may be lost are read by the threads that classify, in turn: right where each CPU has one of them.
    With `bursts`, and where no sink wants pixels, fast ones prepare a few frames of a file in a row, infer and report.
    """

    def __init__(
        self,
        source: FrameSource,
        classifiers: Sequence[FrameClassifier],
        sinks: Sequence[ResultSink] = (),
        *,
        every_frame: bool = False,
        repeat: bool = False,
        max_frames: Optional[int] = None,
        duration_s: Optional[float] = None,
        threshold: float = 0.0,
        smooth: float = 0.0,
        health: Health = lambda: (None, None),
        max_fps: Callable[[], Optional[float]] = lambda: None,
        statistics: Optional[Statistics] = None,
        controls: Optional[Controls] = None,
        decider: Optional[Decider] = None,
        gate: Optional[SceneGate] = None,
        inline: bool = False,
        bursts: bool = False,
    ) -> None:
        self.statistics = statistics or Statistics()
        if source.granted is not None and source.granted.fps:
            self.statistics.pause_ns = int(1e9 / source.granted.fps)
        self.controls = controls or Controls(threshold, smooth)
        self._classifiers, self._sinks = list(classifiers), list(sinks)
        self._max_frames, self._duration_s = max_frames, duration_s
        self._smoother = Smoother(self.controls.smooth)
        self.decider = decider
        self._gate = gate
        self._bursts = bursts and not source.live
        self._last: Optional[Classified] = None
        self._hidden = _hidden(decider)
        self._index = self._due = 0
        self._health, self._max_fps = health, max_fps
        self._stopping = threading.Event()
        self._capture = Capture(
            source,
            lossless=every_frame or not (source.live or source.paced),
            paced=not every_frame,
            repeat=repeat,
            inline=inline,
            on_read=self.statistics.capture.add,
        )
        self._pending: Pending[Swap] = Pending()
        self._idle_since: Optional[int] = None
        self.lost: Optional[SourceError] = None

    @property
    def dropped(self) -> int:
        """Frames that were captured and never classified."""
        return self._capture.dropped

    def add_sink(self, sink: ResultSink) -> None:
        """Give results to `sink` too (before `run`)."""
        self._sinks.append(sink)

    def stop(self) -> None:
        """End the run soon, as SIGINT and SIGTERM do."""
        self._stopping.set()

    def swap(
        self,
        classifiers: Sequence[FrameClassifier],
        decider: Optional[Decider],
        gate: Optional[SceneGate],
        done: Callable[[], None],
    ) -> Callable[[], bool]:
        """Classify with `classifiers`, as many as before, from one of the next frames on; no frame is lost.

        Any thread may call it. `done` is called in the loop's thread once no frame needs the former classifiers, unless
        another swap comes first. With the `decider` in use what is present stays present.

        What is returned takes it back, and gives False where it is under way or done and cannot be taken back."""
        if len(classifiers) != len(self._classifiers):
            raise ValueError(f"{len(classifiers)} classifiers for {len(self._classifiers)} workers")
        swap = (list(classifiers), decider, gate, done)
        self._pending.put(swap)
        return lambda: self._pending.withdraw(swap)

    def run(self) -> str:
        """Classify until something ends it. Raises ModelError where the model fails; closes the source."""
        self._bursts = self._bursts and not any(getattr(sink, "wants_pixels", True) for sink in self._sinks)
        self._capture.start()
        try:
            return self._run_one() if len(self._classifiers) == 1 and not self._bursts else self._run_workers()
        except SourceError as error:
            self.lost = error
            return "source_lost"
        finally:
            self._pending.end()
            self._all_gone()
            self._capture.stop()

    def _run_one(self) -> str:
        while True:
            if ended := self._why_end():
                return ended
            self._take_over()
            classifier = self._classifiers[0]
            frame = self._capture.take(_POLL_S, self.controls.paused)
            if frame is not None:
                still = self._gate is not None and self._gate.still(frame)
                self._deliver(classifier, frame, None if still else classified(classifier, frame))
                frame = None  # the next one may have its buffer
            elif self._capture.ended:
                return "eof"
            else:
                self._idle()

    def _run_workers(self) -> str:
        # Imported here: one worker, the common case, pays nothing for many.
        from edge_mnv2.pipeline.workers import Bursts, Workers

        classifiers, capture, controls, gate = self._classifiers, self._capture, self.controls, self._gate
        workers: Union[Bursts, Workers]
        if len(classifiers) == 1:
            workers = Bursts(classifiers, capture, controls, gate, self._max_frames)
        else:
            workers = Workers(classifiers, capture, controls, _POLL_S, gate, self._max_frames, self._bursts)
        with workers:
            while True:
                if ended := self._why_end():
                    return ended
                swap = self._pending.begin()
                if swap is not None and swap[0] is not workers.classifiers:
                    workers.swap(swap[0], swap[2])
                done = workers.next_in_order(_POLL_S)
                if done is not None:
                    frame, classified, classifier = done
                    if swap is not None and classifier in swap[0]:
                        self._take_over()
                    self._deliver(classifier, frame, classified)
                elif workers.ended:
                    return "eof"
                else:
                    if swap is not None and workers.idle:
                        self._take_over()
                    self._idle()

    def _take_over(self) -> None:
        """Where another model waits: the former one's classes are gone, its scores and smoothing are forgotten."""
        if (swap := self._pending.take()) is None:
            return
        classifiers, decider, gate, done = swap
        if decider is None or decider is not self.decider:
            self._all_gone()
            self._smoother.reset()
        self._classifiers, self.decider, self._gate, self._last = classifiers, decider, gate, None
        self._hidden = _hidden(decider)
        done()

    def _why_end(self) -> str:
        if self._stopping.is_set():
            return "signal"
        if self._max_frames is not None and self.statistics.frames >= self._max_frames:
            return "max_frames"
        began = self.statistics.first_captured_at or self._capture.first_captured_at
        if self._duration_s is not None and began is not None:
            if time.monotonic_ns() - began >= self._duration_s * 1e9:
                return "duration"
        return ""

    def _deliver(self, classifier: FrameClassifier, frame: Frame, classified: Optional[Classified]) -> None:
        """`classified` is None where the frame shows what the one before it shows."""
        shown = classified or self._last
        assert shown is not None
        self._last = shown
        if self._smoother.past != self.controls.smooth:
            self._smoother.past = self.controls.smooth
        scores = self._smoother(shown.scores)
        # A measured value has no threshold: it may be below zero.
        ranked = tuple(self._best(classifier, scores))
        top = tuple(one for one in ranked if one.unit is not None or not one.score < self.controls.threshold)
        wall_time = time.time()
        decider = self.decider
        events = decider(scores, wall_time, frame.index, time.monotonic(), ranked) if decider is not None else ()
        finished = time.monotonic_ns()
        self._idle_since, self._index = None, frame.index
        statistics = self.statistics
        statistics.add(frame.captured_at, classified, finished)
        temperature, throttled = self._health()
        result = Result(
            frame=frame,
            top=top,
            finished_at=finished,
            wall_time=wall_time,
            uptime_s=(finished - statistics.began) / 1e9,
            latency_ns=finished - frame.captured_at,
            inference_ns=shown.inference_ns,
            fps=statistics.recent_fps(finished),
            dropped=self._capture.dropped,
            engine=shown.engine,
            temp_c=temperature,
            throttled=throttled,
            events=tuple(events),
            present=decider.present_labels if decider is not None else (),
            gated=classified is None,
            shown_from=self.controls.shown_from,
            ranked=ranked,
            raw_row=None if scores is shown.scores else int(np.argmax(shown.scores)),
            seen=seen_in(frame, shown),
            embedding=shown.embedding,
        )
        for sink in self._sinks:
            sink.write(result)
        self._hold_rate(finished)

    def _best(self, classifier: FrameClassifier, scores: np.ndarray) -> list[Prediction]:
        """The best rows of those that may be reported."""
        if not self._hidden.size:
            return classifier.top(scores)
        shown = scores.copy()
        shown[self._hidden] = -np.inf
        return [one for one in classifier.top(shown) if one.score != -np.inf]

    def _idle(self) -> None:
        """No result came for a moment; when that lasts, what was present is not known to be there any more."""
        now = time.monotonic_ns()
        if self._idle_since is None or self.controls.paused:
            self._idle_since = now
        elif now - self._idle_since > self.statistics.patience_s(_FORGET_S) * 1e9:
            self._all_gone()
            self._smoother.reset()

    def _all_gone(self) -> None:
        events: Sequence[Event] = self.decider.all_gone(self._index) if self.decider is not None else ()
        if events:
            for sink in self._sinks:
                announce = getattr(sink, "announce", None)
                if announce is not None:
                    announce(events)

    def _hold_rate(self, finished: int) -> None:
        """Wait as the highest frame rate allowed now asks for; live frames that come meanwhile are dropped."""
        if limit := self._max_fps():
            due = self._due + int(1e9 / limit)
            self._due = max(due, finished)
            self._stopping.wait(max(0, due - finished) / 1e9)
        else:
            self._due = finished


def _hidden(decider: Optional[Decider]) -> np.ndarray:
    return np.array(sorted(decider.hidden) if decider is not None else [], np.intp)
