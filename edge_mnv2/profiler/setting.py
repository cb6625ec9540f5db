"""The settings that a sweep compares, and what they are compared by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.html_report import plural
from edge_mnv2.profiler.burst import Burst, median
from edge_mnv2.runtime.delegate import supervising
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
        """Whether it is an Edge TPU."""
        return self.delegate.startswith("edgetpu")

    @property
    def device(self) -> str:
        """In words: an accelerator, or the CPU."""
        own = supervising(self.runtime, self.delegate.partition(":")[0], self.model)
        return own.name if own is not None else "Edge TPU" if self.accelerated else "CPU"

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


def supervised_settings(runtime: Runtime, model: Optional[str], workers: Iterable[int]) -> list[Setting]:
    """The settings of the accelerator with a supervision of its own that is asked for, or that `model` is for."""
    mode = runtime.delegate.partition(":")[0]
    own = supervising(runtime.backend, mode, model)
    if own is None:
        return []
    return [Setting(model, runtime.delegate if mode == own.name else own.name, 1, count) for count in workers]


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
