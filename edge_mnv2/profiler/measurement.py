"""The settings that a sweep compares; one measured thoroughly: warm-up, model alone, stages, a frame's whole way."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from edge_mnv2.board.accelerators import automatic
from edge_mnv2.board.cpus import MemoryReader
from edge_mnv2.board.sysroot import Sysroot
from edge_mnv2.errors import UsageError
from edge_mnv2.html_report import plural
from edge_mnv2.pipeline.statistics import resident_mb
from edge_mnv2.profiler.burst import STAGES, Burst, Feed, loop_burst, median, model_burst, percentiles, rounded
from edge_mnv2.profiler.watch import CpuMeter, Watch
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.delegate import supervising
from edge_mnv2.runtime.opening import Classifiers, open_classifiers
from edge_mnv2.runtime.table import row
from edge_mnv2.settings.profile import Settings
from edge_mnv2.settings.schema import Runtime

_STEPS = (1, 2, 3, 4, 6, 8)
"""Numbers of threads and of workers that are tried. MobileNetV2's layers are too small to feed more than 8 threads."""

_OVERBOOKED = 2
"""Threads times workers go up to so many times the CPUs: a worker's other stages overlap with inference."""


@dataclass(frozen=True)
class Setting:
    """`model` is what to resolve (None: the default), `delegate` "none" or an accelerator's name, `runtime` a row of
    the runtimes' table, or "auto" where there is no choice."""

    model: Optional[str]
    delegate: str
    threads: int
    workers: int
    runtime: str = "auto"

    @property
    def accelerated(self) -> bool:
        """Whether it is an accelerator that is compared with the CPU."""
        return automatic(self.delegate) is not None

    @property
    def device(self) -> str:
        """In words: an accelerator, or the CPU."""
        own = supervising(self.runtime, self.delegate.partition(":")[0], self.model)
        row = automatic(self.delegate)
        return own.name if own is not None else row.title if row is not None else "CPU"

    @property
    def complexity(self) -> float:
        """Of two equally good settings the simpler one is better: fewer workers, then fewer threads, then no twin."""
        return self.workers * 1000 + self.threads + (0.5 if self.runtime != "auto" and row(self.runtime).twins else 0)

    @property
    def words(self) -> str:
        device = f"CPU, {self.runtime}" if self.device == "CPU" and self.runtime != "auto" else self.device
        return f"{device}, {plural(self.threads, 'thread')}, {plural(self.workers, 'worker')}"


def steps(usable: int, fixed: Optional[int] = None) -> list[int]:
    """How many threads, or workers, to try on `usable` CPUs; `fixed`: the number that somebody asked for."""
    if fixed is not None:
        return [fixed]
    return sorted({step for step in _STEPS if step <= usable} | {min(usable, _STEPS[-1])})


def cpu_settings(
    models: Iterable[Optional[str]],
    usable: int,
    threads: Optional[int] = None,
    workers: Optional[int] = None,
    runtimes: Sequence[str] = ("auto",),
) -> list[Setting]:
    """Every setting of the CPU worth trying on `usable` CPUs, for each of `models` in each of `runtimes`."""
    return [
        Setting(model, "none", thread_count, worker_count, runtime)
        for model in models
        for runtime in runtimes
        for thread_count in steps(usable, threads)
        for worker_count in steps(usable, workers)
        if workers is not None or worker_count == 1 or thread_count * worker_count <= usable * _OVERBOOKED
    ]


def supervised_settings(
    runtime: Runtime, model: Optional[str], usable: int, workers: Optional[int] = None
) -> list[Setting]:
    """The settings of the accelerator with a supervision of its own that is asked for, or that `model` is for."""
    mode = runtime.delegate.partition(":")[0]
    own = supervising(runtime.backend, mode, model)
    if own is None:
        return []
    return [
        Setting(model, runtime.delegate if mode == own.name else own.name, 1, count) for count in steps(usable, workers)
    ]


def pinned(settings: Settings, key: str) -> Optional[int]:
    """The number that the command line or the environment gives for `key`: a sweep does not vary it."""
    value = settings.get(key)
    asked = settings.origin(key).kind in ("command line", "environment")
    return int(value) if asked and value != "auto" else None


GOALS = ("latency", "throughput", "power")


@dataclass(frozen=True)
class Goal:
    """`measured_power`: a sensor tells what the board draws; else CPU time stands for energy."""

    name: str
    measured_power: bool = False

    def __post_init__(self) -> None:
        if self.name not in GOALS:
            raise UsageError(f"--goal {self.name}", hint=f"one of {', '.join(GOALS)}")

    @property
    def meaning(self) -> str:
        """In words, for people."""
        if self.name == "latency":
            return "least time from a frame to its result (median)"
        if self.name == "throughput":
            return "most frames a second"
        if self.measured_power:
            return "least energy a frame, measured for the whole board"
        return "least CPU time a frame (this board has no power sensor)"

    def cost(self, burst: Burst, energy_mj: Optional[float]) -> float:
        """Above 0; of a burst with at least one frame. `energy_mj` is the energy a frame, mJ, where it is known."""
        if self.name == "latency":
            return float(median(burst.end_to_end) or 0) or 1.0
        if self.name == "throughput":
            rate = median(burst.rates)
            return 1 / rate if rate else float(median(burst.end_to_end) or 1) / 1e9
        if self.measured_power and energy_mj:
            return energy_mj
        return burst.cpu_ms_per_frame or 1e-6


WARM_UP_S = 1.0
"""Time for caches, and for a clock governor to notice that there is work."""

_ROUND_S = 0.8


@dataclass
class WarmUp:
    """`load_ms`: the file read, checked and loaded, every worker's first inference included. `first_ms`: the first
    frame's way through the loop. Then `frames` more in `seconds` before anything counts."""

    load_ms: float
    first_ms: Optional[float] = None
    frames: int = 0
    seconds: float = 0.0


@dataclass
class Measurement:
    """Times in nanoseconds, one a frame. `model` is `invoke` alone, one interpreter, nothing else running in between.

    `burst` is the loop of `run` with every worker. `cpu` is the time of the loop's bursts alone.
    """

    warm_up: WarmUp
    model: list[int] = field(default_factory=list)
    burst: Burst = field(default_factory=Burst)
    watts: Optional[float] = None
    others: Optional[float] = None
    rss_mb: Optional[float] = None
    peak_rss_mb: Optional[float] = None

    @property
    def fps(self) -> Optional[float]:
        return median(self.burst.rates)

    @property
    def energy_mj(self) -> Optional[float]:
        """Energy a frame in mJ: what the whole board draws, over the frame rate."""
        return self.watts / self.fps * 1e3 if self.watts is not None and self.fps else None

    def document(self) -> dict[str, Any]:
        """The measured part of the JSON document."""
        spent = self.burst.cpu_ms_per_frame
        return {
            "model_ms": percentiles(self.model),
            "stages_ms": {name: percentiles(getattr(self.burst, name)) for name in STAGES},
            "end_to_end_ms": percentiles(self.burst.end_to_end),
            "fps": rounded(self.fps, 2),
            "frames": self.burst.frames,
            "inferences": len(self.model),
            "warm_up": {
                "load_ms": round(self.warm_up.load_ms, 1),
                "first_ms": rounded(self.warm_up.first_ms, 3),
                "frames": self.warm_up.frames,
                "seconds": round(self.warm_up.seconds, 2),
            },
            "cpu": {
                "ms_per_frame": rounded(spent, 3),
                "cpus_used": None if spent is None or self.fps is None else round(spent * self.fps / 1e3, 2),
                "others": rounded(self.others, 2),
            },
            "memory": {"rss_mb": self.rss_mb, "peak_rss_mb": self.peak_rss_mb},
            "power_w": rounded(self.watts, 3),
            "energy_mj": rounded(self.energy_mj, 3),
        }


def measure(
    classifiers: Sequence[Classifier], feed: Feed, watch: Watch, *, seconds: float, load_ms: float
) -> Measurement:
    """Measure for about `seconds`, the model alone and the loop in turns. Raises what they raise."""
    warm_up = WarmUp(load_ms)
    first = loop_burst(classifiers, feed, min(WARM_UP_S, seconds / 4))
    if first.end_to_end:
        warm_up.first_ms = first.end_to_end[0] / 1e6
    warm_up.frames = first.frames
    warm_up.seconds = sum(ended - began for began, ended in first.spans) / 1e9
    result = Measurement(warm_up)
    interpreter = classifiers[0].interpreter
    meter = CpuMeter()
    # A camera is opened once: it needs a second or more for that.
    rounds = 1 if feed.waits else max(2, round(seconds / _ROUND_S))
    end = time.monotonic() + seconds
    for _ in range(rounds):
        result.model += model_burst(interpreter, seconds / rounds * 0.4)
        result.burst.add(loop_burst(classifiers, feed, seconds / rounds * 0.6))
        if time.monotonic() > end:
            break
    result.others = meter.read().others
    result.watts = watch.watts(result.burst.spans)
    result.rss_mb = resident_mb()
    result.peak_rss_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)
    return result


_KEEP_FREE = 0.25
"""Share of the available memory that is left to others."""


def with_setting(settings: Settings, setting: Setting) -> Settings:
    """`settings` with the model, runtime, delegate and threads of `setting`."""
    backend = settings.runtime.backend if setting.runtime == "auto" else setting.runtime
    runtime = replace(
        settings.runtime,
        model=setting.model,
        backend=backend,
        delegate=setting.delegate,
        threads=setting.threads,
        workers=1,
    )
    return replace(settings, runtime=runtime)


_Key = tuple[Optional[str], str, int, str]


def _key(setting: Setting) -> _Key:
    return setting.model, setting.delegate, setting.threads, setting.runtime


class OpenClassifiers:
    """The classifiers that a sweep holds open side by side: one interpreter serves every setting that has its threads.

    Each is opened when it is first asked for. A context manager that closes them all.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self._open: dict[_Key, list[Classifiers]] = {}
        self._memory = MemoryReader(Sysroot("/"))
        self._each_mb = 0.0
        self._load_ms: dict[_Key, float] = {}
        self.notes: list[str] = []

    def has_room(self) -> bool:
        """Whether the memory is large enough for one more interpreter like the largest so far."""
        available = self._memory.read().available
        return available is None or self._each_mb < available * (1 - _KEEP_FREE)

    def get(self, setting: Setting) -> list[Classifier]:
        """As many classifiers as `setting` has workers. Raises what `open_classifiers` raises."""
        key = _key(setting)
        held = self._open.setdefault(key, [])
        classifiers = [classifier for opened in held for classifier in opened.classifiers]
        missing = setting.workers - len(classifiers)
        if missing > 0:
            before, began = resident_mb(), time.monotonic()
            opened = open_classifiers(with_setting(self._settings, setting), "exit", workers=missing, fastest=True)
            held.append(self._stack.enter_context(opened))
            self._load_ms.setdefault(key, (time.monotonic() - began) * 1e3 / missing)
            classifiers += opened.classifiers
            self.notes += [note for note in opened.notes if note not in self.notes]
            if before is not None and (after := resident_mb()) is not None:
                self._each_mb = max(self._each_mb, (after - before) / missing)
        return classifiers[: setting.workers]

    def load_ms(self, setting: Setting) -> float:
        """What it took to open one of the classifiers of `setting`, its first inference included."""
        return self._load_ms[_key(setting)]

    def name(self, setting: Setting) -> tuple[str, str, str]:
        """(model, runtime, delegate) of open classifiers, as results name them."""
        opened = self._open[_key(setting)][0]
        return opened.model, opened.runtime, opened.delegate

    def __enter__(self) -> OpenClassifiers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
