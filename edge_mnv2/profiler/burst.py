"""Short measured runs of a source's frames: the model alone, and the whole loop of `run`. Everything here uses them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from edge_mnv2.board.cpus import no_spare_cpu
from edge_mnv2.camera.frame import FrameSource
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings, parse
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.percentiles import Percentiles
from edge_mnv2.pipeline.result import FrameClassifier, Result
from edge_mnv2.pipeline.statistics import Statistics
from edge_mnv2.profiler.watch import own_seconds
from edge_mnv2.runtime.classifier import Classified, simulated_inference_ns
from edge_mnv2.runtime.table import AnyInterpreter
from edge_mnv2.settings.schema import Camera

STAGES = ("capture", "preprocess", "inference", "postprocess")

LEAST_FRAMES = 3
"""However slow the board is, a burst has so many frames for each worker."""
PATTERN_SIZE = (640, 480)
_SIZABLE = ("device", "csi")


@dataclass(frozen=True)
class Feed:
    """A source and how it is read.

    `waits`: it delivers at a rate of its own, as a camera does. The others give each frame as soon as it can be taken
    and begin again at their end. `size` is (width, height) of a test pattern. `sizable`: the source can be asked for
    other sizes.
    """

    source: FrameSource
    waits: bool
    size: Optional[tuple[int, int]] = None
    sizable: bool = False

    @property
    def description(self) -> str:
        if self.size is not None and not self.waits:
            return f"test pattern {self.size[0]}x{self.size[1]}, without pause"
        return self.source.description

    def loop(
        self, classifiers: Sequence[FrameClassifier], statistics: Optional[Statistics] = None, **more: Any
    ) -> FrameLoop:
        """The loop of `run` over this source, which has to be open."""
        endless = not self.waits
        return FrameLoop(
            self.source,
            classifiers,
            every_frame=endless,
            repeat=endless,
            statistics=statistics,
            inline=no_spare_cpu(len(classifiers)),
            **more,
        )


def pattern_feed(size: tuple[int, int] = PATTERN_SIZE, settings: Optional[Camera] = None) -> Feed:
    """The test pattern in `size`, turned and cropped as the settings say."""
    asked = CameraSettings(**settings.asked()) if settings is not None else CameraSettings()
    return Feed(open_source("test:{}x{}".format(*size), asked, hurry=True), False, size, True)


def choose_feed(spec: Optional[str], settings: Camera) -> Feed:
    """The feed for `--source SPEC`; the test pattern, in the settings' size, where none was named.

    A test pattern keeps its rate only where one was given (`test:640x480@30`): it then stands for a camera. Nothing is
    opened. Raises UsageError, SourceError, DownloadError as `open_source`.
    """
    parsed = parse("test" if spec is None else spec)
    if parsed.kind == "test" and parsed.fps is None:
        return pattern_feed(parsed.size or settings.size or PATTERN_SIZE, settings)
    source = open_source(str(spec), CameraSettings(**settings.asked()))
    return Feed(
        source, source.live, parsed.size, parsed.kind in _SIZABLE or (parsed.kind == "test" and not parsed.size)
    )


@dataclass
class Burst:
    """What one or several bursts of one setting took, nanoseconds one a frame.

    `end_to_end` runs from a frame that is there to its named result: from the capture time of a live source, else from
    the start of preprocessing. `capture` is time inside the source's read, one a frame that was read. `rates` are the
    frames a second of each burst, `cpu_s` the CPU seconds of this process, `wall_s` the time of the bursts.
    """

    end_to_end: list[int] = field(default_factory=list)
    capture: list[int] = field(default_factory=list)
    preprocess: list[int] = field(default_factory=list)
    inference: list[int] = field(default_factory=list)
    postprocess: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    cpu_s: float = 0.0

    @property
    def frames(self) -> int:
        return len(self.end_to_end)

    @property
    def cpu_ms_per_frame(self) -> Optional[float]:
        return self.cpu_s * 1e3 / self.frames if self.frames else None

    def add(self, other: Burst) -> None:
        """Count the frames of `other` too."""
        for name in ("end_to_end", *STAGES, "rates", "spans"):
            getattr(self, name).extend(getattr(other, name))
        self.cpu_s += other.cpu_s


def model_burst(interpreter: AnyInterpreter, seconds: float, least: int = LEAST_FRAMES) -> list[int]:
    """Nanoseconds of each `invoke` of an interpreter whose input is set, one straight after the other."""
    floor = simulated_inference_ns()
    times: list[int] = []
    clock = time.perf_counter_ns
    end = clock() + int(seconds * 1e9)
    while True:
        began = clock()
        interpreter.invoke()
        ended = clock()
        if ended - began < floor:
            time.sleep((floor - (ended - began)) / 1e9)
            ended = clock()
        times.append(ended - began)
        if ended >= end and len(times) >= least:
            return times


def loop_burst(
    classifiers: Sequence[FrameClassifier], feed: Feed, seconds: float, *, least: int = LEAST_FRAMES
) -> Burst:
    """`seconds` of the frame loop, at least `least` frames for each engine; opens and closes the source.

    Raises what the source and the classifiers raise.
    """
    recorder = _Recorder(feed.waits)
    feed.source.open()
    loop = feed.loop(classifiers, recorder)
    loop.add_sink(_Enough(seconds, least * len(classifiers), loop.stop))
    cpu, began = own_seconds(), time.monotonic_ns()
    loop.run()
    if loop.lost is not None:
        raise loop.lost
    burst = recorder.burst
    burst.cpu_s = own_seconds() - cpu
    burst.spans.append((began, time.monotonic_ns()))
    burst.capture.extend(recorder.reads.values)
    if (rate := recorder.rate(len(classifiers))) is not None:
        burst.rates.append(rate)
    return burst


class _Recorder(Statistics):
    """Keeps every frame's times, which the statistics of a long run must not."""

    def __init__(self, live: bool) -> None:
        super().__init__()
        self._live = live
        self.burst = Burst()
        self.capture = self.reads = _AllTimes()
        self._finished: list[int] = []

    def add(self, captured_at: int, classified: Optional[Classified], finished_at: int) -> None:
        super().add(captured_at, classified, finished_at)
        assert classified is not None  # nothing is profiled with a scene gate
        burst = self.burst
        burst.preprocess.append(classified.preprocess_ns)
        burst.inference.append(classified.inference_ns)
        burst.postprocess.append(classified.postprocess_ns)
        burst.end_to_end.append(finished_at - (captured_at if self._live else classified.started_at))
        self._finished.append(finished_at)

    def rate(self, workers: int) -> Optional[float]:
        """Frames a second once every worker is busy."""
        finished = sorted(self._finished)
        if len(finished) > workers:
            span = finished[-1] - finished[workers - 1]
            return (len(finished) - workers) * 1e9 / span if span else None
        return len(finished) / self.duration_s if self.duration_s else None


class _AllTimes(Percentiles):
    def __init__(self) -> None:
        super().__init__()
        self.values: list[int] = []

    def add(self, nanoseconds: int) -> None:
        self.values.append(nanoseconds)


class _Enough:
    """Stops the loop once it has run for long enough and has made enough results."""

    def __init__(self, seconds: float, least: int, stop: Callable[[], None]) -> None:
        self._end = time.monotonic_ns() + int(seconds * 1e9)
        self._left = least
        self._stop = stop

    def write(self, result: Result) -> None:
        self._left -= 1
        if self._left <= 0 and result.finished_at >= self._end:
            self._stop()


def percentiles(
    nanoseconds: Sequence[int], fractions: Sequence[float] = (0.5, 0.95, 0.99)
) -> dict[str, Optional[float]]:
    """`{"p50": ms, ...}` of times in nanoseconds, None where there are none; linear between the two nearest."""
    values = np.quantile(nanoseconds, fractions) / 1e6 if nanoseconds else [None] * len(fractions)
    return {
        f"p{round(fraction * 100)}": None if value is None else round(float(value), 4)
        for fraction, value in zip(fractions, values)
    }


def median(values: Sequence[float]) -> Optional[float]:
    """The median, None without values."""
    return statistics.median(values) if values else None


def rounded(value: Optional[float], digits: int) -> Optional[float]:
    """`round` that passes None on."""
    return None if value is None else round(value, digits)
